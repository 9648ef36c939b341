"""Measures of many resamples at once, for intervals.

The numbers are those of scikit-learn, which checks what it is given so thoroughly that a thousand resamples
of a dozen arms would take minutes.

Slides of one case depend on each other, so what is drawn with replacement is the case, as whole as it is. A
resample is how often each slide is in it; every measure but AUC then follows from the table of true against
predicted classes, and AUC from the pairs of slides that are in the right order (Mann and Whitney).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


_OVER_CLASSES = ("macro AUC", "macro PR-AUC", "macro F1", "balanced accuracy")


def resample_cases(folds: Sequence[Sequence[str]], *, resamples: int, seed: int) -> list[NDArray[np.float64]]:
    """Draw cases with replacement, the same in all folds.

    Parameters
    ----------
    folds : sequence of sequence of str
        Case of each slide, of each fold.
    resamples : int
    seed : int

    Returns
    -------
    list of (resamples, slides) float64
        How often each slide is drawn, of each fold.
    """
    names = list(dict.fromkeys(case for fold in folds for case in fold))
    drawn = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn]).astype(np.float64)
    place = {name: number for number, name in enumerate(names)}
    return [counts[:, [place[case] for case in fold]] for fold in folds]


def resampled_measures(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    counts: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """All measures of `napari_her2_training.measures.arms.all_measures`, of each resample.

    Parameters
    ----------
    labels : (N,) int
    probabilities : (N, C) float
    classes : sequence of str
    counts : (R, N) float64
        How often each slide is in each resample.

    Returns
    -------
    dict of str to (R,) float64
        NaN where a resample does not tell a measure; means over the classes where it lacks one of them.
    """
    true, predicted = np.eye(len(classes))[labels], np.eye(len(classes))[probabilities.argmax(axis=1)]
    table = np.einsum("rn,nt,ns->rts", counts, true, predicted, optimize=True)
    aucs = np.stack([_auc(labels == c, probabilities[:, c], counts) for c in range(len(classes))], axis=1)
    precisions = np.stack(
        [_average_precision(labels == c, probabilities[:, c], counts) for c in range(len(classes))], axis=1
    )
    right = table.diagonal(axis1=1, axis2=2)
    recalls = _divided(right, table.sum(axis=2))
    # NaN, and left out of the mean, for a class that neither occurs nor is said to.
    scores = _divided(2 * right, table.sum(axis=2) + table.sum(axis=1))
    found = {"macro AUC": _mean(aucs), "macro PR-AUC": _mean(precisions), "macro F1": _mean(scores)}
    found |= _of_table(table, recalls)
    # Means over the classes say another thing where a class was not drawn: what is left is often easier.
    whole = ((counts @ true > 0) | (true.sum(axis=0) == 0)).all(axis=1)
    for name in _OVER_CLASSES:
        found[name] = np.where(whole, found[name], np.nan)
    by_class = {"AUC": aucs, "PR-AUC": precisions, "F1": scores, "recall": recalls}
    return found | {
        f"{what} {name}": values[:, c] for what, values in by_class.items() for c, name in enumerate(classes)
    }


def _of_table(table: NDArray[np.float64], recalls: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Measures of tables (R, C, C) of true (rows) against predicted classes."""
    right = table.diagonal(axis1=1, axis2=2)
    true, predicted, every = table.sum(axis=2), table.sum(axis=1), table.sum(axis=(1, 2))
    # Gorodkin's R_K, as scikit-learn has it.
    covariance = right.sum(axis=1) * every - (true * predicted).sum(axis=1)
    spread = (every**2 - (true**2).sum(axis=1)) * (every**2 - (predicted**2).sum(axis=1))
    number = np.arange(table.shape[1])
    distance = (number[:, None] - number[None, :]) ** 2
    by_chance = np.einsum("rt,rs,ts->r", true, predicted, distance, optimize=True)
    return {
        "accuracy": _divided(right.sum(axis=1), every),
        "balanced accuracy": _mean(recalls),
        # scikit-learn says 0 where all slides are of one class, or are said to be.
        "MCC": np.where(
            (true > 0).sum(axis=1) + (predicted > 0).sum(axis=1) > 2, _or_zero(covariance, spread), np.nan
        ),
        "quadratic kappa": 1 - _divided((table * distance).sum(axis=(1, 2)) * every, by_chance),
    }


def _auc(
    own: NDArray[np.bool_], scores: NDArray[np.floating], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(R,) share of pairs of a slide of the class and another one in which the first scores higher."""
    higher = np.sign(scores[own][:, None] - scores[~own][None, :]) / 2 + 0.5
    pairs = counts[:, own].sum(axis=1) * counts[:, ~own].sum(axis=1)
    return _divided(((counts[:, own] @ higher) * counts[:, ~own]).sum(axis=1), pairs)


def _average_precision(
    own: NDArray[np.bool_], scores: NDArray[np.floating], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(R,) mean precision over the slides of the class, each at its own score.

    NaN where none is drawn, or none else.
    """
    order = np.argsort(-scores, kind="stable")
    drawn, of_class = counts[:, order], counts[:, order] * own[order]
    # Equal scores are one threshold: precision is told at the last of them.
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits, predicted = of_class.cumsum(axis=1)[:, last], drawn.cumsum(axis=1)[:, last]
    gained = np.diff(hits, axis=1, prepend=0.0)
    precision = np.nan_to_num(_divided(hits, predicted))
    all_of_it = of_class.sum(axis=1)
    # It says nothing where every slide that was drawn is of the class.
    return _divided((gained * precision).sum(axis=1), np.where(all_of_it < drawn.sum(axis=1), all_of_it, 0))


def _or_zero(covariance: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.nan_to_num(_divided(covariance, np.sqrt(spread)))


def _divided(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quotient, NaN where there is nothing below."""
    found: NDArray[np.float64] = np.full(np.broadcast(above, below).shape, np.nan)
    np.divide(above, below, out=found, where=below != 0)
    return found


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R,) mean over the classes that tell something; NaN where none does."""
    known = np.isfinite(values)
    return _divided(np.where(known, values, 0).sum(axis=1), known.sum(axis=1).astype(np.float64))
