"""Colours of overlays as tables: clear where there is nothing to say, so that the tissue stays visible.

All are read without red or green cones: what counts is told by lightness, or by blue against orange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.class_colours import rgb_of, score_colours
from napari_her2.explain.maps import limits_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_her2.explain.maps import TileMap
    from napari_her2.explain.overlays import OverlayInfo

_STEPS = 256
# Below this share of the scale the attention map is wholly clear: tissue that the model passed over.
_CLEAR_BELOW = 0.35

# Stops chosen against H&E: tissue is pink and violet, so that a map in red or purple would drown in it.
_ATTENTION_STOPS = ("#1b3a8f", "#0086b3", "#00b894", "#9be15d", "#fff700")
_CONFIDENCE_STOPS = ("#1a1a2e", "#26547c", "#3fa796", "#e8f5c8")
# Against IHC: tissue is brown and pale blue; green and blue-green are neither.
_SHARE_STOPS = ("#c8f5d0", "#5fd39b", "#12a08a", "#04636f", "#06304f")
_SEEN_FROM = 0.1
_AGAINST, _FOR = "#1565c0", "#ef6c00"


def attention_colours() -> NDArray[np.float32]:
    """Colours from clear through blue and green to yellow.

    Returns
    -------
    (256, 4) float32
        RGBA in [0, 1].
    """
    at = np.linspace(0, 1, _STEPS)
    stops = np.array([rgb_of(colour) for colour in _ATTENTION_STOPS])
    places = np.linspace(0, 1, len(stops))
    alpha = np.clip((at - _CLEAR_BELOW) / (1 - _CLEAR_BELOW), 0, 1) ** 0.7
    rgb = [np.interp(at, places, stops[:, channel]) for channel in range(3)]
    return np.column_stack([*rgb, alpha]).astype(np.float32)


def evidence_colours() -> NDArray[np.float32]:
    """Colours from blue (against the class) through clear (no evidence) to orange (for the class).

    Returns
    -------
    (257, 4) float32
        RGBA in [0, 1]; the middle entry is wholly clear.
    """
    at = np.linspace(-1, 1, _STEPS + 1)
    rgb = np.where(at[:, None] < 0, rgb_of(_AGAINST), rgb_of(_FOR))
    alpha = np.abs(at) ** 0.6
    return np.column_stack([rgb, alpha]).astype(np.float32)


def confidence_colours() -> NDArray[np.float32]:
    """Colours of the learnt confidence, dark where there is little: (4, 4) float32 RGBA, opaque."""
    return np.array([[*rgb_of(colour), 1.0] for colour in _CONFIDENCE_STOPS], np.float32)


def share_colours() -> NDArray[np.float32]:
    """Colours of a share: clear at nothing, and seen from a few per cent on, (256, 4) float32 RGBA."""
    at = np.linspace(0, 1, _STEPS)
    stops = np.array([rgb_of(colour) for colour in _SHARE_STOPS])
    rgb = [np.interp(at, np.linspace(0, 1, len(stops)), stops[:, channel]) for channel in range(3)]
    return np.column_stack([*rgb, np.clip(at / _SEEN_FROM, 0, 1) ** 0.5]).astype(np.float32)


COLOURS: dict[str, tuple[str, Callable[[], NDArray[np.float32]]]] = {
    "sequential": ("attention", attention_colours),
    "diverging": ("evidence", evidence_colours),
    "confidence": ("confidence", confidence_colours),
    "share": ("share", share_colours),
}
"""Name and table of each choice of `OverlayInfo.colours` that is a scale, RGBA in [0, 1], low to high."""


def colour_table(info: OverlayInfo) -> NDArray[np.float32]:
    """Colours of an overlay, from its lower limit to its upper one.

    Parameters
    ----------
    info : OverlayInfo

    Returns
    -------
    (N, 4) float32
        RGBA in [0, 1]; of categories one colour each, of what is so or is not clear and the colour.
    """
    if info.colours.startswith("#"):
        rgb = rgb_of(info.colours)
        return np.array([[*rgb, 0.0], [*rgb, 1.0]], np.float32)
    if info.palette:
        return np.array([[*rgb_of(colour), 1.0] for colour in info.palette], np.float32)
    if info.categories:
        return score_colours(len(info.categories))
    return COLOURS[info.colours][1]()


def coloured(tile_map: TileMap) -> NDArray[np.uint8]:
    """Colour a map as its layer shows it.

    Parameters
    ----------
    tile_map : TileMap

    Returns
    -------
    (rows, columns, 4) uint8
        RGBA; clear where there is no value.
    """
    info, values = tile_map.info, tile_map.values
    table = colour_table(info)
    low, high = limits_of(values, info.limits) if info.is_map else (0.0, 1.0)
    known = np.isfinite(values)
    at = np.clip((np.where(known, values, low) - low) / (high - low), 0, 1)
    if info.categories:
        rgba = table[np.minimum((at * len(table)).astype(np.int64), len(table) - 1)]
    else:
        places = np.linspace(0, 1, len(table))
        rgba = np.stack([np.interp(at, places, table[:, part]) for part in range(4)], axis=-1)
    rgba = np.where(known[..., None], rgba, 0)
    return np.asarray(np.rint(255 * rgba), np.uint8)
