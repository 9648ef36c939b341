"""What makes tissue poor: the reasons, and from which limits on they hold."""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed
from napari_her2.outside import Reading, shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOCUS, PEN, FOLD, BUBBLE, BLANK, OUTSIDE = "focus", "pen", "fold", "bubble", "blank", "outside"
REASONS: Mapping[str, str] = MappingProxyType(
    {
        FOCUS: "out of focus",
        PEN: "pen",
        FOLD: "fold",
        BUBBLE: "bubble",
        BLANK: "blank",
        OUTSIDE: "out of tissue",
    }
)
"""Why a tile is poor, by name, and in words; the first that holds is the one that is shown."""
FLAGS: Mapping[str, int] = MappingProxyType({name: 1 << bit for bit, name in enumerate(REASONS)})
"""The bit of each reason in `napari_her2.slide.quality.Quality.reasons`."""


@dataclass(frozen=True, slots=True)
class QualityLimits:
    """From where on a tile is poor.

    Parameters
    ----------
    most_blur_um : float
        Standard deviation of the blur, µm; a tile with more is out of focus.
    most_pen, most_fold, most_bubble : float
        Share of a tile; one with more is left out.
    least_stained : float
        Share of a tile that has to hold stain or texture; one with less is blank.
    fold_times : float
        How many times as dense as the tissue around it a fold is: two layers take twice the light.

    Raises
    ------
    JobFailed
        If a limit makes no sense.
    """

    most_blur_um: float = 1.2
    most_pen: float = 0.05
    most_fold: float = 0.1
    most_bubble: float = 0.2
    least_stained: float = 0.1
    fold_times: float = 1.5

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise JobFailed(
                    f"The limit {name} of quality is a number from {low:g} to {high:g}, not "
                    f"{shown(str(value), 40)}."
                )
            object.__setattr__(self, name, float(value))

    def values(self) -> dict[str, float]:
        """Return the limits by name, for files."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "most_blur_um": (0.3, 4.0),
        "most_pen": (0.0, 1.0),
        "most_fold": (0.0, 1.0),
        "most_bubble": (0.0, 1.0),
        "least_stained": (0.0, 1.0),
        "fold_times": (1.2, 4.0),
    }
)
"""Lowest and highest value of each limit. A share of 1 turns its reason off, as does 0 for stain."""
QUALITY_LIMITS = QualityLimits()
_MOST_BYTES = 64 * 1024
_READING = Reading(limit=_MOST_BYTES, advice="give limits by name, such as most_blur_um = 1.5")


def limits_of(values: Mapping[str, Any]) -> QualityLimits:
    """Make limits of values by name; those that are missing stay as they are by default.

    Parameters
    ----------
    values : mapping of str to float

    Returns
    -------
    QualityLimits

    Raises
    ------
    JobFailed
        If a name is unknown or a value makes no sense.
    """
    unknown = sorted(set(values) - set(RANGES))
    if unknown:
        raise JobFailed(
            f"There is no limit {shown(str(unknown[0]), 40)!r} of quality: there are {', '.join(RANGES)}."
        )
    return QualityLimits(**values)


def read_limits(path: Path) -> QualityLimits:
    """Read limits from a TOML file, as ``napari-her2 score --quality-limits`` takes it.

    Parameters
    ----------
    path : Path

    Returns
    -------
    QualityLimits

    Raises
    ------
    JobFailed
        If it cannot be read, or holds anything but limits.
    """
    return limits_of(_READING.toml(path))
