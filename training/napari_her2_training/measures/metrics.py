"""Measures of a classifier over slides; those of scikit-learn, none written again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    recall_score,
    roc_auc_score,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def class_aucs(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """One-vs-rest ROC AUC of each class.

    Parameters
    ----------
    labels : (N,) int
    probabilities : (N, C) float

    Returns
    -------
    (C,) float64
        NaN for a class that is absent, or alone.
    """
    classes = probabilities.shape[1]
    return np.array(
        [
            roc_auc_score(labels == c, probabilities[:, c])
            if 0 < (labels == c).sum() < len(labels)
            else np.nan
            for c in range(classes)
        ]
    )


def class_average_precisions(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Area under the precision-recall curve of each class against the rest, as average precision.

    Parameters
    ----------
    labels : (N,) int
    probabilities : (N, C) float

    Returns
    -------
    (C,) float64
        NaN for a class that is absent, or alone.
    """
    found = np.full(probabilities.shape[1], np.nan)
    for c in range(len(found)):
        of_class = labels == c
        if of_class.any() and not of_class.all():
            found[c] = average_precision_score(of_class, probabilities[:, c])
    return found


def macro_auc(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> float:
    """Mean one-vs-rest ROC AUC over the classes that occur; NaN where none can be told.

    Parameters
    ----------
    labels : (N,) int
    probabilities : (N, C) float
    """
    values = class_aucs(labels, probabilities)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def slide_metrics(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], classes: Sequence[str]
) -> dict[str, float]:
    """All measures over slides that can be told from them.

    Parameters
    ----------
    labels : (N,) int
    probabilities : (N, C) float
    classes : sequence of str
        Names, in the order of the probabilities.

    Returns
    -------
    dict of str to float
        Name to value; what the slides do not tell (AUC with one class only) is left out.
    """
    predicted = probabilities.argmax(axis=1)
    present = np.unique(labels)
    found = {
        "macro AUC": macro_auc(labels, probabilities),
        "accuracy": float(accuracy_score(labels, predicted)),
        # The mean recall over the classes that occur; balanced_accuracy_score warns about the others.
        "balanced accuracy": float(recall_score(labels, predicted, labels=present, average="macro")),
        # Over the classes that occur, or are said to; scikit-learn's choice.
        "macro F1": float(f1_score(labels, predicted, average="macro")),
    }
    if len(np.union1d(present, predicted)) > 1:
        found["quadratic kappa"] = float(
            cohen_kappa_score(labels, predicted, weights="quadratic", labels=range(len(classes)))
        )
        found["MCC"] = float(matthews_corrcoef(labels, predicted))
    precisions = class_average_precisions(labels, probabilities)
    if np.isfinite(precisions).any():
        found["macro PR-AUC"] = float(np.nanmean(precisions))
    aucs = class_aucs(labels, probabilities)
    found |= {f"AUC {name}": float(value) for name, value in zip(classes, aucs, strict=True)}
    found |= {f"PR-AUC {name}": float(value) for name, value in zip(classes, precisions, strict=True)}
    named = np.union1d(present, predicted)
    scores = f1_score(labels, predicted, labels=named, average=None)
    found |= {f"F1 {classes[c]}": float(value) for c, value in zip(named, scores, strict=True)}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def confusion(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> list[list[int]]:
    """Slides by true class (rows) and predicted class (columns)."""
    classes = range(probabilities.shape[1])
    table: list[list[int]] = confusion_matrix(labels, probabilities.argmax(1), labels=classes).tolist()
    return table


def class_recalls(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], classes: Sequence[str]
) -> dict[str, float]:
    """Share of the slides of each class that are found, by "recall" and its name.

    Parameters
    ----------
    labels : (N,) int
    probabilities : (N, C) float
    classes : sequence of str

    Returns
    -------
    dict of str to float
        Classes that do not occur are left out.
    """
    present = np.unique(labels)
    found = recall_score(labels, probabilities.argmax(axis=1), labels=present, average=None)
    return {f"recall {classes[c]}": float(value) for c, value in zip(present, found, strict=True)}
