"""Coefficients of agreement, with intervals by bootstrap over cases.

Every coefficient here is a function of a table that is a sum over cases, so that resampled cases are a
product of counts and tables, and two thousand of them take a moment. A coefficient that is not defined (no
case, or nobody ever gives another level) is NaN, never 0 or 1.

References
----------
Cohen, J. (1968). Weighted kappa. Psychological Bulletin 70, 213-220. doi:10.1037/h0026256
Fleiss, J. L. (1971). Measuring nominal scale agreement among many raters. Psychological Bulletin 76,
378-382. doi:10.1037/h0031619
Krippendorff, K. (2019). Content Analysis, 4th ed., chapter 12 (coincidence matrix, ordinal difference).
doi:10.4135/9781071878781
Efron, B., Tibshirani, R. (1993). An Introduction to the Bootstrap, chapter 13 (percentile interval).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Tables: TypeAlias = NDArray[np.float64]
    Coefficient: TypeAlias = Callable[[Tables], NDArray[np.float64]]

MISSING = -1
LEAST_CASES = 20
"""With fewer cases no interval is given: of ten cases, the 95 % interval held the truth in 84 to 87 of
100 simulated studies (`benchmarks/reading_intervals.py`)."""
RESAMPLES, LEVEL = 2000, 0.95
_MOST_UNDEFINED = 0.05  # of the resamples: the interval of the others would be that of luckier cases
_CHUNK = 1 << 22  # numbers at a time

Weights = Literal["quadratic", "linear", "none"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A coefficient.

    Parameters
    ----------
    value : float
        NaN where it is not defined.
    low, high : float
        Limits of the 95 % interval; NaN where it is not known.
    cases : int
        Cases behind it.
    note : str
        Why value or interval are not known; empty where they are.
    """

    value: float
    low: float
    high: float
    cases: int
    note: str = ""


def weighted_kappa(
    first: NDArray[np.integer], second: NDArray[np.integer], levels: int, weights: Weights = "quadratic"
) -> float:
    """Return Cohen's weighted kappa of two readers.

    Parameters
    ----------
    first, second : (N,) int
        Level of each case, 0 to ``levels`` - 1; `MISSING` where a reader has none.
    levels : int
    weights : {"quadratic", "linear", "none"}

    Returns
    -------
    float
        NaN where no case was read by both, or both always give one and the same level.
    """
    return float(kappa_of(pair_tables(first, second, levels).sum(axis=0), weights))


def fleiss_kappa(read: NDArray[np.integer], levels: int) -> float:
    """Return Fleiss' kappa over the cases that all readers read.

    Parameters
    ----------
    read : (R, N) int
        Level by reader and case, `MISSING` where there is none.
    levels : int
    """
    return float(fleiss_of(fleiss_tables(read, levels).sum(axis=0)))


def krippendorff_alpha(
    read: NDArray[np.integer], levels: int, difference: Literal["ordinal", "nominal", "interval"] = "ordinal"
) -> float:
    """Return Krippendorff's alpha over all cases that two readers or more read.

    Parameters
    ----------
    read : (R, N) int
        Level by reader and case, `MISSING` where there is none.
    levels : int
    difference : {"ordinal", "nominal", "interval"}
    """
    return float(alpha_of(coincidence_tables(read, levels).sum(axis=0), difference))


def pair_tables(first: NDArray[np.integer], second: NDArray[np.integer], levels: int) -> Tables:
    """Return (N, K, K): a 1 where the two readers of a case put it; nothing where one did not read it."""
    tables = np.zeros((len(first), levels, levels))
    both = np.flatnonzero((first != MISSING) & (second != MISSING))
    tables[both, first[both], second[both]] = 1.0
    return tables


def level_counts(read: NDArray[np.integer], levels: int) -> NDArray[np.float64]:
    """Return (N, K): how many readers gave each level."""
    return np.stack([(read == level).sum(axis=0) for level in range(levels)], axis=1).astype(np.float64)


def fleiss_tables(read: NDArray[np.integer], levels: int) -> Tables:
    """Return (N, K + 2): levels given, agreeing share of pairs, and 1; nothing where a reader is missing."""
    counts = level_counts(read, levels)
    readers = len(read)
    whole = (counts.sum(axis=1) == readers) & (readers > 1)
    pairs = readers * (readers - 1)
    agreeing = (counts * (counts - 1)).sum(axis=1) / pairs if pairs else np.zeros(len(counts))
    tables: Tables = np.column_stack([counts, agreeing, np.ones(len(counts))]) * whole[:, None]
    return tables


def coincidence_tables(read: NDArray[np.integer], levels: int) -> Tables:
    """Return (N, K, K): pairs of values of a case, each weighted by 1 / (values of the case - 1)."""
    counts = level_counts(read, levels)
    values = counts.sum(axis=1)
    pairs = counts[:, :, None] * counts[:, None, :]
    pairs[:, np.arange(levels), np.arange(levels)] -= counts
    pairable = values > 1
    return pairs * np.where(pairable, 1.0 / np.maximum(values - 1, 1), 0.0)[:, None, None]


def kappa_of(table: Tables, weights: Weights = "quadratic") -> NDArray[np.float64]:
    """Cohen's weighted kappa of confusion tables (..., K, K)."""
    cost = _cost(table.shape[-1], weights)
    total = table.sum(axis=(-2, -1))
    expected = table.sum(axis=-1)[..., :, None] * table.sum(axis=-2)[..., None, :]
    return _one_less((table * cost).sum(axis=(-2, -1)) * total, (expected * cost).sum(axis=(-2, -1)))


def agreement_of_pairs(table: Tables) -> NDArray[np.float64]:
    """Share on the diagonal of tables (..., K, K)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share: NDArray[np.float64] = np.trace(table, axis1=-2, axis2=-1) / table.sum(axis=(-2, -1))
    return share


def fleiss_of(table: Tables) -> NDArray[np.float64]:
    """Fleiss' kappa of sums (..., K + 2) of `fleiss_tables`."""
    given, agreeing, cases = table[..., :-2], table[..., -2], table[..., -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = given / given.sum(axis=-1, keepdims=True)
        observed = agreeing / cases
    return _one_less(1.0 - observed, 1.0 - (share**2).sum(axis=-1))


def alpha_of(
    table: Tables, difference: Literal["ordinal", "nominal", "interval"] = "ordinal"
) -> NDArray[np.float64]:
    """Krippendorff's alpha of coincidence matrices (..., K, K)."""
    margin = table.sum(axis=-1)
    total = margin.sum(axis=-1)
    if difference == "ordinal":
        # Ranks between two levels, half of their own: (sum over g = c ... k of n_g - (n_c + n_k) / 2)^2.
        rank = np.cumsum(margin, axis=-1) - margin / 2
        cost = (rank[..., :, None] - rank[..., None, :]) ** 2
    else:
        cost = _cost(table.shape[-1], "none" if difference == "nominal" else "quadratic")
    expected = margin[..., :, None] * margin[..., None, :]
    # The diagonal of the expected coincidences, n (n - 1), costs nothing.
    return _one_less((table * cost).sum(axis=(-2, -1)) * (total - 1), (expected * cost).sum(axis=(-2, -1)))


def estimate(
    tables: Tables,
    coefficient: Coefficient,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    least_cases: int = LEAST_CASES,
) -> Estimate:
    """Work out a coefficient with its percentile interval by bootstrap over cases.

    Parameters
    ----------
    tables : (N, ...) float64
        Table of each case; one of zeros is a case that has no part in it.
    coefficient : callable
        From sums of tables (..., table) to values (...).
    seed : int
        The same seed gives the same interval.
    resamples : int
    least_cases : int
        With fewer cases there is no interval.

    Returns
    -------
    Estimate
    """
    flat = tables.reshape(len(tables), -1)
    flat = flat[flat.any(axis=1)]
    cases, shape = len(flat), tables.shape[1:]
    value = float(coefficient(flat.sum(axis=0).reshape(shape))) if cases else np.nan
    if not np.isfinite(value):
        why = "no level but one was given" if cases else "no case was read by those who are compared"
        return Estimate(np.nan, np.nan, np.nan, cases, f"not defined: {why}")
    if cases < least_cases:
        note = f"the interval is not known: {cases} cases are fewer than {least_cases}"
        return Estimate(value, np.nan, np.nan, cases, note)
    drawn = _resampled(flat, seed, resamples)
    values = coefficient(drawn.reshape(resamples, *shape))
    defined = values[np.isfinite(values)]
    if len(defined) < (1 - _MOST_UNDEFINED) * resamples:
        note = "the interval is not known: one level was given nearly always"
        return Estimate(value, np.nan, np.nan, cases, note)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), cases)


def _resampled(flat: NDArray[np.float64], seed: int, resamples: int) -> NDArray[np.float64]:
    """Return sums of tables over cases drawn with replacement, (resamples, table)."""
    cases = len(flat)
    random = np.random.default_rng(seed)
    step = max(_CHUNK // cases, 1)
    sums = [
        random.multinomial(cases, np.full(cases, 1 / cases), size=min(step, resamples - start)) @ flat
        for start in range(0, resamples, step)
    ]
    return np.concatenate(sums)


def _cost(levels: int, weights: Weights) -> NDArray[np.float64]:
    apart = np.abs(np.subtract.outer(np.arange(levels), np.arange(levels))).astype(np.float64)
    return {"quadratic": apart**2, "linear": apart, "none": (apart > 0).astype(np.float64)}[weights]


def _one_less(observed: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - observed / expected; NaN where no disagreement can be expected."""
    with np.errstate(invalid="ignore", divide="ignore"):
        values: NDArray[np.float64] = np.where(expected > 1e-12, 1.0 - observed / expected, np.nan)
    return values
