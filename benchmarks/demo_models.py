"""How well the demonstration models do on phantom cases they never saw: their scores, and their maps.

Makes (once, in a cached folder) a cohort from a seed that no training used, its slides in turn at 0.5 and
0.25 µm/px, scores each case by ``score_slide`` and compares with the phantom's truth. Prints a markdown
table a model and, with --json, a file.

    python benchmarks/demo_models.py                    all of them
    python benchmarks/demo_models.py demo-wsmcl run/ablations/*/*.safetensors

Measured: macro one-vs-rest ROC AUC of the four scores over cases, with a 95 % bootstrap interval over
cases, accuracy, macro F1, quadratic kappa. Of a model with evidence: ROC AUC of the evidence map of the
PREDICTED class, which is what a user sees, of that of the true class and of attention against the tumour
truth per tile (a tile is tumour from half of its area inside the outline). Of a model for both slides of a
case: the same scores by both slides together, by the H&E slide alone and by the IHC slide alone, and the
difference between both and the better one alone with its interval (cases drawn anew for both at once). Of
a model that scores fields: the slides it answers, its fields that hold tumour against the score of their
case, and with --run, the folder that its training left, all arms of that run on fields of the same cohort
(see corr_a_net_arms.py): against H&E alone, attention against none, the drop in accuracy. Of a model of low
resolution, on the IHC slides: 0, Low and High with the recall of each, of the four scores behind them, and
how well it tells the neighbours among these apart.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import roc_auc_score

from corr_a_net_arms import print_arms
from napari_her2.methods.scoring import score_slide
from napari_her2.models.card import PAIR
from napari_her2.models.field_model import FieldModel
from napari_her2.models.low_resolution import LowResolution
from napari_her2.models.registry import load_model
from napari_her2_training.cohort.outlines import tumour_share
from napari_her2_training.corr_a_net.confidence_metrics import measure_predictor
from unseen import UNSEEN_SEED, Case, bootstrap, macro_auc, score_measures, tile_auc, unseen_cases

if TYPE_CHECKING:
    from napari_her2.inference.result import SlideResult
    from napari_her2.models.bundle import ModelBundle

MODELS = ("demo-attention-mil", "demo-wsmcl", "demo-corr-a-net", "demo-low-resolution")
FIELD_SLIDE_PX = 6144
"""Side of the slides for a model of large fields: at 0.25 µm/px the others hold a single one."""
AIMS = {"demo-low-resolution": 0.95}
"""Macro AUC that a model was made for: the benchmark ends with an error below it."""
COUNTS = ("cases", "tiles", "fields with tumour")
LEAST_TUMOUR = 0.1
"""Of a field that counts, as in the training of demo-corr-a-net."""


def tumour_tiles(case: Case, result: SlideResult) -> np.ndarray:
    share = tumour_share(case.outlines, result.grid)
    return share[tuple(result.table.index.T)] >= 0.5


def chances(result: SlideResult, head: str = "") -> np.ndarray:
    shares = result.heads[head] if head else result.probabilities
    return np.array([shares[name] for name in result.classes])


def score_all(model: ModelBundle, cases: list[Case]) -> tuple[list[SlideResult], list[float]]:
    results, seconds = [], []
    for case in cases:
        start = time.perf_counter()
        slide = case.ihc if model.card.stain == "IHC" else case.he
        results.append(score_slide(slide, model, case.ihc if model.card.stain == PAIR else None))
        seconds.append(time.perf_counter() - start)
        last = results[-1]
        print(f"{case.case_id}: {case.truth} scored {last.score} ({last.confidence:.2f})", flush=True)
    return results, seconds


def measure_single(results: list[SlideResult], cases: list[Case]) -> dict[str, float]:
    """Measures of a model of one slide."""
    classes = results[0].classes
    labels = np.array([classes.index(case.truth) for case in cases])
    probabilities = np.stack([chances(result) for result in results])
    found = score_measures(labels, probabilities, classes)
    scanners = np.array([result.grid.slide_mpp[0] for result in results])
    for mpp in np.unique(scanners):
        own = scanners == mpp
        found[f"macro AUC at {mpp:g} µm/px"] = macro_auc(labels[own], probabilities[own])
        found[f"accuracy at {mpp:g} µm/px"] = float((labels[own] == probabilities[own].argmax(1)).mean())
    tumour = [tumour_tiles(case, result) for case, result in zip(cases, results, strict=True)]
    both = list(zip(cases, results, strict=True))
    for words, values in (
        ("evidence of the predicted class", [r.table.evidence[:, classes.index(r.score)] for r in results]),
        ("evidence of the true class", [r.table.evidence[:, classes.index(c.truth)] for c, r in both]),
        ("attention", [r.table.attention for r in results]),
    ):
        pooled, mean, lowest = tile_auc(tumour, values)
        found[f"tumour AUROC, {words}, pooled"] = pooled
        found[f"tumour AUROC, {words}, mean over slides"] = mean
        found[f"tumour AUROC, {words}, lowest slide"] = lowest
    return found


def measure_pair(results: list[SlideResult], cases: list[Case]) -> dict[str, float]:
    """Measures of a model of both slides: by each head."""
    classes = results[0].classes
    labels = np.array([classes.index(case.truth) for case in cases])
    heads = {head: np.stack([chances(result, head) for result in results]) for head in results[0].heads}
    found = {}
    for head, probabilities in heads.items():
        words = "both slides" if head == "fusion" else f"{head} alone"
        for name, value in score_measures(labels, probabilities, classes).items():
            found[f"{words}: {name}"] = value

    def gain(chosen: np.ndarray) -> float:
        aucs = {head: macro_auc(labels[chosen], values[chosen]) for head, values in heads.items()}
        return aucs.pop("fusion") - max(aucs.values())

    found["both slides, macro AUC above the better one alone"] = gain(np.arange(len(labels)))
    low, high = bootstrap(labels, gain)
    found["  of it, 95 % from"], found["  of it, 95 % to"] = low, high
    found["cases in which the two slides agree"] = float(np.mean([result.agree for result in results]))
    agree = np.array([result.agree for result in results])
    right = labels == heads["fusion"].argmax(axis=1)
    for words, chosen in (("agree", agree), ("disagree", ~agree)):
        if chosen.any():
            found[f"accuracy of both slides where they {words}"] = float(right[chosen].mean())
    tumour = [tumour_tiles(case, result) for case, result in zip(cases, results, strict=True)]
    _, mean, lowest = tile_auc(tumour, [result.table.attention for result in results])
    found["tumour AUROC, attention on H&E, mean over slides"] = mean
    found["tumour AUROC, attention on H&E, lowest slide"] = lowest
    return found


def measure_fields(results: list[SlideResult], cases: list[Case]) -> dict[str, float]:
    """Measures of a model that scores fields: of slides, of those it answers, and of single fields."""
    classes = results[0].classes
    labels = np.array([classes.index(case.truth) for case in cases])
    probabilities = np.stack([chances(result) for result in results])
    found = {
        f"slides: {name}": value for name, value in score_measures(labels, probabilities, classes).items()
    }
    answered = np.array([not result.abstained for result in results])
    found["share of slides that are answered"] = float(answered.mean())
    if answered.any():
        right = labels == probabilities.argmax(axis=1)
        found["accuracy of the slides that are answered"] = float(right[answered].mean())
    tumour = [
        tumour_share(case.outlines, result.grid)[tuple(result.table.index.T)] >= LEAST_TUMOUR
        for case, result in zip(cases, results, strict=True)
    ]
    kept = [(result.table, chosen) for result, chosen in zip(results, tumour, strict=True)]
    of_field = np.concatenate(
        [np.full(chosen.sum(), label) for label, chosen in zip(labels, tumour, strict=True)]
    )
    measured = measure_predictor(
        of_field,
        np.concatenate([table.probabilities[chosen] for table, chosen in kept]).astype(np.float64),
        np.concatenate([table.confidence[chosen] for table, chosen in kept]).astype(np.float64),
    )
    found |= {
        "fields with tumour": float(len(of_field)),
        "fields: balanced accuracy": measured.balanced_accuracy,
        "fields: macro AUC": measured.auc,
        "fields: mean effective confidence": measured.mec.signed,
    }
    for stratum in measured.strata:
        found[f"fields of {stratum.name} confidence: share"] = stratum.share
        found[f"fields of {stratum.name} confidence: accuracy"] = stratum.accuracy
    return found


JOINED = {"0": "0", "1+": "Low", "2+": "Low", "3+": "High"}


def measure_low_resolution(results: list[SlideResult], cases: list[Case]) -> dict[str, float]:
    """Measures of a model of 0, Low and High, and which of the four scores it is weak at."""
    classes = results[0].classes
    truth = np.array([case.truth for case in cases])
    labels = np.array([classes.index(JOINED[name]) for name in truth])
    probabilities = np.stack([chances(result) for result in results])
    predicted = probabilities.argmax(axis=1)
    found = score_measures(labels, probabilities, classes)
    for number, name in enumerate(classes):
        found[f"recall {name}"] = float((predicted == number)[labels == number].mean())
    for name in JOINED:
        found[f"recall of cases of {name}"] = float((predicted == labels)[truth == name].mean())
    for low, high, name in (("0", "1+", "0"), ("2+", "3+", "High")):
        of_both = np.isin(truth, (low, high))
        of_class = probabilities[of_both, classes.index(name)]
        found[f"AUC {low} against {high}"] = float(
            roc_auc_score(labels[of_both] == classes.index(name), of_class)
        )
    found["share of slides that are answered"] = float(np.mean([not result.abstained for result in results]))
    found["median µm/px of the image"] = float(np.median([r.slides[0].thumbnails[0].mpp for r in results]))
    return found


MEASURES = {FieldModel: measure_fields, LowResolution: measure_low_resolution}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, help="names or files of bundles")
    parser.add_argument("--cases", type=int, default=80)
    parser.add_argument("--seed", type=int, default=UNSEEN_SEED)
    parser.add_argument("--size", type=int, help="side of a slide, pixels; 3072, for models of fields 6144")
    parser.add_argument("--run", type=Path, help="of corr-a-net-table: measures its arms too")
    parser.add_argument("--folder", type=Path, help="of the cohort; by default in the user's cache")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    printed, missed = {}, []
    for name in options.models:
        model = load_model(name)
        of_fields = isinstance(model.head, FieldModel)
        size = options.size or (FIELD_SLIDE_PX if of_fields else 3072)
        cases = unseen_cases(options.folder, options.cases, options.seed, size)
        results, seconds = score_all(model, cases)
        of_slides = measure_pair if model.card.stain == PAIR else measure_single
        measure = MEASURES.get(type(model.head), of_slides)
        found = {
            "cases": float(len(cases)),
            "tiles": float(sum(len(slide.table) for result in results for slide in result.slides)),
            **measure(results, cases),
            "median seconds a case": float(np.median(seconds)),
        }
        printed[name] = found
        print(f"\n{name}: {model.card.name} {model.card.version}, {model.sha256[:12]}, seed {options.seed}\n")
        print("| measure | value |\n|---|---|")
        for what, value in found.items():
            print(f"| {what} | {value:,.0f} |" if what in COUNTS else f"| {what} | {value:.3f} |")
        if of_fields and options.run:
            print_arms(options.run, cases)
        aim = AIMS.get(model.card.name)
        if aim is not None and found["macro AUC"] < aim:
            missed.append(f"{model.card.name} has {found['macro AUC']:.3f}, not {aim}")
    if options.json:
        options.json.write_text(json.dumps(printed, indent=1, ensure_ascii=False), encoding="utf-8")
    if missed:
        raise SystemExit(f"Macro AUC below its aim: {'; '.join(missed)}.")


if __name__ == "__main__":
    main()
