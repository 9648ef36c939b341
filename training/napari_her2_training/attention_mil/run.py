"""The whole way from a manifest to an attention-MIL bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_her2_training.attention_mil.patches import gather_patches
from napari_her2_training.attention_mil.training import (
    STAGE,
    AttentionMILTask,
    new_head,
)
from napari_her2_training.cohort.bags import check_sizes, precision_of, predict_bags
from napari_her2_training.cohort.embedding import embed_cases
from napari_her2_training.cohort.manifest import SPLITS, class_names
from napari_her2_training.encoder.make import OF_MODEL, frozen_encoder, make_encoder
from napari_her2_training.encoder.pretraining import STAGE as PRETRAINING
from napari_her2_training.encoder.pretraining import PatchTask, prepared_encoder, start_well
from napari_her2_training.running.arm import TrainedFold, open_arm, run_arm
from napari_her2_training.running.cards import ModelFacts
from napari_her2_training.running.fitting import fit_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from napari_her2.inference.result import Progress
    from napari_her2.models.encoders import PatchEncoder
    from napari_her2_training.attention_mil.config import AttentionConfig
    from napari_her2_training.cohort.bags import SlideBag
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.running.arm import ArmRun


def train_attention_mil(
    config: AttentionConfig, data: Path, out: Path, *, resume: bool
) -> Generator[Progress, None, Path]:
    """Train attention MIL from a manifest; see `napari_her2_training.run`.

    Returns
    -------
    Path
        The bundle of the best fold.
    """
    run = open_arm(config, data, out, resume=resume)
    return (yield from run_arm(run, lambda number, split: _train_fold(number, split, run)))


def _train_fold(
    number: int, split: Split, run: ArmRun[AttentionConfig]
) -> Generator[Progress, None, TrainedFold]:
    config, folder = run.config, run.data.parent
    encoder = yield from _make_encoder(number, split, run)
    bags: dict[str, tuple[SlideBag, ...]] = {}
    for part in SPLITS:
        if cases := getattr(split, part):
            bags[part] = yield from embed_cases(
                cases,
                encoder,
                config.data,
                run.device.reader,
                stage=f"Embedding the {part} slides",
                regions=_regions(config, folder),
            )
    check_sizes([*bags["train"], *bags["validation"]], config.bags.size)
    head = new_head(encoder.spec.dim, config.head.hidden, len(run.classes), config.compute.seed)
    task = AttentionMILTask(
        head, bags["train"], bags["validation"], config.head, config.bags, seed=config.compute.seed
    )
    yield from fit_steps(
        task,
        run.folder.step(number, "head"),
        run.device,
        stage=STAGE,
        resume=run.folder.resume,
    )
    facts = ModelFacts(
        method="attention-mil",
        architecture="AttentionMIL",
        arguments={"features": head.features, "hidden": head.hidden, "classes": head.classes},
        encoder=encoder.spec,
        stain="H&E",
        tile_px=config.data.tile_px,
        mpp=config.data.mpp,
        min_tissue=config.data.min_tissue,
        precision=precision_of(bag for own in bags.values() for bag in own),
    )
    guided = config.head.guidance and config.pretraining.regions
    return TrainedFold(
        head,
        encoder,
        facts,
        {"": {part: predict_bags(head, own) for part, own in bags.items()}},
        note="attention and votes guided by the known tumour outlines" if guided else "",
    )


def _regions(config: AttentionConfig, folder: Path) -> Callable[[Case], Path] | None:
    pattern = config.pretraining.regions
    if not pattern or not config.head.guidance:
        return None
    return lambda case: folder / pattern.format(case_id=case.case_id)


def _make_encoder(
    number: int, split: Split, run: ArmRun[AttentionConfig]
) -> Generator[Progress, None, PatchEncoder]:
    config, folder = run.config, run.data.parent
    if not config.pretraining.epochs:
        return frozen_encoder(config.encoder, config.data.tile_px, config.compute.seed)
    encoder = make_encoder(config.encoder, config.data.tile_px, config.compute.seed)
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
        task = PatchTask(
            prepared_encoder(encoder, train),
            train,
            validation,
            config.pretraining,
            classes=classes,
            seed=seed,
        )
    yield from fit_steps(
        task,
        run.folder.step(number, "encoder"),
        run.device,
        stage=PRETRAINING,
        resume=run.folder.resume,
    )
    return task.rounded()
