"""Ranges of settings: stated once, in the metadata of a config dataclass's field.

The dataclass checks them, and nodes make parameter descriptors and documentation of them.
"""

from __future__ import annotations

from dataclasses import Field, field, fields
from typing import Any, TypeVar

from face_recon_ros.core.errors import ConfigError

Number = TypeVar("Number", int, float)

_KEY = "range"


def ranged(default: Number, low: Number, high: Number) -> Number:
    """A dataclass field with a default and a range, both ends of which belong to it."""
    made: Any = field(default=default, metadata={_KEY: (low, high)})
    return made  # type: ignore[no-any-return]


def range_of(item: Field[Any]) -> tuple[float, float] | None:
    """Lowest and highest value of a field of a dataclass; None where it has no range."""
    return item.metadata.get(_KEY)


def check_ranges(config: Any) -> None:
    """Checks all fields of a config that have a range.

    Raises:
        ConfigError: a value lies outside, or is no number.
    """
    for item in fields(config):
        limits = range_of(item)
        value = getattr(config, item.name)
        if limits is not None and not limits[0] <= value <= limits[1]:
            raise ConfigError(
                f"{item.name} from {limits[0]} to {limits[1]}",
                f"{value}",
                f"for example {item.default}",
            )
