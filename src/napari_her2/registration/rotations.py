"""Where a picture may lie on another one, whichever way round: all rotations, mirrored and not.

For each rotation the normalised cross-correlation of all shifts at once, by the Fourier transform, over
what overlaps (Padfield 2012, doi:10.1109/TIP.2011.2181402, without masks inside the pictures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

SEARCH_PX = 96
"""Longest side of the pictures that are compared."""
STEP_DEGREES = 10
LEAST_OVERLAP = 0.4
"""Of the smaller picture that has to lie on the other one."""
_TINY = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Placing:
    """One way in which a picture may lie on another.

    Parameters
    ----------
    correlation : float
        Of the two where they overlap, -1 to 1.
    matrix : (3, 3) float64
        From pixels (y, x, 1) of the moving picture to those of the fixed one, centres at whole numbers.
    """

    correlation: float
    matrix: NDArray[np.float64]


def placing_steps(
    fixed: NDArray[np.float32], moving: NDArray[np.float32]
) -> Generator[tuple[int, int], None, list[Placing]]:
    """Try all rotations, mirrored and not.

    Parameters
    ----------
    fixed, moving : (h, w) float32
        Of one µm/px.

    Yields
    ------
    tuple of int
        Rotations tried, and their number. Closing the generator cancels.

    Returns
    -------
    list of Placing
        The best shift of each rotation, the best one first.
    """
    scale = min(1.0, SEARCH_PX / max(*fixed.shape, *moving.shape))
    small_fixed, small_moving = _shrunk(fixed, scale), _shrunk(moving, scale)
    side = int(np.ceil(np.hypot(*small_moving.shape))) + 2
    search = _ShiftSearch(small_fixed, side)
    angles = range(0, 360, STEP_DEGREES)
    found = []
    for mirrored in (False, True):
        for done, degrees in enumerate(angles, 1 + mirrored * len(angles)):
            turn = _turned(small_moving.shape, side, degrees, mirrored=mirrored)
            correlation, shift = search.best(
                _warped(small_moving, turn, side), _cover(small_moving, turn, side)
            )
            place = np.eye(3)
            place[:2, 2] = shift
            whole = np.linalg.inv(_shrinking(fixed.shape, small_fixed.shape)) @ place @ turn
            found.append(Placing(correlation, whole @ _shrinking(moving.shape, small_moving.shape)))
            yield done, 2 * len(angles)
    return sorted(found, key=lambda placing: -placing.correlation)


class _ShiftSearch:
    """Correlation of a fixed picture with others of one size, at all shifts."""

    def __init__(self, fixed: NDArray[np.float32], side: int) -> None:
        self._shape = fixed.shape
        self._side = side
        self._size = tuple(_fast(own + side) for own in fixed.shape)
        values = fixed.astype(np.float64)
        self._values, self._squares, self._ones = (
            self._transformed(of) for of in (values, values**2, np.ones_like(values))
        )

    def best(
        self, moving: NDArray[np.float64], cover: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64]]:
        """Return the highest correlation, and the shift (y, x) of the moving picture that has it."""
        values, squares, ones = (np.conj(self._transformed(of)) for of in (moving, moving**2, cover))
        count = np.maximum(self._back(self._ones * ones), 1.0)
        sum_fixed, sum_moving = self._back(self._values * ones), self._back(self._ones * values)
        var_fixed = self._back(self._squares * ones) - sum_fixed**2 / count
        var_moving = self._back(self._ones * squares) - sum_moving**2 / count
        product = self._back(self._values * values) - sum_fixed * sum_moving / count
        correlation = product / np.sqrt(np.maximum(var_fixed, _TINY) * np.maximum(var_moving, _TINY))
        least = LEAST_OVERLAP * min(cover.sum(), np.prod(self._shape))
        correlation = np.where((count >= least) & (var_fixed > _TINY) & (var_moving > _TINY), correlation, -1)
        at = np.unravel_index(int(correlation.argmax()), correlation.shape)
        shift = [
            int(i) - (size if i >= own else 0)
            for i, size, own in zip(at, self._size, self._shape, strict=True)
        ]
        return float(correlation[at]), np.array(shift, np.float64)

    def _transformed(self, picture: NDArray[np.float64]) -> NDArray[np.complex128]:
        from scipy.fft import rfft2

        return np.asarray(rfft2(picture, self._size), np.complex128)

    def _back(self, spectrum: NDArray[np.complex128]) -> NDArray[np.float64]:
        from scipy.fft import irfft2

        return np.asarray(irfft2(spectrum, self._size), np.float64)


def _fast(length: int) -> int:
    from scipy.fft import next_fast_len

    return int(next_fast_len(length, real=True))


def _shrunk(picture: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    height, width = (max(1, round(side * scale)) for side in picture.shape)
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _shrinking(shape: tuple[int, ...], small: tuple[int, ...]) -> NDArray[np.float64]:
    """From pixels of a picture to those of a smaller one, (3, 3)."""
    matrix = np.diag([small[0] / shape[0], small[1] / shape[1], 1.0])
    matrix[:2, 2] = 0.5 * np.diag(matrix)[:2] - 0.5
    return matrix


def _turned(shape: tuple[int, ...], side: int, degrees: float, *, mirrored: bool) -> NDArray[np.float64]:
    """From pixels of a picture to those of a square that it is turned in, about the middle of both."""
    angle = np.deg2rad(degrees)
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    if mirrored:
        turn[:2, 1] *= -1
    middle = (np.asarray(shape, np.float64) - 1) / 2
    turn[:2, 2] = (side - 1) / 2 - turn[:2, :2] @ middle
    return turn


def _warped(picture: NDArray[np.float32], matrix: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    # OpenCV counts (x, y).
    flipped = matrix[[1, 0]][:, [1, 0, 2]]
    return np.asarray(cv2.warpAffine(picture, flipped, (side, side)), np.float64)


def _cover(picture: NDArray[np.float32], matrix: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    return (_warped(np.ones_like(picture), matrix, side) > 0.5).astype(np.float64)
