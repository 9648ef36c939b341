"""The whole way from a manifest to a WSMCL bundle, and to a table of ablations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import JobFailed
from napari_her2.inference.device import choose_device
from napari_her2.inference.result import Progress
from napari_her2.models.bundle import SUFFIX
from napari_her2.models.card import PAIR
from napari_her2.models.weights_file import write_weights
from napari_her2_training.ablations import summary, write_table
from napari_her2_training.cards import ModelFacts, make_card, save_checked, split_sizes
from napari_her2_training.manifest import SPLITS, class_names, label_of, make_splits, read_manifest
from napari_her2_training.metrics import confusion, slide_metrics
from napari_her2_training.paired_slides import from_files, read_cohort
from napari_her2_training.pairs import PairDraw, check_pairs, judged_pairs
from napari_her2_training.runs import METRICS_FILE, open_run, write_json
from napari_her2_training.steps import in_thread
from napari_her2_training.wsmcl import (
    WSMCLTraining,
    new_model,
    pair_probabilities,
    slide_probabilities,
    train_model,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.models.card import ModelCard
    from napari_her2.models.encoders import PatchEncoder
    from napari_her2.models.wsmcl import WSMCL
    from napari_her2_training.ablations import Measured, Summary
    from napari_her2_training.manifest import Case, Split
    from napari_her2_training.paired_slides import Cohort
    from napari_her2_training.pairs import PairedSlides
    from napari_her2_training.runs import RunFolder
    from napari_her2_training.wsmcl_config import WSMCLConfig

HEADS: Mapping[str, str] = {"fusion": "H&E and IHC", "H&E": "H&E alone", "IHC": "IHC alone"}
"""The heads, and what each one looks at."""
ON_CARD = ("macro AUC", "accuracy", "macro F1")
VARIANTS = "ablations"
BASE = "base"


@dataclass(frozen=True, slots=True, eq=False)
class _Fold:
    number: int
    split: Split
    model: WSMCL
    measured: Measured
    tables: dict[str, dict[str, list[list[int]]]]

    @property
    def rank(self) -> float:
        """By validation alone: what the test cases say must not choose what is tested."""
        return self.measured["validation"]["fusion"].get("macro AUC", 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """What all variants share."""

    splits: tuple[Split, ...]
    cohort: Cohort
    device: Device


def train_wsmcl(
    config: WSMCLConfig, data: Path, out: Path, *, resume: bool
) -> Generator[Progress, None, Path]:
    """Train WSMCL from a manifest, and its variants after it.

    Parameters
    ----------
    config : WSMCLConfig
    data : Path
        The manifest.
    out : Path
        Folder of the run; that of a variant lies in ``out/ablations``.
    resume : bool
        Variants that are finished are not trained again.

    Yields
    ------
    Progress

    Returns
    -------
    Path
        The bundle of the best fold; where slides cannot be scored with it, the weights of its head.
    """
    cases, splits = _read(config, data)
    device = choose_device(config.compute.device)
    run = open_run(out, config, data, resume=resume)
    work = _Work(splits, (yield from read_cohort(cases, config, device)), device)
    folds = yield from _train(config, work, run, "")
    best = max(folds, key=lambda fold: fold.rank)
    why = _no_bundle(config, work.cohort)
    if why:
        yield Progress("Saving the head alone", note=why)
    for fold in folds if len(folds) > 1 else ():
        _save(out, f"{config.model.name}-fold{fold.number}", fold, config, work.cohort.encoder, why)
    path = _save(out, config.model.name, best, config, work.cohort.encoder, why)
    told = _told(folds, device) | {"model": path.name, "fold": best.number, "bundle": why or "written"}
    write_json(out / METRICS_FILE, told)
    if config.variants:
        rows: dict[str, Summary] = {BASE: summary([fold.measured for fold in folds])}
        for variant in config.variants:
            rows[variant.name] = yield from _train_variant(variant.name, variant.config, work, data, run)
        write_table(out / f"{VARIANTS}.csv", rows)
        write_json(out / METRICS_FILE, told | {VARIANTS: rows})
    return path


def _read(config: WSMCLConfig, data: Path) -> tuple[tuple[Case, ...], tuple[Split, ...]]:
    """Read the manifest and find what would stop the training later."""
    modes = {config.pairs.mode, *(variant.config.pairs.mode for variant in config.variants)}
    cases = read_manifest(data, ("he", "ihc") if "same-case" in modes else ())
    splits = make_splits(cases, config.data)
    for split in splits:
        for part in SPLITS:
            for mode in modes:
                check_pairs(getattr(split, part), part, mode, config.data.classes)
        if len({label_of(case, config.data.classes) for case in split.validation}) < 2:
            raise JobFailed(
                "The validation cases are all of one class, which cannot tell the best epoch: add cases, or "
                "change the split."
            )
    from_files(cases, "he")
    from_files(cases, "ihc")
    return cases, splits


def _train_variant(
    name: str, config: WSMCLConfig, work: _Work, data: Path, run: RunFolder
) -> Generator[Progress, None, Summary]:
    folder = run.path / VARIANTS / name
    own = open_run(folder, config, data, resume=run.resume)
    finished = folder / METRICS_FILE
    if finished.exists():
        known: Summary = json.loads(finished.read_text(encoding="utf-8"))["summary"]
        yield Progress(f"Training {name}", note="finished before")
        return known
    folds = yield from _train(config, work, own, f" ({name})")
    best = max(folds, key=lambda fold: fold.rank)
    _save(folder, config.model.name, best, config, work.cohort.encoder, _no_bundle(config, work.cohort))
    write_json(finished, _told(folds, work.device))
    return summary([fold.measured for fold in folds])


def _train(
    config: WSMCLConfig, work: _Work, run: RunFolder, suffix: str
) -> Generator[Progress, None, list[_Fold]]:
    folds = []
    for number, split in enumerate(work.splits):
        of_fold = f", fold {number + 1} of {len(work.splits)}" if len(work.splits) > 1 else ""
        fold = yield from _train_fold(number, split, config, work, run, f"Training WSMCL{suffix}{of_fold}")
        folds.append(fold)
    return folds


def _train_fold(
    number: int, split: Split, config: WSMCLConfig, work: _Work, run: RunFolder, stage: str
) -> Generator[Progress, None, _Fold]:
    names = class_names(config.data.classes)
    seed = config.compute.seed
    slides = {part: work.cohort.of(cases) for part in SPLITS if (cases := getattr(split, part))}
    model = new_model(
        config.head,
        he_features=work.cohort.width("he"),
        ihc_features=work.cohort.width("ihc"),
        classes=len(names),
        seed=seed,
    )
    draw = PairDraw(slides["train"], config.pairs, classes=len(names), seed=seed)
    pairs = judged_pairs(slides["validation"], config.pairs.mode, seed)
    module = WSMCLTraining(model, draw, pairs, config.head, config.loss, seed=seed)
    model = yield from in_thread(
        lambda report: train_model(
            module,
            run.step(number, "head"),
            work.device,
            report,
            stage=stage,
            accumulate=config.pairs.accumulate,
            resume=run.resume,
        )
    )
    measured: Measured = {}
    tables: dict[str, dict[str, list[list[int]]]] = {}
    for part, of_part in slides.items():
        yield Progress("Measuring", unit="slides", note=f"{part} cases")
        measured[part], tables[part] = {}, {}
        for head, (labels, probabilities) in _judge(model, of_part, config, seed).items():
            measured[part][head] = slide_metrics(labels, probabilities, names)
            tables[part][head] = confusion(labels, probabilities)
    return _Fold(number, split, model, measured, tables)


def _judge(
    model: WSMCL, slides: PairedSlides, config: WSMCLConfig, seed: int
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Labels and probabilities by each head, of the pairs and of the slides alone."""
    found = {}
    pairs = judged_pairs(slides, config.pairs.mode, seed)
    if pairs:
        found["fusion"] = np.array([pair.label for pair in pairs]), pair_probabilities(model, pairs)
    for head, bags in (("H&E", slides.of("he")), ("IHC", slides.of("ihc"))):
        if bags:
            probabilities = slide_probabilities(model, bags, "he" if head == "H&E" else "ihc")
            found[head] = np.array([bag.label for bag in bags]), probabilities
    return found


def _told(folds: Sequence[_Fold], device: Device) -> dict[str, object]:
    return {
        "device": device.name,
        "folds": [
            {
                "cases": {part: len(getattr(fold.split, part)) for part in fold.measured},
                "metrics": fold.measured,
                "confusion": fold.tables,
            }
            for fold in folds
        ],
        "summary": summary([fold.measured for fold in folds]),
    }


def _no_bundle(config: WSMCLConfig, cohort: Cohort) -> str:
    """Why slides cannot be scored with the model, empty where they can."""
    if cohort.encoder is None:
        return (
            "The features come from files, and which encoder made them is not known here: the weights of "
            "the head are saved, but no model that scores slides."
        )
    if config.head.attention != "auto":
        return (
            f"[head] attention is {config.head.attention!r}, and scoring knows 'auto' alone: the weights of "
            f"the head are saved, but no model that scores slides."
        )
    return ""


def _save(
    out: Path, name: str, fold: _Fold, config: WSMCLConfig, encoder: PatchEncoder | None, why: str
) -> Path:
    arguments = {
        "he_features": fold.model.he.features,
        "ihc_features": fold.model.ihc.features,
        "width": config.head.width,
        "heads": config.head.heads,
        "landmarks": config.head.landmarks,
        "classes": fold.model.classes,
        "k": config.head.k,
    }
    if why or encoder is None:
        path = out / f"{name}.head{SUFFIX}"
        told = {"method": "wsmcl", "arguments": json.dumps(arguments), "attention": config.head.attention}
        write_weights(path, fold.model.state_dict(), told)
        return path
    path = out / f"{name}{SUFFIX}"
    save_checked(path, _card(fold, config, encoder, arguments), encoder, fold.model)
    return path


def _card(fold: _Fold, config: WSMCLConfig, encoder: PatchEncoder, arguments: Mapping[str, int]) -> ModelCard:
    sizes = split_sizes(fold.split, "cases")
    if config.pairs.mode == "same-class":
        sizes += "; slides of one class paired"
    metrics = {
        f"{part} cases, {HEADS[head]}: {name}": round(values[name], 4)
        for part in SPLITS[1:]
        for head, values in fold.measured.get(part, {}).items()
        for name in ON_CARD
        if name in values
    }
    facts = ModelFacts(
        method="wsmcl",
        architecture="WSMCL",
        arguments=arguments,
        encoder=encoder.spec,
        stain=PAIR,
        tile_px=config.data.tile_px,
        mpp=config.data.mpp,
    )
    return make_card(config.model, config.data.mapping, facts, sizes=sizes, metrics=metrics)
