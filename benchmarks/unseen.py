"""The phantom cases that no training saw, and the measures over them that all methods share."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import platformdirs
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, roc_auc_score

from napari_her2.phantom import cohort_steps
from napari_her2.steps import finished

if TYPE_CHECKING:
    from pathlib import Path

UNSEEN_SEED = 5005
SCANNERS_MPP = (0.5, 0.25)


@dataclass(frozen=True, slots=True)
class Case:
    """A case of the cohort."""

    case_id: str
    he: Path
    ihc: Path
    outlines: Path
    truth: str


def unseen_cases(
    folder: Path | None, cases: int, seed: int, size_px: int, mpp: tuple[float, ...] = SCANNERS_MPP
) -> list[Case]:
    """Make the cohort where it is not there yet, by default in the user's cache, and list it."""
    cache = platformdirs.user_cache_path("napari-her2") / "benchmarks"
    folder = folder or cache / f"unseen-{cases}-{seed}-{size_px}"
    steps = cohort_steps(folder, cases=cases, seed=seed, size_px=size_px, mpp=mpp)

    def report(step: tuple[int, int]) -> None:
        done, total = step
        print(f"\rphantom cases: {done} of {total}", end="" if done < total else "\n", flush=True)

    manifest = finished(steps, report)
    with manifest.open(newline="", encoding="utf-8") as file:
        return [
            Case(
                row["case_id"],
                folder / row["he"],
                folder / row["ihc"],
                folder / f"{row['case_id']}_tumour.geojson",
                row["score"],
            )
            for row in csv.DictReader(file)
        ]


def macro_auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    present = [c for c in range(probabilities.shape[1]) if 0 < (labels == c).sum() < len(labels)]
    return float(np.mean([roc_auc_score(labels == c, probabilities[:, c]) for c in present]))


def bootstrap(labels: np.ndarray, measure: object, draws: int = 1000) -> tuple[float, float]:
    """95 % interval of a measure of chosen cases; draws that miss a class are left out."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        chosen = rng.integers(0, len(labels), len(labels))
        if len(np.unique(labels[chosen])) == len(np.unique(labels)):
            found.append(measure(chosen))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def score_measures(
    labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]
) -> dict[str, float]:
    """Measures of the scores over cases."""
    predicted = probabilities.argmax(axis=1)
    low, high = bootstrap(labels, lambda chosen: macro_auc(labels[chosen], probabilities[chosen]))
    found = {
        "macro AUC": macro_auc(labels, probabilities),
        "macro AUC, 95 % from": low,
        "macro AUC, 95 % to": high,
    }
    for number, name in enumerate(classes):
        if 0 < (labels == number).sum() < len(labels):
            found[f"AUC {name}"] = float(roc_auc_score(labels == number, probabilities[:, number]))
    found["accuracy"] = float(accuracy_score(labels, predicted))
    found["macro F1"] = float(f1_score(labels, predicted, average="macro"))
    found["quadratic kappa"] = float(cohen_kappa_score(labels, predicted, weights="quadratic"))
    return found


def tile_auc(tumour: list[np.ndarray], values: list[np.ndarray]) -> tuple[float, float, float]:
    """ROC AUC of tile values against tumour: all tiles pooled, mean over slides, and the lowest slide.

    Each slide's values are divided by their own spread before pooling, since scales differ from slide to
    slide.
    """
    usable = [
        (truth, value) for truth, value in zip(tumour, values, strict=True) if 0 < truth.sum() < len(truth)
    ]
    each = [roc_auc_score(truth, value) for truth, value in usable]
    scaled = np.concatenate([value / (np.std(value) + 1e-12) for _, value in usable])
    pooled = roc_auc_score(np.concatenate([truth for truth, _ in usable]), scaled)
    return float(pooled), float(np.mean(each)), float(np.min(each))
