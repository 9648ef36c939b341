"""Measures of a predictor that also says how confident it is: those of Table 1 of Dutta et al. 2025.

Weighted precision and recall, balanced accuracy, Matthews' correlation, areas under the ROC and the
precision-recall curve come from scikit-learn. The mean effective confidence (MEC) is the mean over the
fields of z c, with c the confidence and z = 1 where the class is right and -1 where it is wrong; it cannot
exceed the accuracy. The paper writes the formula without naming the scale of c, and its code rescales;
hence several values, under names that keep them apart (`EffectiveConfidence`).

Weighted recall is the accuracy: mathematically the same, whatever the balance of classes.
What the fields do not tell (an area with one class only, a share of nothing) is NaN, never a guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import accuracy_score, precision_score

from napari_her2.errors import JobFailed
from napari_her2_training.measures.metrics import (
    class_aucs,
    class_average_precisions,
    macro_auc,
    slide_metrics,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRATA = (("high", 0.9, math.inf), ("medium", 0.75, 0.9), ("low", -math.inf, 0.75))
"""Name, lower bound (within) and upper bound (without) of each stratum of confidence, as in the paper."""

_FLAT = 1e-6


@dataclass(frozen=True, slots=True)
class EffectiveConfidence:
    """Mean effective confidence, by every reading of its definition.

    Parameters
    ----------
    signed : float
        MEC: mean of c where right and -c where wrong; -1 to the accuracy.
    rescaled : float
        The same with c taken to 0 and 1 by its least and greatest value over the fields; depends on which
        fields are measured together. 0 where all are equally confident.
    rescaled_logit : float
        The same with the logit of c, as the published code; NaN where the logits were not given.
    agreement : float
        Mean of c where right and 1 - c where wrong, 0 to 1. Another quantity, not to be called MEC.
    """

    signed: float
    rescaled: float
    rescaled_logit: float
    agreement: float


@dataclass(frozen=True, slots=True)
class ConfidenceStratum:
    """The fields of one range of confidence.

    Parameters
    ----------
    name : str
        "high", "medium" or "low".
    low, high : float
        Bounds; ``low <= c < high``.
    fields : int
    share : float
        Of all fields, 0 to 1.
    accuracy : float
    auc : float
        Macro ROC AUC, one against the rest, over the classes that it can be told for.
    """

    name: str
    low: float
    high: float
    fields: int
    share: float
    accuracy: float
    auc: float


@dataclass(frozen=True, slots=True)
class PredictorMeasures:
    """A row of the table.

    Parameters
    ----------
    fields : int
        N.
    weighted_precision, weighted_recall : float
        Means over the classes, weighted by how many fields each has.
    balanced_accuracy : float
        Mean recall over the classes that occur.
    mcc : float
        Matthews' correlation; NaN where only one class occurs and only that is predicted.
    auc, pr_auc : float
        Means of the next two over the classes that they can be told for.
    class_auc, class_pr_auc : tuple of float
        Of each class against the rest; NaN for one that is absent, or alone.
    mec : EffectiveConfidence
        With the learnt confidence.
    softmax_mec : EffectiveConfidence
        With the greatest probability instead.
    strata : tuple of ConfidenceStratum
        High, medium and low learnt confidence.
    """

    fields: int
    weighted_precision: float
    weighted_recall: float
    balanced_accuracy: float
    mcc: float
    auc: float
    pr_auc: float
    class_auc: tuple[float, ...]
    class_pr_auc: tuple[float, ...]
    mec: EffectiveConfidence
    softmax_mec: EffectiveConfidence
    strata: tuple[ConfidenceStratum, ...]


def measure_predictor(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    confidence: NDArray[np.floating],
    confidence_logits: NDArray[np.floating] | None = None,
) -> PredictorMeasures:
    """Work out all measures.

    Parameters
    ----------
    labels : (N,) int
    probabilities : (N, C) float
        Of the predictor as it is, without hints.
    confidence : (N,) float
        Learnt, 0 to 1.
    confidence_logits : (N,) float, optional
        Ahead of the sigmoid.

    Raises
    ------
    JobFailed
        If the arrays do not belong together, are empty, or hold what is not finite.
    """
    _check(labels, probabilities, confidence, confidence_logits)
    predicted = probabilities.argmax(axis=1)
    known = slide_metrics(labels, probabilities, tuple(map(str, range(probabilities.shape[1]))))
    right = labels == predicted
    return PredictorMeasures(
        fields=len(labels),
        weighted_precision=float(precision_score(labels, predicted, average="weighted", zero_division=0)),
        weighted_recall=known["accuracy"],
        balanced_accuracy=known["balanced accuracy"],
        mcc=known.get("MCC", math.nan),
        auc=known.get("macro AUC", math.nan),
        pr_auc=known.get("macro PR-AUC", math.nan),
        class_auc=tuple(class_aucs(labels, probabilities).tolist()),
        class_pr_auc=tuple(class_average_precisions(labels, probabilities).tolist()),
        mec=effective_confidence(right, confidence, confidence_logits),
        softmax_mec=effective_confidence(right, probabilities.max(axis=1)),
        strata=confidence_strata(labels, probabilities, confidence),
    )


def effective_confidence(
    right: NDArray[np.bool_],
    confidence: NDArray[np.floating],
    confidence_logits: NDArray[np.floating] | None = None,
) -> EffectiveConfidence:
    """Mean effective confidence.

    Parameters
    ----------
    right : (N,) bool
        Whether the class was right.
    confidence : (N,) float
        0 to 1.
    confidence_logits : (N,) float, optional

    Returns
    -------
    EffectiveConfidence
        All NaN where N is 0.

    Examples
    --------
    >>> effective_confidence(np.array([True, True, False]), np.array([0.9, 0.6, 0.6])).signed
    0.3
    """
    if len(right) == 0:
        return EffectiveConfidence(math.nan, math.nan, math.nan, math.nan)
    c = confidence.astype(np.float64)
    sign = np.where(right, 1.0, -1.0)
    return EffectiveConfidence(
        signed=float(np.mean(sign * c)),
        rescaled=float(np.mean(sign * _rescaled(c))),
        rescaled_logit=math.nan
        if confidence_logits is None
        else float(np.mean(sign * _rescaled(confidence_logits.astype(np.float64)))),
        agreement=float(np.mean(np.where(right, c, 1 - c))),
    )


def confidence_strata(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], confidence: NDArray[np.floating]
) -> tuple[ConfidenceStratum, ...]:
    """How well the predictor does where it is more and less confident.

    Parameters
    ----------
    labels : (N,) int
    probabilities : (N, C) float
    confidence : (N,) float

    Returns
    -------
    tuple of ConfidenceStratum
        In the order of `STRATA`. One without fields has accuracy and AUC NaN.
    """
    strata = []
    for name, low, high in STRATA:
        # In the precision of the confidence itself: 0.9 as float32 is within a bound of 0.9.
        chosen = (confidence >= low) & (confidence < high)
        count = int(chosen.sum())
        of, p = labels[chosen], probabilities[chosen]
        strata.append(
            ConfidenceStratum(
                name=name,
                low=low,
                high=high,
                fields=count,
                share=count / len(labels) if len(labels) else math.nan,
                accuracy=float(accuracy_score(of, p.argmax(axis=1))) if count else math.nan,
                auc=macro_auc(of, p),
            )
        )
    return tuple(strata)


def _rescaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = np.ptp(values)
    if spread < _FLAT:
        return np.zeros_like(values)
    rescaled: NDArray[np.float64] = (values - values.min()) / spread
    return rescaled


def _check(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    confidence: NDArray[np.floating],
    confidence_logits: NDArray[np.floating] | None,
) -> None:
    count = len(labels)
    if count == 0:
        raise JobFailed("There is no field to measure: check the split of the data.")
    shapes_fit = probabilities.ndim == 2 and len(probabilities) == count and confidence.shape == (count,)
    if not shapes_fit or (confidence_logits is not None and confidence_logits.shape != (count,)):
        raise JobFailed(
            f"{count} labels, probabilities of shape {probabilities.shape} and confidences of shape "
            f"{confidence.shape} do not belong together: give one row for each field."
        )
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise JobFailed(
            f"A label lies outside the {probabilities.shape[1]} classes of the predictor: check the scores."
        )
    given = (probabilities, confidence, *(() if confidence_logits is None else (confidence_logits,)))
    if not all(np.isfinite(values).all() for values in given):
        raise JobFailed("The predictor gave numbers that are not finite: train it again at a lower rate.")
    if confidence.min() < 0 or confidence.max() > 1:
        raise JobFailed("Confidences lie between 0 and 1: give them behind the sigmoid.")
