"""Random numbers by position: every value is a pure function of (seed, stream, row, column).

A phantom slide is rendered in blocks, by several threads, in any order. Were a generator's
state to pass from block to block, the tissue would depend on that order; a counter-based hash
has no state, so a cell on the seam of two blocks is the same cell in both.

The mixing step is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014, doi:10.1145/2660193.2660195).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _mix_int(value: int) -> int:
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = value + np.uint64(_GOLDEN)
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    return value


def key(seed: int, stream: str) -> int:
    """One 64-bit key out of a seed and the name of what is drawn."""
    value = _mix_int(seed & _MASK)
    for byte in stream.encode():
        value = _mix_int(value ^ byte)
    return value


def uniform(
    seed: int, stream: str, rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), one for each (row, column).

    Parameters
    ----------
    seed, stream : int, str
        The slide's seed and the name of what is drawn; other names give independent numbers.
    rows, columns : int arrays of one shape (N, ...), at least one-dimensional
        Lattice positions; negative ones are allowed.

    Returns
    -------
    (N, ...) float64
    """
    start = np.uint64(key(seed, stream))
    first = _mix(np.asarray(rows, dtype=np.int64).view(np.uint64) ^ start)
    mixed = _mix(first ^ np.asarray(columns, dtype=np.int64).view(np.uint64))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(seed: int, stream: str) -> np.random.Generator:
    """Make a numpy generator for what is drawn once for a case, never once for a block."""
    return np.random.Generator(np.random.Philox(key(seed, stream)))
