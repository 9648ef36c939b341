"""An index of NumPy on an image that is read piece by piece: which window to read, what to pick of it."""

from __future__ import annotations

from typing import Any

import numpy as np

Span = tuple[int, int]
"""First of the positions, and last plus one."""


def window_of(key: Any, shape: tuple[int, int, int]) -> tuple[Span, Span, tuple[Any, Any, Any]]:  # noqa: ANN401
    """Find what an index asks of an image.

    Parameters
    ----------
    key : object
        Any index of NumPy's that adds no axis.
    shape : tuple of int
        (height, width, channels).

    Returns
    -------
    rows, columns : tuple of int
        Window that holds what is picked, possibly empty.
    picked : tuple
        Index of it from the corner of the window on.

    Raises
    ------
    IndexError
        As NumPy does.
    """
    ndim = len(shape)
    keys = list(key) if isinstance(key, tuple) else [key]
    gap = next((at for at, part in enumerate(keys) if part is Ellipsis), None)
    if gap is not None:
        keys[gap : gap + 1] = [slice(None)] * (ndim + 1 - len(keys))
    if len(keys) > ndim or any(part is None for part in keys):
        raise IndexError(f"a level has {ndim} axes, and none can be added: {key!r}")
    keys += [slice(None)] * (ndim - len(keys))
    rows, picked_rows = _span(keys[0], shape[0])
    columns, picked_columns = _span(keys[1], shape[1])
    return rows, columns, (picked_rows, picked_columns, keys[2])


def _span(part: Any, size: int) -> tuple[Span, Any]:  # noqa: ANN401 - an index of NumPy's
    """First and last plus one of the positions that an index picks, and the index from the first on."""
    if isinstance(part, slice):
        picked = range(size)[part]
        if not picked:
            return (0, 0), slice(0, 0)
        low, high = min(picked[0], picked[-1]), max(picked[0], picked[-1])
        return (low, high + 1), slice(None, None, part.step)
    if isinstance(part, (int, np.integer)) and not isinstance(part, bool):
        at = range(size)[int(part)]
        return (at, at + 1), 0
    positions = np.asarray(part)
    if positions.dtype == np.bool_:
        if positions.shape != (size,):
            raise IndexError(f"a mask of shape {positions.shape} does not fit {size} pixels")
        positions = np.flatnonzero(positions)
    if not positions.size:
        return (0, 0), positions.astype(np.intp)
    if positions.min() < -size or positions.max() >= size:
        raise IndexError(f"a position is out of bounds for {size} pixels")
    positions = np.where(positions < 0, positions + size, positions)
    low = int(positions.min())
    return (low, int(positions.max()) + 1), positions - low
