"""Pixels of a level at the µm/px asked for: the only code that resamples what a model is given.

Kernel, declared: pixels coarser than those of the level read are averages over their areas (box filter of
the exact, not rounded, scale); at the µm/px of the level they are its pixels, untouched; only a slide
coarser than asked for is enlarged, bilinearly. Scale and size are never rounded, only the corner is: it lies
at the nearest pixel of the level.

`resampled` (OpenCV) takes a whole window; `area_means` takes any part of one, and gives the same
pixels to within the rounding of single precision, however the window is cut. `anchored` counts pixels from
the corner of the level: its pixels are the same bit for bit in every window that holds them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAME_SCALE = 1e-3
_STRIP_ROWS = 32


def choose_level(
    slide_mpp: tuple[float, float], downsamples: tuple[tuple[float, float], ...], mpp: float
) -> tuple[int, tuple[float, float]]:
    """Coarsest level that is no coarser than the µm/px asked for.

    Parameters
    ----------
    slide_mpp : tuple of float
        (y, x) µm per level-0 pixel.
    downsamples : tuple of tuple of float
        Exact (y, x) downsample of each level.
    mpp : float
        µm per pixel wanted.

    Returns
    -------
    level : int
    scale : tuple of float
        (y, x) pixels of that level per pixel wanted; exactly 1 where they are the same.
    """
    limit = mpp * (1 + SAME_SCALE)
    fitting = [
        number
        for number, (ds_y, ds_x) in enumerate(downsamples)
        if slide_mpp[0] * ds_y <= limit and slide_mpp[1] * ds_x <= limit
    ]
    level = max(fitting, default=0, key=lambda number: downsamples[number])
    exact = mpp / (np.asarray(slide_mpp) * np.asarray(downsamples[level]))
    y, x = np.where(np.abs(exact - 1) <= SAME_SCALE, 1.0, exact).tolist()
    return level, (y, x)


def window_size(size: tuple[int, int], scale: tuple[float, float]) -> tuple[int, int]:
    """(height, width), pixels of the level, of the window that so many resampled pixels are made of."""
    height, width = (max(1, math.ceil(side * value - 1e-6)) for side, value in zip(size, scale, strict=True))
    return height, width


def padded_size(window: tuple[int, int], scale: tuple[float, float]) -> tuple[int, int]:
    """(height, width) of the array to hand to `resampled` for a window; what is behind the window is cut off.

    OpenCV copies instead of resampling where the rounded size of the result is that of the window,
    although the scale differs. A margin behind the window keeps the two sizes apart.
    """
    height, width = window
    change = [abs(1 - 1 / value) for value in scale]
    if max(change) == 0:
        return window
    need = math.ceil(0.75 / max(change))
    return (max(height, need), width) if change[0] >= change[1] else (height, max(width, need))


def resampled(
    window: NDArray[np.uint8], scale: tuple[float, float], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Bring a window of a level to the µm/px asked for.

    Parameters
    ----------
    window : (h, w) or (h, w, 3) uint8
        Of `padded_size`.
    scale : tuple of float
        (y, x) pixels of the level per pixel of the result.
    size : tuple of int
        (height, width) of the result.
    """
    if scale != (1.0, 1.0):
        kernel = cv2.INTER_AREA if min(scale) >= 1 else cv2.INTER_LINEAR
        # Without dsize OpenCV keeps the scale exact; what it makes may be a pixel larger than asked for.
        window = cv2.resize(window, None, fx=1 / scale[1], fy=1 / scale[0], interpolation=kernel)
    return window[: size[0], : size[1]]


def resampling_weights(length: int, scale: float, size: int) -> NDArray[np.float32]:
    """Give the weights by which `resampled` makes pixels of those of a window, along one axis.

    Parameters
    ----------
    length : int
        Pixels of the window.
    scale : float
        Pixels of the window per pixel of the result.
    size : int
        Pixels of the result.

    Returns
    -------
    (size, length) float32
        Rows add up to 1. For whoever computes elsewhere: a matrix product of each axis gives the pixels of
        `resampled` to within a level of 255.
    """
    weights = np.zeros((size, length), np.float32)
    pixel, weight = _taps(0, size, scale, 0)
    # What a window lacks at its edge is its last pixel; areas end there but for the rounding of their size.
    np.add.at(weights, (np.arange(size)[:, None], pixel.clip(0, length - 1)), weight)
    return weights


def area_means(
    pixels: NDArray[np.uint8],
    start: tuple[float, float],
    scale: tuple[float, float],
    size: tuple[int, int],
) -> NDArray[np.float64]:
    """Average over areas that begin anywhere, parts of pixels weighted.

    The sum over a rectangle is a difference of the integral image, which is linear within each pixel.

    Parameters
    ----------
    pixels : (h, w) or (h, w, 3) uint8
    start : tuple of float
        (y, x) corner of the first area.
    scale : tuple of float
        (y, x) side of an area.
    size : tuple of int
        (rows, columns) of areas; all lie within the pixels.

    Returns
    -------
    (rows, columns) or (rows, columns, 3) float64
    """
    # Half the time where 32 bits hold the sum of all pixels.
    small = pixels.shape[0] * pixels.shape[1] * 255 < 2**31
    sums = cv2.integral(pixels, sdepth=cv2.CV_32S if small else cv2.CV_64F)
    for axis in (0, 1):
        edges = start[axis] + np.arange(size[axis] + 1) * scale[axis]
        whole = np.clip(np.floor(edges).astype(np.int64), 0, pixels.shape[axis] - 1)
        part = (edges - whole).reshape([-1 if each == axis else 1 for each in range(sums.ndim)])
        low = sums.take(whole, axis)
        sums = low + part * (sums.take(whole + 1, axis) - low)
    means: NDArray[np.float64] = np.diff(np.diff(sums, axis=0), axis=1) / (scale[0] * scale[1])
    return means


def anchored_window(first: int, count: int, scale: float) -> tuple[int, int]:
    """Which pixels of a level so many anchored ones are made of, along one axis.

    Parameters
    ----------
    first, count : int
        Pixels of the result, counted from the corner of the level; may begin outside.
    scale : float
        Pixels of the level per pixel of the result.

    Returns
    -------
    start, length : int
        Pixels of the level. The length is the same for every ``first``.
    """
    return math.floor(first * scale) - 1, math.ceil(count * scale) + 4


def anchored(
    window: NDArray[np.uint8],
    first: tuple[int, int],
    scale: tuple[float, float],
    size: tuple[int, int],
) -> NDArray[np.uint8]:
    """Bring a window to the µm/px asked for on the one grid of the level, wherever the window begins.

    Parameters
    ----------
    window : (h, w, 3) uint8
        Begins and ends where `anchored_window` says.
    first : tuple of int
        (y, x) of the first pixel of the result, counted from the corner of the level.
    scale : tuple of float
        (y, x) pixels of the level per pixel of the result.
    size : tuple of int
        (height, width) of the result.

    Returns
    -------
    (height, width, 3) uint8
    """
    starts = [anchored_window(at, 1, value)[0] for at, value in zip(first, scale, strict=True)]
    if all(value == round(value) for value in scale):
        whole = round(scale[0]), round(scale[1])
        (y, height), (x, width) = (
            (first[axis] * whole[axis] - starts[axis], size[axis] * whole[axis]) for axis in (0, 1)
        )
        part = window[y : y + height, x : x + width]
        if whole == (1, 1):
            return part
        return np.asarray(cv2.resize(part, (size[1], size[0]), interpolation=cv2.INTER_AREA), np.uint8)
    taps = [_taps(first[axis], size[axis], scale[axis], starts[axis]) for axis in (0, 1)]
    out = np.empty((*size, window.shape[2]), np.uint8)
    # In strips that stay in the processor's cache; rows first, then columns of the transposed strip.
    for top in range(0, size[0], _STRIP_ROWS):
        rows = slice(top, min(top + _STRIP_ROWS, size[0]))
        strip = _weighted(window, taps[0][0][rows], taps[0][1][rows])
        turned = _weighted(cv2.transpose(strip), *taps[1])
        np.rint(turned, out=turned)
        out[rows] = cv2.transpose(turned)
    return out


def _taps(first: int, count: int, scale: float, start: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pixels of the window, and their weights, that each pixel of the result is the sum of, (count, n).

    Weights follow from the place on the level alone, so that they are the same in every window.
    """
    at = np.arange(first, first + count)
    if scale < 1:
        middle = (at + 0.5) * scale - 0.5
        low = np.floor(middle).astype(np.int64)
        part = (middle - low).astype(np.float32)
        return np.stack([low, low + 1], axis=1) - start, np.stack([1 - part, part], axis=1)
    begin, end = (at * scale)[:, None], ((at + 1) * scale)[:, None]
    pixel = np.floor(begin).astype(np.int64) + np.arange(math.ceil(scale) + 1)
    share = np.minimum(end, pixel + 1) - np.maximum(begin, pixel)
    return pixel - start, (np.clip(share, 0, 1) / scale).astype(np.float32)


def _weighted(
    rows: NDArray[np.uint8] | NDArray[np.float32], pixel: NDArray[np.int64], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Sum of rows, each with its weight, (n, w, 3) float32."""
    total = rows[pixel[:, 0]] * weight[:, 0, None, None]
    for tap in range(1, pixel.shape[1]):
        total += rows[pixel[:, tap]] * weight[:, tap, None, None]
    return np.asarray(total, np.float32)
