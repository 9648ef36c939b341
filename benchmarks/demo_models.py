"""How well a demonstration model does on phantom cases it never saw: its scores, and its maps.

Makes (once, in a cached folder) a cohort from a seed that no training used, its slides in turn at 0.5 and
0.25 µm/px, scores each H&E slide by
``score_slide`` and compares with the phantom's truth. Prints a markdown table and, with --json, a file.

    python benchmarks/demo_models.py

Measured: macro one-vs-rest ROC AUC of the four scores over slides, with a 95 % bootstrap interval over
slides; ROC AUC of the class-evidence map, and of the attention map, against the tumour truth per tile (a
tile is tumour from half of its area inside the tumour's outline), all tiles of all slides pooled and as the
mean over slides. The evidence is that of the PREDICTED class, which is what a user sees; that of the true
class is given for comparison. Pooled evidence is divided by each slide's own spread first, since its
scale differs from slide to slide.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
from sklearn.metrics import accuracy_score, cohen_kappa_score, roc_auc_score

from napari_her2.inference.scoring import score_slide
from napari_her2.models.registry import load_model
from napari_her2.phantom import cohort_steps
from napari_her2_training.patches import tumour_share

UNSEEN_SEED = 5005
SCANNERS_MPP = (0.5, 0.25)


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One slide: what the model said, and what is true."""

    case_id: str
    mpp: float
    truth: str
    predicted: str
    probabilities: np.ndarray
    tumour: np.ndarray
    predicted_evidence: np.ndarray
    true_evidence: np.ndarray
    attention: np.ndarray
    seconds: float


def make_cohort(folder: Path, cases: int, seed: int, size_px: int) -> Path:
    steps = cohort_steps(folder, cases=cases, seed=seed, size_px=size_px, mpp=SCANNERS_MPP)
    while True:
        try:
            done, total = next(steps)
        except StopIteration as end:
            return end.value
        print(f"\rphantom cases: {done} of {total}", end="" if done < total else "\n", flush=True)


def score_case(folder: Path, row: dict[str, str], model: object) -> Scored:
    start = time.perf_counter()
    result = score_slide(folder / row["he"], model)
    seconds = time.perf_counter() - start
    share = tumour_share(folder / f"{row['case_id']}_tumour.geojson", result.grid)
    index = result.table.index
    evidence = result.table.evidence
    return Scored(
        case_id=row["case_id"],
        mpp=result.grid.slide_mpp[0],
        truth=row["score"],
        predicted=result.score,
        probabilities=np.array([result.probabilities[name] for name in result.classes]),
        tumour=share[index[:, 0], index[:, 1]] >= 0.5,
        predicted_evidence=evidence[:, result.classes.index(result.score)],
        true_evidence=evidence[:, result.classes.index(row["score"])],
        attention=result.table.attention,
        seconds=seconds,
    )


def macro_auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    present = [c for c in range(probabilities.shape[1]) if 0 < (labels == c).sum() < len(labels)]
    return float(np.mean([roc_auc_score(labels == c, probabilities[:, c]) for c in present]))


def interval(labels: np.ndarray, probabilities: np.ndarray, draws: int = 1000) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        chosen = rng.integers(0, len(labels), len(labels))
        if len(np.unique(labels[chosen])) == len(np.unique(labels)):
            found.append(macro_auc(labels[chosen], probabilities[chosen]))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def map_auc(scored: list[Scored], what: str) -> tuple[float, float, float]:
    """AUC over all tiles pooled, mean over slides, and the lowest slide."""
    usable = [slide for slide in scored if 0 < slide.tumour.sum() < len(slide.tumour)]
    values = [getattr(slide, what) for slide in usable]
    each = [roc_auc_score(slide.tumour, value) for slide, value in zip(usable, values, strict=True)]
    scaled = np.concatenate([value / (np.std(value) + 1e-12) for value in values])
    pooled = roc_auc_score(np.concatenate([slide.tumour for slide in usable]), scaled)
    return float(pooled), float(np.mean(each)), float(np.min(each))


def summary(scored: list[Scored], classes: tuple[str, ...]) -> dict[str, float]:
    labels = np.array([classes.index(slide.truth) for slide in scored])
    probabilities = np.stack([slide.probabilities for slide in scored])
    predicted = probabilities.argmax(axis=1)
    low, high = interval(labels, probabilities)
    found = {
        "slides": float(len(scored)),
        "tiles": float(sum(len(slide.tumour) for slide in scored)),
        "macro AUC": macro_auc(labels, probabilities),
        "macro AUC, 95 % from": low,
        "macro AUC, 95 % to": high,
    }
    for number, name in enumerate(classes):
        if 0 < (labels == number).sum() < len(labels):
            found[f"AUC {name}"] = float(roc_auc_score(labels == number, probabilities[:, number]))
    found["accuracy"] = float(accuracy_score(labels, predicted))
    scanners = np.array([slide.mpp for slide in scored])
    for mpp in np.unique(scanners):
        own = scanners == mpp
        found[f"macro AUC at {mpp:g} µm/px"] = macro_auc(labels[own], probabilities[own])
        found[f"accuracy at {mpp:g} µm/px"] = float(accuracy_score(labels[own], predicted[own]))
    found["quadratic kappa"] = float(cohen_kappa_score(labels, predicted, weights="quadratic"))
    for words, what in (
        ("evidence of the predicted class", "predicted_evidence"),
        ("evidence of the true class", "true_evidence"),
        ("attention", "attention"),
    ):
        pooled, mean, lowest = map_auc(scored, what)
        found[f"tumour AUROC, {words}, pooled"] = pooled
        found[f"tumour AUROC, {words}, mean over slides"] = mean
        found[f"tumour AUROC, {words}, lowest slide"] = lowest
    found["median seconds a slide"] = float(np.median([slide.seconds for slide in scored]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo-attention-mil", help="name or path of a bundle")
    parser.add_argument("--cases", type=int, default=80)
    parser.add_argument("--seed", type=int, default=UNSEEN_SEED)
    parser.add_argument("--size", type=int, default=3072, help="side of a slide, pixels")
    parser.add_argument("--folder", type=Path, help="of the cohort; by default in the user's cache")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    cache = platformdirs.user_cache_path("napari-her2") / "benchmarks"
    folder = options.folder or cache / f"unseen-{options.cases}-{options.seed}-{options.size}"
    manifest = make_cohort(folder, options.cases, options.seed, options.size)
    model = load_model(options.model)
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scored = []
    for row in rows:
        scored.append(score_case(folder, row, model))
        last = scored[-1]
        print(
            f"{last.case_id}: {last.truth} scored {last.predicted} ({last.probabilities.max():.2f})",
            flush=True,
        )
    found = summary(scored, model.card.classes)
    print(f"\n{model.card.name} {model.card.version}, {model.sha256[:12]}, cohort seed {options.seed}\n")
    print("| measure | value |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:,.0f} |" if name in ("slides", "tiles") else f"| {name} | {value:.3f} |")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
