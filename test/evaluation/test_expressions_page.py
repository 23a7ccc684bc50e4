"""docs/expressions.md: of this network, of all channels, and as measured."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from face_recon_ros.core.models import FACE_MODEL, NETWORK, models_dir, read_manifest
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.evaluation.expression import TRUSTED_CORRELATION, channel_table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "expressions.md"
REMEDY = (
    "measure it again: face-recon evaluate shape --out shape.json && "
    "scripts/expression_table.py shape.json > docs/expressions.md"
)


@pytest.fixture(scope="module")
def writer():
    path = ROOT / "scripts" / "expression_table.py"
    spec = importlib.util.spec_from_file_location("expression_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_of_the_shipped_network():
    manifest = read_manifest(models_dir())
    measured = dict(re.findall(r"^\| `(\S+)` \| `([0-9a-f]{64})` \|$", PAGE.read_text(), re.M))
    assert NETWORK in measured
    networks = [name for name in measured if name.endswith(".onnx")]
    for name in networks:
        sha256 = measured[name]
        assert manifest[name].sha256 == sha256, f"{name} is another file by now; {REMEDY}"


def test_the_page_tells_of_every_channel_and_its_lists_agree_with_its_table():
    page = PAGE.read_text()
    row = r"^\| `(\w+)` \| (\S+) \| \S+ \| \S+ \| \S+ \| (yes|\*\*no\*\*) \|$"
    table = {name: (r, told) for name, r, told in re.findall(row, page, re.M)}
    names = load_morphable_model(models_dir() / FACE_MODEL, level="coarse").expression_names
    assert tuple(table) == names
    bad = [name for name, (_, told) in table.items() if told != "yes"]
    listed = re.search(r"^\*\*Untrusted\*\*, \d+: (.*)\.$", page, re.M).group(1)
    assert re.findall(r"`(\w+)`", listed) == bad
    for name, (r, told) in table.items():
        trusted = r != "–" and float(r) >= TRUSTED_CORRELATION
        assert trusted == (told == "yes") or abs(float(r) - TRUSTED_CORRELATION) < 0.006, name


def test_a_measurement_becomes_a_page(writer):
    truth = np.random.default_rng(0).uniform(0, 1, (50, 3))
    ours = np.stack([truth[:, 0], 0.4 * truth[:, 1], np.zeros(50)], 1)
    shape = {
        "people": 5,
        "views": 50,
        "expression": channel_table(["a", "b", "c"], ours, truth),
        "expression_in_track": channel_table(["a", "b", "c"], truth, truth),
        "provenance": {"models": {"n.onnx": "0" * 64}},
    }
    photographs = {
        "count": 9,
        "missed": 1,
        "measures": {
            "lips": {
                "measure": "gap of the lips",
                "mesh": {"correlation": 0.81, "amplitude": 0.72},
                "expression_alone": {"correlation": None},
                "channels": {"+jawOpen": 0.8},
            }
        },
    }
    page = writer.page(shape, [("lfw", photographs)])
    assert "Trusted, 2: `a`, `b`." in page and "**Untrusted**, 1: `c`." in page
    assert "| `b` | 1.00 | 0.40 | 1.00 |" in page and "| `c` | – | 0.00 | 1.00 |" in page
    assert "8 photographs" in page
    assert "| gap of the lips | 0.81 | 0.72 | – | +jawOpen 0.80 |" in page
    assert (
        writer.page({**shape, "expression": [], "expression_in_track": []}, []).count("none") == 2
    )
