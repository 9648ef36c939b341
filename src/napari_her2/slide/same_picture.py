"""Whether one image shows what a finer one shows: asked where a header does not call it a level.

Some places are compared, those with the most to see: a label, a macro or another section of the same shape
differs there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.errors import SlideError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.slide.sources import TileSource

_PLACES, _LOOKED_AT = 6, 6
"""Places that are compared, and rows and columns of places among which they are chosen."""
_PX, _LEAST_PX = 48, 8
_FINER_PX = 1024
"""Side of a place in the coarser image and at most in the finer one, pixels."""
_LEAST_CORRELATION, _MOST_DIFFERENT = 0.7, 20.0
_PLAIN = 2.0
"""Standard deviation of grey values up to which there is nothing to see."""


def shows_the_same(finer: TileSource, coarser: TileSource) -> bool:
    """Compare an image with a finer one.

    Parameters
    ----------
    finer, coarser : TileSource
        The coarser one is smaller, and of the same aspect.

    Returns
    -------
    bool
        False where nothing could be compared, too: damaged, or too small.
    """
    factor = min(fine / coarse for fine, coarse in zip(finer.shape, coarser.shape, strict=True))
    side = min(_PX, int(_FINER_PX / factor), *coarser.shape)
    if side < _LEAST_PX:
        return False
    pairs = [pair for corner in _corners(coarser, side) if (pair := _pair(finer, coarser, corner, side))]
    if not pairs:
        return False
    first, second = (np.concatenate([pair[number] for pair in pairs]) for number in (0, 1))
    if float(np.abs(first - second).mean()) > _MOST_DIFFERENT:
        return False
    if max(first.std(), second.std()) <= _PLAIN:
        return True
    grey = [values.mean(axis=1) for values in (first, second)]
    if min(values.std() for values in grey) == 0:
        return False
    return float(np.corrcoef(*grey)[0, 1]) >= _LEAST_CORRELATION


def _corners(image: TileSource, side: int) -> list[tuple[int, int]]:
    """Return the places of an image with the most to see."""
    rows, columns = (
        np.unique(np.linspace(0, length - side, _LOOKED_AT).astype(int)).tolist() for length in image.shape
    )
    seen = []
    for y in rows:
        for x in columns:
            pixels = _read(image, y, x, side, side)
            if pixels is not None:
                seen.append((-float(pixels.std()), y, x))
    return [(y, x) for _, y, x in sorted(seen)[:_PLACES]]


def _pair(
    finer: TileSource, coarser: TileSource, corner: tuple[int, int], side: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Read a place in both images, smoothed: levels are made with many filters."""
    scale = [fine / coarse for fine, coarse in zip(finer.shape, coarser.shape, strict=True)]
    y, x, height, width = (
        round(value * factor) for value, factor in zip((*corner, side, side), scale * 2, strict=True)
    )
    small, large = _read(coarser, *corner, side, side), _read(finer, y, x, height, width)
    if small is None or large is None:
        return None
    shrunk = cv2.resize(large, (side, side), interpolation=cv2.INTER_AREA)
    first, second = (cv2.blur(image.astype(np.float32), (3, 3)).reshape(-1, 3) for image in (shrunk, small))
    return first, second


def _read(image: TileSource, y: int, x: int, height: int, width: int) -> NDArray[np.uint8] | None:
    try:
        return image.read(y, x, height, width)
    except SlideError:
        return None
