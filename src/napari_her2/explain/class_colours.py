"""Colours of scores, and of the classes of cells: one choice for maps, cells, legends and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Told apart by hue and by lightness, also without red or green cones: dark blue, light blue, yellow, orange.
_SCORE_STOPS = ("#1f2f86", "#35a7d6", "#ffe45c", "#e65100")


def rgb_of(colour: str) -> NDArray[np.float64]:
    """Return "#rrggbb" as (3,) float64 in [0, 1]."""
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def score_colours(classes: int) -> NDArray[np.float32]:
    """One colour a class, in the order of the classes.

    Parameters
    ----------
    classes : int

    Returns
    -------
    (classes, 4) float32
        RGBA in [0, 1], opaque.
    """
    stops = np.array([rgb_of(colour) for colour in _SCORE_STOPS])
    at, places = np.linspace(0, 1, classes), np.linspace(0, 1, len(stops))
    rgb = [np.interp(at, places, stops[:, channel]) for channel in range(3)]
    return np.column_stack([*rgb, np.ones(classes)]).astype(np.float32)
