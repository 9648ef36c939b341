"""Which cells lie where: the cell under a point, and the cells in a view, among millions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2.cells.table import SECTORS, of_each, ray_directions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.cells.table import Cells

BUCKET_UM = 32.0


def reaches_um(cells: Cells) -> NDArray[np.float16]:
    """From the centre of each cell to the farthest point of its border, (N,) float16, µm."""
    found: NDArray[np.float16] = of_each(cells, "reach", lambda cells: cells.border_um.max(axis=1))
    return found


class CellIndex:
    """Cells sorted into squares of `BUCKET_UM`: a view costs what it holds, not what the slide has.

    Parameters
    ----------
    cells : Cells
        12 bytes are kept of each.

    Attributes
    ----------
    reach_um : float
        From a centre to the farthest point of any border: what else may reach into a view.
    """

    def __init__(self, cells: Cells) -> None:
        from scipy.sparse import csr_matrix  # half a second, which a dock that opens need not wait

        self._cells = cells
        count, centre = len(cells), cells.centre_um
        self.reach_um = float(reaches_um(cells).max()) if count else 0.0
        self._origin = centre.min(axis=0) if count else np.zeros(2, np.float32)
        squares = ((centre - self._origin) * np.float32(1 / BUCKET_UM)).astype(np.int32)
        rows, cols = (int(most) + 1 for most in squares.max(axis=0)) if count else (1, 1)
        self._shape = rows, cols
        # Rows of a sparse matrix are made by counting, which is faster than sorting.
        numbers = np.arange(count, dtype=np.int32)
        square = squares[:, 0] * cols + squares[:, 1]
        sorted_in = csr_matrix((np.ones(count, bool), (square, numbers)), shape=(rows * cols, count))
        self._numbers: NDArray[np.int32] = sorted_in.indices
        self._starts: NDArray[np.int32] = sorted_in.indptr
        self._centres = centre[self._numbers]

    def in_view(self, y0: float, x0: float, y1: float, x1: float) -> NDArray[np.int32]:
        """Find the cells whose centre lies in a box, half-open, µm on the slide.

        Returns
        -------
        (n,) int32
            Their numbers, in no particular order.
        """
        return self.found(y0, x0, y1, x1)[0]

    def found(
        self, y0: float, x0: float, y1: float, x1: float
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Find cells as `in_view` does, and their centres, (n, 2) float32, which lie at hand here."""
        low = np.floor((np.array([y0, x0]) - self._origin) / BUCKET_UM).astype(np.int64)
        high = np.floor((np.array([y1, x1]) - self._origin) / BUCKET_UM).astype(np.int64) + 1
        # Rounding may put a centre next to the edge of its square into the neighbour: one more each way.
        row0, col0 = (int(of) for of in np.maximum(low - 1, 0))
        row1, col1 = (int(of) for of in np.minimum(high + 1, self._shape))
        if row0 >= row1 or col0 >= col1:
            return np.zeros(0, np.int32), np.zeros((0, 2), np.float32)
        first = np.arange(row0, row1) * self._shape[1]
        spans = zip(self._starts[first + col0], self._starts[first + col1], strict=True)
        parts = [slice(a, b) for a, b in spans if a < b] or [slice(0, 0)]
        numbers = np.concatenate([self._numbers[part] for part in parts])
        centres = np.concatenate([self._centres[part] for part in parts])
        y, x = centres[:, 0], centres[:, 1]
        inside = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
        return numbers[inside], centres[inside]

    def at(self, y_um: float, x_um: float) -> int:
        """Find the cell whose border encloses a point; the nearest centre where several do.

        Parameters
        ----------
        y_um, x_um : float
            From the upper left corner of the slide.

        Returns
        -------
        int
            Number of the cell, -1 where there is none.
        """
        reach = self.reach_um + 0.01
        numbers, centres = self.found(y_um - reach, x_um - reach, y_um + reach, x_um + reach)
        if not len(numbers):
            return -1
        away = np.array([y_um, x_um]) - centres
        ray = np.floor(np.arctan2(away[:, 0], away[:, 1]) / (2 * np.pi / SECTORS)).astype(np.int64) % SECTORS
        following = (ray + 1) % SECTORS
        border, directions = self._cells.part(numbers).border_um, ray_directions().astype(np.float64)
        each = np.arange(len(numbers))
        one = border[each, ray].astype(np.float64)[:, None] * directions[ray]
        other = border[each, following].astype(np.float64)[:, None] * directions[following]
        side, to = other - one, away - one
        # The centre lies to the same side of the piece of border as what is inside.
        inside = side[:, 1] * to[:, 0] - side[:, 0] * to[:, 1] >= 0
        distance = np.where(inside, np.hypot(away[:, 0], away[:, 1]), np.inf)
        nearest = int(np.argmin(distance))
        return int(numbers[nearest]) if inside[nearest] else -1
