"""The one-slot hand-over: newest first, nothing queued, nobody waits for ever."""

import threading
import time

from face_recon_ros.nodes.worker import LatestValue, Worker


def test_newest_replaces_what_nobody_took():
    slot = LatestValue()
    for item in (1, 2, 3):
        slot.put(item)
    assert slot.take() == 3
    assert slot.dropped == 2


def test_closing_lets_everybody_go():
    slot = LatestValue()
    taken = []
    thread = threading.Thread(target=lambda: taken.append(slot.take()))
    thread.start()
    slot.close()
    thread.join(timeout=5)
    assert taken == [None]


def end(worker):
    worker.slot.close()
    worker.thread.join(timeout=5.0)


def test_in_lockstep_nothing_is_dropped():
    done = []

    def work(item):
        time.sleep(0.002)
        done.append(item)

    worker = Worker("test", work, lambda bug: None)
    for item in range(1, 21):
        worker.slot.put_when_idle(item)
    assert worker.slot.wait_until_idle(5.0)
    end(worker)
    assert done == list(range(1, 21))
    assert worker.slot.dropped == 0


def test_a_slow_worker_gets_the_newest():
    gate, done = threading.Event(), []

    def work(item):
        gate.wait(5)
        done.append(item)

    worker = Worker("test", work, lambda bug: None)
    worker.slot.put(1)
    time.sleep(0.05)
    for item in range(2, 10):
        worker.slot.put(item)
    gate.set()
    assert worker.slot.wait_until_idle(5.0)
    end(worker)
    assert done == [1, 9]


def test_a_bug_is_handed_on():
    bugs, crashed = [], threading.Event()

    def note(bug):
        bugs.append(bug)
        crashed.set()

    worker = Worker("test", lambda item: 1 / item, note)
    worker.slot.put(0.0)
    assert crashed.wait(5)
    assert isinstance(bugs[0], ZeroDivisionError)
    end(worker)
