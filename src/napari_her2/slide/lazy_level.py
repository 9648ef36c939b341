"""A level of a pyramid as an array that is drawn, or copied, where it is indexed."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_her2.slide.indexing import window_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

RGBA = 4
_MOST_WHOLE_PIXELS = 1 << 26


class LevelSource(Protocol):
    """What gives the pixels of levels."""

    def picture(self, level: int, rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.uint8]:
        """Return a window of a level, (height, width, 4) uint8; ends are behind the last pixel."""

    def whole(self, level: int) -> NDArray[np.uint8]:
        """Return a whole level, (height, width, 4) uint8."""


class LazyLevel:
    """One level as an array, (height, width, 4) uint8.

    Indexed as a NumPy array is, by whole numbers, slices, an ellipsis, masks and arrays of positions; only
    the box around what is picked is asked for.

    Parameters
    ----------
    source : LevelSource
    level : int
    shape : tuple of int
        (height, width).
    chunk_px : int
        napari widens what it reads to multiples of it, and reads anew only beyond.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, source: LevelSource, level: int, shape: tuple[int, int], chunk_px: int) -> None:
        self.source = source
        self._level = level
        self.shape = (*shape, RGBA)
        self.chunks = (chunk_px, chunk_px, RGBA)

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:  # noqa: ANN401 - any index of NumPy's
        rows, cols, picked = window_of(key, self.shape)
        out: NDArray[np.uint8] = self.source.picture(self._level, rows, cols)[picked]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: ANN401 - NumPy's
        if self.shape[0] * self.shape[1] > _MOST_WHOLE_PIXELS:
            raise ValueError(f"a level of {self.shape[1]} x {self.shape[0]} px is too large to take whole")
        out = self.source.whole(self._level)
        return np.array(out, dtype) if copy or (dtype not in (None, out.dtype)) else out
