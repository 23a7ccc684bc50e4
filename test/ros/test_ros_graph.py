"""The helper that gives every test a ROS graph of its own."""

import subprocess
import sys

import pytest
from ros_graph import own_domain


def test_no_two_tests_have_one_domain(tmp_path):
    """Not even where another process takes it; what is given back can be had again."""
    code = (
        "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); "
        "print(flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "1")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        other.stdout.readline()
        with own_domain(tmp_path, range(1, 4)) as one, own_domain(tmp_path, range(1, 4)) as two:
            assert {one, two} == {2, 3}
            with (
                pytest.raises(RuntimeError, match="3 ROS domains"),
                own_domain(tmp_path, range(1, 4)),
            ):
                pass
        other.kill()
    for _ in range(2):
        with own_domain(tmp_path, [1]) as domain:
            assert domain == 1
