"""Smooth random fields in µm, evaluated on any raster.

A field is a cubic B-spline over a lattice of hashed values. The basis is separable and has four
weights a pixel and axis, so a block costs two products with sparse matrices. Dense products would
go to the BLAS library, whose own threads and those of the renderer get into each other's way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from napari_her2.phantom.counter import uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Standard deviation of a product of two B-spline interpolations of uniform numbers.
_SPREAD = (151.0 / 315.0) * 12.0**-0.5


def _banded(first: NDArray[np.int64], weights: NDArray[np.float64], count: int) -> csr_array:
    """Sparse (n, count) matrix with the weights (n, K) of each row from column first (n,) on."""
    rows, band = weights.shape
    indices = (first[:, None] + np.arange(band)).astype(np.int32)
    starts = np.arange(0, rows * band + 1, band, dtype=np.int32)
    return csr_array((weights.astype(np.float32).ravel(), indices.ravel(), starts), shape=(rows, count))


def _spline_weights(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (4, N) of four neighbouring nodes, for fractions (N,) of the way between the middle two."""
    return np.stack(
        (
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        )
    )


def _basis(positions: NDArray[np.float64]) -> tuple[int, csr_array]:
    """First lattice node, and the (n, nodes) matrix of cubic B-spline weights."""
    cell = np.floor(positions).astype(np.int64)
    t = positions - cell
    first = int(cell.min()) - 1
    weights = _spline_weights(t).T
    return first, _banded(cell - 1 - first, weights, int(cell.max()) + 3 - first)


def _product(rows: csr_array, values: NDArray[np.float32], columns: csr_array) -> NDArray[np.float32]:
    across = np.ascontiguousarray((columns @ np.ascontiguousarray(values.T)).T)
    return np.asarray(rows @ across, dtype=np.float32)


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
    return _product(rows, lattice, columns)


def field_at(
    seed: int, stream: str, y_um: NDArray[np.float64], x_um: NDArray[np.float64], scale_um: float
) -> NDArray[np.float64]:
    """Evaluate the same random field as `field` at single points (N,) in µm; returns (N,) float64."""
    rows, columns = _nodes(y_um / scale_um), _nodes(x_um / scale_um)
    value = np.zeros(len(y_um))
    for row, down in zip(*rows, strict=True):
        for column, across in zip(*columns, strict=True):
            value += down * across * (uniform(seed, stream, row, column) - 0.5)
    return value / _SPREAD


def _nodes(positions: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Four lattice nodes of each position, and their cubic B-spline weights, both (4, N)."""
    cell = np.floor(positions).astype(np.int64)
    return cell + np.arange(-1, 3)[:, None], _spline_weights(positions - cell)


def _linear_basis(positions: NDArray[np.float64], count: int) -> csr_array:
    clipped = np.clip(positions, 0.0, count - 1.0)
    low = np.clip(np.floor(clipped).astype(np.int64), 0, max(count - 2, 0))
    t = clipped - low
    return _banded(low, np.stack((1 - t, t), axis=1), max(count, 2))


def interpolate(
    plane: NDArray[np.float32], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Interpolate a plane linearly at fractional rows (h,) and columns (w,), clamped at its ends.

    Returns
    -------
    (h, w) float32
    """
    low_j, low_i = (
        int(np.clip(np.floor(at[0]), 0, n - 2))
        for at, n in ((rows, plane.shape[0]), (columns, plane.shape[1]))
    )
    high_j = int(np.clip(np.floor(rows[-1]) + 2, low_j + 2, plane.shape[0]))
    high_i = int(np.clip(np.floor(columns[-1]) + 2, low_i + 2, plane.shape[1]))
    part = plane[low_j:high_j, low_i:high_i]
    return _product(
        _linear_basis(rows - low_j, part.shape[0]), part, _linear_basis(columns - low_i, part.shape[1])
    )
