"""The log of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

LOG = "log.jsonl"


class Log:
    """Running means of all figures: a line of JSON each time, and TensorBoard where installed."""

    def __init__(self, out: Path, status: Callable[[dict[str, float]], str] | None = None) -> None:
        """Appends to the log in `out`; `status` says the main figures in a line."""
        self._status = status or regressor_status
        out.mkdir(parents=True, exist_ok=True)
        self._path = out / LOG
        self._means: dict[str, float] = {}
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(out))
        except ImportError:
            self._board = None

    def add(
        self, values: dict[str, Tensor], loss: Tensor, images_per_s: float, waited: float
    ) -> None:
        """One step; `waited` is the share of it in which no batch was ready."""
        figures = {"loss": loss, **values, "images_per_s": images_per_s, "waited": waited}
        for name, value in figures.items():
            value = float(value.detach()) if isinstance(value, Tensor) else value
            self._means[name] = 0.97 * self._means.get(name, value) + 0.03 * value

    def write(self, step: int, elapsed: float) -> str:
        """Stores the means and says the main ones."""
        m = self._means
        line = {"step": step, "elapsed_s": round(elapsed, 1)}
        with self._path.open("a") as file:
            file.write(json.dumps({**line, **{k: round(v, 5) for k, v in m.items()}}) + "\n")
        if self._board is not None:
            for name, value in m.items():
                self._board.add_scalar(name, value, step)
        return (
            f"step {step}, {m['images_per_s']:.0f} img/s, waited {m['waited']:.0%}, "
            f"loss {m['loss']:.3f}, {self._status(m)}"
        )


def regressor_status(means: dict[str, float]) -> str:
    """The regression network's main figures."""
    return (
        f"reprojection {means['reprojection']:.4f}, {means['neutral_mm']:.2f} mm, "
        f"{math.degrees(means['rotation']):.1f} deg"
    )
