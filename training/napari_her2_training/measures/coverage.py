"""How often sets of classes hold the truth, and how large they are: of all slides, of each class, of groups.

A set that holds every class covers everything and says nothing: coverage is told beside the size, always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import beta, binomtest

from napari_her2.models.answer_sets import set_members, thresholds
from napari_her2_training.measures.bootstrap import resample_cases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_her2.models.answer_sets import CalibrationCases
    from napari_her2_training.config_sections import MeasureConfig
    from napari_her2_training.measures.predictions import Predictions


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was measured of the sets of some slides.

    Parameters
    ----------
    slides, cases : int
    held : int
        Slides whose set holds their class.
    coverage, low, high : float
        Their share, with the interval of Clopper and Pearson (1934, doi:10.1093/biomet/26.4.404), which
        takes each slide for itself.
    size : float
        Mean number of classes in a set.
    size_low, size_high : float or None
        Its percentile interval over resampled cases; None where none was asked for.
    single, double, every : float
        Share of the sets with one class, with two, and with all: the last say nothing. Of two classes, two
        are all.
    """

    slides: int
    cases: int
    held: int
    coverage: float
    low: float
    high: float
    size: float
    size_low: float | None
    size_high: float | None
    single: float
    double: float
    every: float


@dataclass(frozen=True, slots=True, eq=False)
class JudgedSets:
    """Sets of slides whose class is known, at one promise.

    Parameters
    ----------
    promise : float
        Coverage that was asked for.
    inside : (N, C) bool
        Which classes are in the set of each slide.
    calibrated_on : (C,) int64
        Calibration cases of each class.
    own : (C,) bool
        Whether a class has enough of them for a promise of its own.
    """

    promise: float
    inside: NDArray[np.bool_]
    calibrated_on: NDArray[np.int64]
    own: NDArray[np.bool_]


def judge_sets(
    known: CalibrationCases, probabilities: NDArray[np.floating], promise: float, *, ordered: bool
) -> JudgedSets | None:
    """Make the sets of slides.

    Parameters
    ----------
    known : CalibrationCases
        None of them among the slides, scored with the same ``ordered``.
    probabilities : (N, C) float
        Calibrated.
    promise : float
    ordered : bool
        As of `napari_her2.models.answer_sets.class_scores`.

    Returns
    -------
    JudgedSets or None
        None where the calibration cases are too few for the promise.
    """
    classes = probabilities.shape[1]
    limits = thresholds(known, classes, promise)
    if limits is None:
        return None
    inside = np.stack([set_members(row, limits, ordered=ordered) for row in probabilities])
    return JudgedSets(promise, inside, np.array(known.counts(classes)), limits.own)


def measure_coverage(
    inside: NDArray[np.bool_], labels: NDArray[np.integer], cases: Sequence[str], settings: MeasureConfig
) -> Coverage:
    """Measure sets.

    Parameters
    ----------
    inside : (N, C) bool
        Which classes are in the set of each slide; N is at least 1.
    labels : (N,) int
        Their true classes.
    cases : sequence of N str
        Slides of one case are drawn together.
    settings : MeasureConfig
        Of the intervals.
    """
    hits, sizes = inside[np.arange(len(labels)), labels], inside.sum(axis=1)
    held = int(hits.sum())
    interval = binomtest(held, len(hits)).proportion_ci(settings.confidence, "exact")
    size_low, size_high = _of_resamples(sizes, cases, settings)
    return Coverage(
        slides=len(hits),
        cases=len(set(cases)),
        held=held,
        coverage=float(hits.mean()),
        low=float(interval.low),
        high=float(interval.high),
        size=float(sizes.mean()),
        size_low=size_low,
        size_high=size_high,
        single=float((sizes == 1).mean()),
        double=float((sizes == 2).mean()),
        every=float((sizes == inside.shape[1]).mean()),
    )


def _of_resamples(
    sizes: NDArray[np.integer], cases: Sequence[str], settings: MeasureConfig
) -> tuple[float | None, float | None]:
    if not settings.resamples:
        return None, None
    (counts,) = resample_cases([cases], resamples=settings.resamples, seed=settings.seed)
    means = counts @ sizes / counts.sum(axis=1)
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail]).tolist()
    return low, high


def coverage_by_group(
    sets: JudgedSets, judged: Predictions, groups: Sequence[str], settings: MeasureConfig
) -> dict[str, Coverage]:
    """Measure the sets of each group of slides by itself.

    Parameters
    ----------
    sets : JudgedSets
        Of the slides.
    judged : Predictions
        Of the same slides.
    groups : sequence of N str
        Group of each slide; those of "" are in none.
    settings : MeasureConfig

    Returns
    -------
    dict of str to Coverage
        In the order in which groups first occur.
    """
    names = np.array(groups)
    found = {}
    for group in dict.fromkeys(name for name in groups if name):
        own = np.flatnonzero(names == group)
        cases = [judged.cases[at] for at in own]
        found[group] = measure_coverage(sets.inside[own], judged.labels[own], cases, settings)
    return found


def spread_by_calibration(cases: int, promise: float) -> float:
    """Say how far the coverage of one model may lie from the promise by the draw of its calibration cases.

    Over all that could have been drawn it is distributed as beta(k, n + 1 - k), k the place of the threshold
    among n scores (Vovk 2012, arXiv:1209.2673); those of few cases are far apart.

    Parameters
    ----------
    cases : int
        That share a threshold, as many as the promise needs at least.
    promise : float

    Returns
    -------
    float
        Standard deviation.
    """
    place = int(np.ceil((cases + 1) * promise - 1e-9))
    return float(beta.std(place, cases + 1 - place))
