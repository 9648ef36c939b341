"""Where other programs count the pixels of a slide from: what was scanned, or the centre of the glass."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_FARTHEST = 1e9


@dataclass(frozen=True, slots=True)
class SlideFrame:
    """Where other programs count from.

    Parameters
    ----------
    bounds_px0 : tuple of float
        (y, x) level-0 pixels of the corner of what was scanned. OpenSlide states it of MRXS and some others;
        QuPath shows no more than that, and counts from there. (0, 0) where nothing is stated.
    centre_offset_nm : tuple of float or None
        (y, x) nanometres of the centre of the image from the centre of the glass, which Hamamatsu counts
        from; None where it is not stated.
    """

    bounds_px0: tuple[float, float] = (0.0, 0.0)
    centre_offset_nm: tuple[float, float] | None = None


def frame_of(properties: Mapping[str, object]) -> SlideFrame:
    """Return what the properties of a slide state, as OpenSlide and tiffslide name them.

    Parameters
    ----------
    properties : mapping of str to str or number
    """
    bounds = [_number(properties.get(f"openslide.bounds-{axis}")) for axis in "yx"]
    offset = [_number(properties.get(f"hamamatsu.{axis}OffsetFromSlideCentre")) for axis in "YX"]
    y, x = bounds
    if y is None or x is None or min(y, x) < 0:
        y, x = 0.0, 0.0
    off_y, off_x = offset
    return SlideFrame((y, x), None if off_y is None or off_x is None else (off_y, off_x))


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if isfinite(number) and abs(number) < _FARTHEST else None
