"""The map of quality: which tiles are poor, each with its first reason, and the same in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.maps import TileMap
from napari_her2.explain.overlays import OverlayInfo
from napari_her2.slide.quality_limits import FLAGS, OUTSIDE, REASONS

if TYPE_CHECKING:
    from napari_her2.slide.quality import Quality

QUALITY = OverlayInfo(
    "quality",
    title="Quality",
    layer_name="quality",
    meaning=(
        "Tiles that are poor, each with its first reason: out of focus, pen, fold, bubble, blank or out of "
        "tissue. What is clear showed nothing wrong; not everything that is wrong is found."
    ),
    unit="reason",
    colours="classes",
    categories=tuple(REASONS.values()),
    # After Okabe and Ito, whose colours are told apart without red or green cones.
    palette=("#0072b2", "#009e73", "#e69f00", "#f0e442", "#7f7f7f", "#56b4e9"),
    limits=(-0.5, len(REASONS) - 0.5),
    order=85,
    depth=25,
)


def quality_map(quality: Quality) -> TileMap:
    """Map the first reason of each poor tile; NaN, and so clear, where there is none.

    Parameters
    ----------
    quality : Quality

    Returns
    -------
    TileMap
    """
    first = quality.first
    return TileMap(QUALITY, np.where(first < 0, np.nan, first).astype(np.float32), quality.grid)


def reasons_in_words(flags: int) -> str:
    """Name all reasons of a tile: "out of focus, fold"; empty for none."""
    return ", ".join(title for name, title in REASONS.items() if flags & FLAGS[name])


def tile_in_words(quality: Quality, row: int, col: int) -> str:
    """Say what is wrong with a tile: "left out: out of focus"; empty where nothing is.

    Parameters
    ----------
    quality : Quality
    row, col : int
        On its grid; may lie outside.
    """
    rows, cols = quality.grid.shape
    if not (0 <= row < rows and 0 <= col < cols):
        return ""
    flags = int(quality.reasons[row, col])
    left_out = quality.left_out or bool(flags & FLAGS[OUTSIDE])
    words = reasons_in_words(flags)
    return f"{'left out' if left_out else 'poor'}: {words}" if words else ""


def share_in_words(quality: Quality) -> str:
    """Say how much is poor, in a line: "12 % of the tissue left out: 8 % out of focus, 4 % pen".

    Parameters
    ----------
    quality : Quality

    Returns
    -------
    str
    """
    done = "left out" if quality.left_out else "poor, and not left out"
    each = ", ".join(f"{_percent(share)} {REASONS[name]}" for name, share in quality.shares.items())
    words = f"{_percent(quality.share)} of the tissue {done}" + (f": {each}" if each else "")
    if not quality.unjudged:
        return words
    unjudged = ", ".join(REASONS[name] for name in quality.unjudged)
    return f"{words} (not judged on this slide: {unjudged})"


def _percent(share: float) -> str:
    if 0 < share < 0.005:
        return "less than 1 %"
    return f"{100 * share:.0f} %"
