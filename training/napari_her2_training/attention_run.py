"""The whole way from a manifest to an attention-MIL bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2.inference.device import choose_device
from napari_her2.models.bundle import SUFFIX
from napari_her2_training.attention_mil import (
    AttentionMILTraining,
    new_head,
    slide_probabilities,
    train_head,
)
from napari_her2_training.bags import check_sizes
from napari_her2_training.cards import ModelFacts, make_card, save_checked, split_sizes
from napari_her2_training.embedding import embed_cases
from napari_her2_training.encoder import OF_MODEL, as_stored, make_encoder
from napari_her2_training.manifest import class_names, make_splits, read_manifest
from napari_her2_training.metrics import confusion, slide_metrics
from napari_her2_training.patches import gather_patches
from napari_her2_training.pretraining import PatchClassifier, prepared_encoder, pretrain, start_well
from napari_her2_training.runs import METRICS_FILE, open_run, write_json
from napari_her2_training.steps import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from napari_her2.inference.device import Device
    from napari_her2.inference.result import Progress
    from napari_her2.models.attention_mil import AttentionMIL
    from napari_her2.models.encoders import PatchEncoder
    from napari_her2_training.attention_config import AttentionConfig
    from napari_her2_training.bags import SlideBag
    from napari_her2_training.manifest import Case, Split
    from napari_her2_training.runs import RunFolder


@dataclass(frozen=True, slots=True, eq=False)
class _Fold:
    number: int
    split: Split
    encoder: PatchEncoder
    head: AttentionMIL
    measured: dict[str, dict[str, float]]
    """"train", "validation", "test" to their metrics."""
    tables: dict[str, list[list[int]]]

    @property
    def judged(self) -> str:
        return "test" if "test" in self.measured else "validation"


def train_attention_mil(
    config: AttentionConfig, data: Path, out: Path, *, resume: bool
) -> Generator[Progress, None, Path]:
    """Train attention MIL from a manifest.

    Parameters
    ----------
    config : AttentionConfig
    data : Path
        The manifest.
    out : Path
        Folder of the run.
    resume : bool

    Yields
    ------
    Progress

    Returns
    -------
    Path
        The bundle of the best fold.
    """
    splits = make_splits(read_manifest(data), config.data)
    device = choose_device(config.compute.device)
    run = open_run(out, config, data, resume=resume)
    folds: list[_Fold] = []
    for number, split in enumerate(splits):
        fold = yield from _train_fold(number, split, config, data.parent, device, run)
        folds.append(fold)
        if len(splits) > 1:
            _write_bundle(out / f"{config.model.name}-fold{number}{SUFFIX}", fold, config)
    # By validation alone: what the test cases say must not choose what is tested.
    best = max(folds, key=lambda fold: fold.measured["validation"].get("macro AUC", 0.0))
    path = out / f"{config.model.name}{SUFFIX}"
    _write_bundle(path, best, config)
    write_json(
        out / METRICS_FILE,
        {
            "model": path.name,
            "fold": best.number,
            "device": device.name,
            "folds": [
                {
                    "cases": {part: len(getattr(fold.split, part)) for part in fold.measured},
                    "metrics": fold.measured,
                    "confusion": fold.tables,
                }
                for fold in folds
            ],
        },
    )
    return path


def _train_fold(
    number: int, split: Split, config: AttentionConfig, folder: Path, device: Device, run: RunFolder
) -> Generator[Progress, None, _Fold]:
    encoder = yield from _make_encoder(number, split, config, folder, device, run)
    bags: dict[str, tuple[SlideBag, ...]] = {}
    for part in ("train", "validation", "test"):
        cases = getattr(split, part)
        if cases:
            stage = f"Embedding the {part} slides"
            bags[part] = yield from embed_cases(
                cases, encoder, config.data, device, stage=stage, regions=_regions(config, folder)
            )
    check_sizes([*bags["train"], *bags["validation"]], config.bags.size)
    classes = class_names(config.data.classes)
    head = new_head(encoder.spec.dim, config.head.hidden, len(classes), config.compute.seed)
    module = AttentionMILTraining(
        head, bags["train"], bags["validation"], config.head, config.bags, seed=config.compute.seed
    )
    head = yield from in_thread(
        lambda report: train_head(module, run.step(number, "head"), device, report, resume=run.resume)
    )
    measured, tables = {}, {}
    for part, slides in bags.items():
        labels = np.array([bag.label for bag in slides])
        probabilities = slide_probabilities(head, slides)
        measured[part] = slide_metrics(labels, probabilities, classes)
        tables[part] = confusion(labels, probabilities)
    return _Fold(number, split, encoder, head, measured, tables)


def _regions(config: AttentionConfig, folder: Path) -> Callable[[Case], Path] | None:
    pattern = config.pretraining.regions
    if not pattern or not config.head.guidance:
        return None
    return lambda case: folder / pattern.format(case_id=case.case_id)


def _make_encoder(
    number: int, split: Split, config: AttentionConfig, folder: Path, device: Device, run: RunFolder
) -> Generator[Progress, None, PatchEncoder]:
    encoder = make_encoder(config.encoder, config.data.tile_px, config.compute.seed)
    if not config.pretraining.epochs:
        return encoder if config.encoder.name.startswith(OF_MODEL) else as_stored(encoder)
    if config.encoder.weights == "random" and not config.encoder.name.startswith(OF_MODEL):
        start_well(encoder, config.compute.seed)
    learn, check = split.train, split.validation
    many = config.pretraining.patches_per_slide
    seed = config.compute.seed
    train = yield from gather_patches(
        learn, config, folder, per_slide=many, seed=seed, stage="Cutting patches to learn from"
    )
    validation = yield from gather_patches(
        check, config, folder, per_slide=min(many, 100), seed=seed + 1, stage="Cutting patches to check with"
    )
    classes = len(class_names(config.data.classes)) + bool(config.pretraining.regions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = PatchClassifier(
            prepared_encoder(encoder, train),
            train,
            validation,
            config.pretraining,
            classes=classes,
            seed=seed,
        )
    return (
        yield from in_thread(
            lambda report: pretrain(module, run.step(number, "encoder"), device, report, resume=run.resume)
        )
    )


def _write_bundle(path: Path, fold: _Fold, config: AttentionConfig) -> None:
    sizes = split_sizes(fold.split, "slides")
    if config.head.guidance and config.pretraining.regions:
        sizes += "; attention and votes guided by the known tumour outlines"
    metrics = {
        f"{part} slides: {name}": round(value, 4)
        for part in ("validation", "test")
        for name, value in fold.measured.get(part, {}).items()
    }
    head = fold.head
    facts = ModelFacts(
        method="attention-mil",
        architecture="AttentionMIL",
        arguments={"features": head.features, "hidden": head.hidden, "classes": head.classes},
        encoder=fold.encoder.spec,
        stain="H&E",
        tile_px=config.data.tile_px,
        mpp=config.data.mpp,
    )
    card = make_card(config.model, config.data.mapping, facts, sizes=sizes, metrics=metrics)
    save_checked(path, card, fold.encoder, head)
