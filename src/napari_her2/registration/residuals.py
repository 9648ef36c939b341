"""How far two slides still lie apart, place by place: what an alignment is judged by.

A block of the fixed slide is looked for around the place where the alignment puts it on the other one, by
normalised cross-correlation of the fine structure. Where the tissue is the same most blocks are found near
that place. Where it is not they are found anywhere: the share that is near then is what chance gives,
the square of near over reach, about a tenth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_TISSUE, LEAST_COVER = 0.3, 0.9
"""Of a block that has to be tissue, and that the other slide has to cover."""
LEAST_FOUND = 0.2
"""Correlation below which a block was not found: where it lies is not known then."""


@dataclass(frozen=True, slots=True)
class BlockSize:
    """Blocks that are looked for, in pixels of the pictures.

    Parameters
    ----------
    side, reach : int
        Of a block, and how far around its place it is looked for.
    fine, coarse : float
        Blur between which the structure lies that is compared.
    """

    side: int
    reach: int
    fine: float
    coarse: float

    @property
    def step(self) -> int:
        """From a block to the next: half of each is shared."""
        return self.side // 2


JUDGED = BlockSize(side=192, reach=48, fine=6.0, coarse=32.0)
"""Large enough to be unlike all others: whether the tissue is the same."""
MEASURED = BlockSize(side=128, reach=32, fine=4.0, coarse=24.0)
"""Small enough to follow how a section is pulled: how far off it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """Where the blocks of a grid were found.

    Parameters
    ----------
    shift_px : (rows, columns, 2) float32
        (y, x) from where the alignment puts them; NaN where there is no tissue.
    correlation : (rows, columns) float32
        With what was found; NaN where there is no tissue.
    size : BlockSize
    """

    shift_px: NDArray[np.float32]
    correlation: NDArray[np.float32]
    size: BlockSize

    @property
    def distance_px(self) -> NDArray[np.float32]:
        """(rows, columns) float32, NaN where there is no tissue or the block was not found."""
        distance = np.hypot(self.shift_px[..., 0], self.shift_px[..., 1])
        return np.where(self.correlation >= LEAST_FOUND, distance, np.nan).astype(np.float32)

    @property
    def count(self) -> int:
        """How many blocks hold tissue of both slides."""
        return int(np.isfinite(self.correlation).sum())

    @property
    def near(self) -> int:
        """How many of them lie within a quarter of the reach of where they should."""
        distance = np.hypot(self.shift_px[..., 0], self.shift_px[..., 1])
        return int((distance <= self.size.reach / 4).sum())


def residuals_of(
    fixed: NDArray[np.float32],
    moved: NDArray[np.float32],
    tissue: NDArray[np.bool_],
    cover: NDArray[np.bool_],
    size: BlockSize,
) -> Residuals:
    """Look for the blocks of a picture on another one that was laid on it.

    Parameters
    ----------
    fixed, moved : (h, w) float32
    tissue, cover : (h, w) bool
        Tissue of the fixed picture, and where the moved one has pixels.
    size : BlockSize

    Returns
    -------
    Residuals
        Blocks begin at the upper left corner, `BlockSize.step` apart.
    """
    # What is finer than `fine` is not compared: every fourth of that in pixels is enough.
    shrink = max(1, int(size.fine / 2))
    side, reach, step = size.side // shrink, size.reach // shrink, size.step // shrink
    first, second = (_structure(picture, size, shrink) for picture in (fixed, moved))
    held, covered = (_means(mask, shrink) for mask in (tissue, cover))
    padded = cv2.copyMakeBorder(second, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=0.0)
    rows, cols = (max(0, (extent - side) // step + 1) for extent in first.shape)
    shift = np.full((rows, cols, 2), np.nan, np.float32)
    correlation = np.full((rows, cols), np.nan, np.float32)
    for row in range(rows):
        for col in range(cols):
            y, x = row * step, col * step
            own = slice(y, y + side), slice(x, x + side)
            if held[own].mean() < LEAST_TISSUE or covered[own].mean() < LEAST_COVER:
                continue
            around = padded[y : y + side + 2 * reach, x : x + side + 2 * reach]
            at, correlation[row, col] = _found(first[own], around)
            shift[row, col] = shrink * (at - reach)
    return Residuals(shift, correlation, size)


def _structure(picture: NDArray[np.float32], size: BlockSize, shrink: int) -> NDArray[np.float32]:
    band = cv2.GaussianBlur(picture, (0, 0), size.fine) - cv2.GaussianBlur(picture, (0, 0), size.coarse)
    return _means(band, shrink)


def _means(picture: NDArray[np.float32] | NDArray[np.bool_], shrink: int) -> NDArray[np.float32]:
    height, width = (max(1, side // shrink) for side in picture.shape)
    whole = np.ascontiguousarray(picture[: height * shrink, : width * shrink], np.float32)
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _found(block: NDArray[np.float32], around: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Where a block is found in its surroundings, to a part of a pixel, and with which correlation."""
    table = cv2.matchTemplate(around, np.ascontiguousarray(block), cv2.TM_CCOEFF_NORMED)
    table = np.nan_to_num(np.asarray(table, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    at = np.array(np.unravel_index(int(table.argmax()), table.shape))
    best = float(table[tuple(at)])
    place = at.astype(np.float64)
    for axis in (0, 1):
        if 0 < at[axis] < table.shape[axis] - 1:
            step = np.eye(2, dtype=int)[axis]
            before, after = float(table[tuple(at - step)]), float(table[tuple(at + step)])
            bend = before - 2 * best + after
            # The top of the parabola through the three.
            place[axis] += 0.5 * (before - after) / bend if bend < 0 else 0.0
    return place, best
