"""One HTML file that needs nothing else: figures, plots as SVG, pictures of the worst cases.

Meant to be attached to a paper or a pull request, so it says what was measured, with what, on
which machine.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.evaluation.output import plain
from face_recon_ros.evaluation.sequence import MIN_FRAMES
from face_recon_ros.io.folders import write_whole

_APART = ("protocol", "provenance", "skipped", "per_image")
_MAX_BINS = 1000  # of a line; each keeps its least and its greatest
_GAP_S = 0.5  # a line breaks where nothing was seen for so long

#: The page: blocks in order, each with a `kind`.
_TEMPLATE = "report.html.jinja"


@dataclass
class Report:
    """A report in the making.

    Attributes:
        title: of the page.
        lead: one sentence under it.
        blocks: what the template shows, in order.
    """

    title: str
    lead: str
    blocks: list[dict[str, Any]] = field(default_factory=list)

    def _add(self, kind: str, content: Any) -> None:
        self.blocks.append({"kind": kind, "content": content})

    def heading(self, text: str) -> None:
        """Starts a section."""
        self._add("heading", text)

    def text(self, text: str) -> None:
        """Adds a paragraph."""
        self._add("text", text)

    def cards(self, figures: Mapping[str, str]) -> None:
        """Adds the headline figures: what -> value with unit, and perhaps its [interval]."""
        split = [(*value.partition(" ["), name) for name, value in figures.items()]
        self._add(
            "cards", [(figure, rest and f"[{rest}", name) for figure, _, rest, name in split]
        )

    def warnings(self, texts: Iterable[str]) -> None:
        """Adds boxes that cannot be overlooked."""
        for text in texts:
            self._add("warning", text)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Adds a table."""
        cells = [[c if isinstance(c, Link) else show(c) for c in row] for row in rows]
        self._add("table", {"header": [in_words(h) for h in header], "rows": cells})

    def plots(self, *drawings: Callable[[Any], None]) -> None:
        """Adds plots, each drawn by a function that is given matplotlib axes."""
        self._add("plots", [_svg(draw) for draw in drawings])

    def pictures(self, pictures: Iterable[tuple[NDArray[np.uint8], str]]) -> None:
        """Adds (picture, caption) pairs."""
        self._add("pictures", [(_data_uri(rgb), caption) for rgb, caption in pictures])

    def machine(self, provenance: Mapping[str, Any]) -> None:
        """Says with what and where it was measured."""
        self.heading("Measured with")
        named = provenance.get("models", {})
        rows = [(f"model {name}", f"SHA-256 {sha256}") for name, sha256 in named.items()]
        rows += [(group, values) for group, values in provenance.items() if group != "models"]
        self.table(("what", "which"), rows)

    def write(self, path: str | Path) -> None:
        """Writes the page."""
        page = _template().render(title=self.title, lead=self.lead, blocks=self.blocks)
        write_whole(path, page, "choose another --report")


@dataclass(frozen=True)
class Link:
    """A cell of a table that leads to another page.

    Attributes:
        text: that is shown.
        path: of the page, from the folder of this one.
    """

    text: str
    path: str

    def __html__(self) -> str:
        """What the template puts into the page."""
        return f'<a href="./{quote(self.path)}">{html.escape(self.text)}</a>'


def show(value: Any) -> str:
    """A cell's text: numbers to four significant digits, nothing as a dash, no brackets."""
    value = plain(value)
    if value is None or value == "":
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"{k} {show(v)}" for k, v in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(show(v) for v in value) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (int, float)):
        return str(value)
    return f"{value:d}" if isinstance(value, int) else f"{value:.4g}"


_UNITS = {"s": "s", "ms": "ms", "mm": "mm", "m": "m", "deg": "°", "hz": "Hz", "mb": "MB"}


def in_words(key: str) -> str:
    """A key of a result as people write it: `depth_noise_mm` becomes "depth noise, mm"."""
    *words, last = key.split("_")
    if words[-1:] == ["per"]:
        return " ".join([*words[:-1], f"a {'second' if last == 's' else last}"])
    if words and last in _UNITS:
        return f"{' '.join(words)}, {_UNITS[last]}"
    return " ".join([*words, last])


def with_interval(value: Any, interval: Any, scale: float = 1.0, unit: str = "") -> str:
    """A text like 4.21 % [4.02, 4.40] of a value and its `metrics.Interval` (or JSON form)."""
    v, i = plain(value), plain(interval)
    if v is None:
        return "–"
    if not i or i["low"] is None:
        return f"{scale * v:.3g}{unit}"
    return f"{scale * v:.3g}{unit} [{scale * i['low']:.3g}, {scale * i['high']:.3g}]"


def _template() -> Any:
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(_TEMPLATE)


def cumulative(axes: Any, errors: ArrayLike, label: str, limit: float, missed: int = 0) -> None:
    """Draws the share of faces below each of (N,) errors; missed faces are above all."""
    e = np.sort(np.asarray(errors, np.float64))
    total = max(len(e) + missed, 1)
    inside = e[e <= limit]
    x = np.concatenate([[0.0], inside, [limit]])
    y = np.concatenate([[0.0], np.arange(1, len(inside) + 1), [len(inside)]]) / total
    axes.step(x, y, where="post", label=label)
    axes.set_xlim(0, limit)
    axes.set_ylim(0, 1)


def line(axes: Any, x: ArrayLike, y: ArrayLike, label: str = "", **style: Any) -> None:
    """Draws y over x: broken where nothing was seen, thinned without losing a peak.

    Args:
        axes: of matplotlib.
        x: (N,) rising.
        y: (N,).
        label: for the legend.
        style: of the line.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(x) > 2 * _MAX_BINS:
        bins = np.array_split(np.arange(len(x)), _MAX_BINS)
        keep = np.unique([part[i] for part in bins for i in (y[part].argmin(), y[part].argmax())])
        x, y = x[keep], y[keep]
    step = np.diff(x)
    gaps = np.flatnonzero(step > max(_GAP_S, 5 * float(np.median(step)))) + 1 if len(step) else []
    x, y = np.insert(x, gaps, np.nan), np.insert(y, gaps, np.nan)
    axes.plot(x, y, label=label or None, **{"linewidth": 1.0, **style})


def cut_out(
    rgb: NDArray[np.uint8], box: ArrayLike, margin: float, side_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The square around a box, enlarged or reduced.

    Args:
        rgb: (H, W, 3).
        box: (4,) x0, y0, x1, y1 pixels.
        margin: side of the square over the longer side of the box.
        side_px: of the result.

    Returns:
        (S, S, 3) and the affine map (2, 3) of pixels of `rgb` into it.
    """
    low, high = np.asarray(box, np.float64).reshape(2, 2)
    half = margin / 2 * float((high - low).max()) + 4
    scale = side_px / (2 * half)
    origin = (low + high) / 2 - half
    affine = np.array([[scale, 0, -scale * origin[0]], [0, scale, -scale * origin[1]]])
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.warpAffine(rgb, affine, (side_px, side_px), flags=flags)), affine


def draw_points(
    rgb: NDArray[np.uint8], *point_sets: tuple[ArrayLike, tuple[int, int, int]]
) -> NDArray[np.uint8]:
    """A picture cut to its points with the points drawn on it, 320 pixels square.

    Args:
        rgb: (H, W, 3).
        point_sets: (N, 2) pixels and a colour each.
    """
    everything = np.concatenate([np.asarray(p, np.float64) for p, _ in point_sets])
    box = np.concatenate([everything.min(axis=0), everything.max(axis=0)])
    picture, affine = cut_out(rgb, box, 1.3, 320)
    for points, colour in point_sets:
        for x, y in np.asarray(points, np.float64) @ affine[:, :2].T + affine[:, 2]:
            if np.isfinite([x, y]).all():
                cv2.circle(picture, (round(x), round(y)), 2, colour, -1, cv2.LINE_AA)
    return picture


def _svg(draw: Callable[[Any], None]) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "face_recon", "svg.fonttype": "path"}):
        figure = Figure(figsize=(6.2, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        names = axes.get_legend_handles_labels()[1]
        if names:  # beside the data, never on them
            longest = max(map(len, names))
            columns = max(1, 72 // (longest + 6))
            figure.legend(loc="outside upper left", ncols=columns, fontsize=8, frameon=False)
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # savefig draws twice
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _data_uri(rgb: NDArray[np.uint8]) -> str:
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


def add_track_table(report: Report, sequence: dict[str, Any]) -> None:
    """Adds what was measured of each track that was seen long enough."""
    report.heading("Tracks")
    everyone = sorted(sequence["tracks"].items(), key=lambda track: -track[1]["frames"])
    long_tracks = {n: t for n, t in everyone if t["frames"] >= MIN_FRAMES}
    columns = (
        "frames", "duration_s", "rotation_noise_deg", "depth_noise_mm", "lateral_noise_mm",
        "identity_drift_per_s", "identity_spread", "blink_depth_mm",
    )  # fmt: skip
    report.table(
        ("track", *columns),
        [(name, *(t.get(c) for c in columns)) for name, t in long_tracks.items()],
    )
    if brief := len(everyone) - len(long_tracks):
        report.text(f"{brief} more of fewer than {MIN_FRAMES} frames")
    report.table(("term", "meaning"), worded(sequence["definitions"]))


def worded(figures: dict[str, Any]) -> list[tuple[str, Any]]:
    """Figures with their names as words."""
    return [(in_words(key), value) for key, value in figures.items()]


def plain_page(
    title: str, lead: str, cards: dict[str, str], result: dict[str, Any], *plots: Any
) -> Report:
    """Cards, plots, every figure, protocol, machine."""
    report = Report(title, lead)
    report.cards(cards)
    if "skipped" in result:
        add_left_out(report, result)
    report.heading("Figures")
    if plots:
        report.plots(*plots)
    figures = {k: v for k, v in result.items() if k not in _APART}
    report.table(("figure", "value"), _leaves(figures))
    if "sequence" in result:
        add_track_table(report, result["sequence"])
    report.heading("Protocol")
    report.table(("what", "how"), result["protocol"].items())
    report.machine(result["provenance"])
    return report


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of every figure; `tracks` and definitions have tables of their own."""
    value = plain(value)
    if not isinstance(value, dict):
        yield path, value
        return
    if value.keys() == {"value", "low", "high"}:
        yield path, f"{show(value['value'])} [{show(value['low'])}, {show(value['high'])}]"
        return
    for key, inner in value.items():
        if key not in ("tracks", "definitions"):
            yield from _leaves(inner, f"{path}.{key}" if path else key)


def add_left_out(report: Report, result: dict[str, Any]) -> None:
    """Adds which files were left out, and why."""
    skipped = result["skipped"]
    if skipped["count"]:
        count = skipped["count"]
        report.warnings([f"{count} files were left out" if count > 1 else "1 file was left out"])
        report.table(
            ("left out", "why"), [(e["name"], e["reason"]) for e in skipped["files"][:50]]
        )
