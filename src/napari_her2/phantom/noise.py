"""Smooth random fields in µm, evaluated on any raster.

A field is a cubic B-spline over a lattice of hashed values. As basis matrices are separable, a
block costs two small matrix products, and the same field can be sampled at any µm/px.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2.phantom.counter import uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Standard deviation of a product of two B-spline interpolations of uniform numbers.
_SPREAD = (151.0 / 315.0) * 12.0**-0.5


def _basis(positions: NDArray[np.float64]) -> tuple[int, NDArray[np.float32]]:
    """First lattice node, and the (n, nodes) matrix of cubic B-spline weights."""
    cell = np.floor(positions).astype(np.int64)
    t = positions - cell
    first = int(cell.min()) - 1
    matrix = np.zeros((positions.size, int(cell.max()) + 3 - first), dtype=np.float32)
    rows = np.arange(positions.size)
    column = cell - 1 - first
    matrix[rows, column] = (1 - t) ** 3 / 6
    matrix[rows, column + 1] = (3 * t**3 - 6 * t**2 + 4) / 6
    matrix[rows, column + 2] = (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6
    matrix[rows, column + 3] = t**3 / 6
    return first, matrix


def field(
    seed: int, stream: str, y_um: NDArray[np.float64], x_um: NDArray[np.float64], scale_um: float
) -> NDArray[np.float32]:
    """Evaluate a smooth random field of zero mean and unit variance.

    Parameters
    ----------
    seed, stream : int, str
        Which field.
    y_um, x_um : (h,), (w,) float64
        Positions of the raster's rows and columns in µm.
    scale_um : float
        Lattice spacing; features are about twice as large.

    Returns
    -------
    (h, w) float32
    """
    row0, rows = _basis(y_um / scale_um)
    column0, columns = _basis(x_um / scale_um)
    j, i = np.meshgrid(
        np.arange(row0, row0 + rows.shape[1]),
        np.arange(column0, column0 + columns.shape[1]),
        indexing="ij",
    )
    lattice = ((uniform(seed, stream, j, i) - 0.5) / _SPREAD).astype(np.float32)
    return np.asarray((rows @ lattice) @ columns.T, dtype=np.float32)


def linear_basis(positions: NDArray[np.float64], count: int) -> NDArray[np.float32]:
    """Weights (n, count) of linear interpolation at fractional positions, clamped at the ends."""
    clipped = np.clip(positions, 0.0, count - 1.0)
    low = np.minimum(np.floor(clipped).astype(np.int64), max(count - 2, 0))
    t = (clipped - low).astype(np.float32)
    matrix = np.zeros((positions.size, count), dtype=np.float32)
    rows = np.arange(positions.size)
    matrix[rows, low] = 1 - t
    matrix[rows, np.minimum(low + 1, count - 1)] += t
    return matrix
