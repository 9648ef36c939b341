"""The whole way from a manifest to an attention-MIL bundle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch

from napari_her2.models.case_slides import JOINED_BAGS
from napari_her2.steps import Progress
from napari_her2_training.attention_mil.patches import gather_patches
from napari_her2_training.attention_mil.training import (
    STAGE,
    AttentionMILTask,
    new_head,
)
from napari_her2_training.cohort.bags import precision_of, predict_bags
from napari_her2_training.cohort.counting import refuse_small
from napari_her2_training.cohort.manifest import SPLITS, class_names
from napari_her2_training.cohort.outlines import check_outlines
from napari_her2_training.encoder.counting import encoder_to_learn
from napari_her2_training.encoder.embedded import EmbeddedSlides
from napari_her2_training.encoder.patches import MadeUpPatches
from napari_her2_training.encoder.pretraining import STAGE as PRETRAINING
from napari_her2_training.encoder.pretraining import PatchTask, check_scale, prepared_encoder
from napari_her2_training.findings import noted
from napari_her2_training.running.arm import on_cases, run_arm
from napari_her2_training.running.cards import ModelFacts
from napari_her2_training.running.ranks import from_first, is_first
from napari_her2_training.running.trained import TrainedFold

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from napari_her2.models.patch_encoder import PatchEncoder
    from napari_her2_training.attention_mil.config import AttentionConfig
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.cohort.table import Table
    from napari_her2_training.encoder.patches import LabelledPatches
    from napari_her2_training.findings import Findings
    from napari_her2_training.running.arm import ArmRun, Judging

GUIDED = "attention and votes guided by the known tumour outlines"
_VALIDATION_PATCHES = 100
"""Patches of a validation slide at most."""


def attention_steps(run: ArmRun[AttentionConfig]) -> Generator[Progress, None, Path]:
    """Train attention MIL to the bundle of the best fold."""
    config, findings, regions = run.config, run.findings, run.config.pretraining.regions
    slides = EmbeddedSlides(
        config.encoder,
        config.data,
        config.compute.seed,
        regions=(lambda case: run.data.parent / regions.format(case_id=case.case_id))
        if regions and config.head.guidance
        else None,
        least=config.bags.size,
        joined=config.cases.slides == JOINED_BAGS,
    )
    learns = config.pretraining.epochs > 0
    if not learns or findings is not None:
        folds = max(1, len(run.splits)) if learns else 0
        yield from slides.prepare(run.prepared, ("he",), run.device.reader, findings, folds=folds)
        with noted(findings):
            _check_sizes([case for case in run.table.used if case.row in run.table.learnt], slides)
    return (yield from run_arm(run, lambda number, split: _train_fold(number, split, run, slides)))


def _check_regions(table: Table, config: AttentionConfig, folder: Path, findings: Findings | None) -> None:
    if config.pretraining.epochs or config.head.guidance:
        pattern = config.pretraining.regions
        check_outlines(pattern, "[pretraining] regions", table.judged, folder, findings)


def _check_sizes(cases: Sequence[Case], slides: EmbeddedSlides) -> None:
    refuse_small(cases, slides.sizes(cases, "he"), slides.least)


def _train_fold(
    number: int, split: Split, run: ArmRun[AttentionConfig], slides: EmbeddedSlides
) -> Generator[Progress, None, Callable[[], Judging]]:
    config = run.config
    if config.pretraining.epochs:
        encoder = yield from _pretrained(number, split, run, slides)
        if run.findings is None:
            slides = replace(slides, made=encoder, bags={}, case_bags={})
            cases = [case for part in SPLITS for case in getattr(split, part)]
            yield from slides.prepare(cases, ("he",), run.device.reader)
            _check_sizes([*split.train, *split.validation], slides)
    bags = {part: slides.of(cases, "he") for part in SPLITS if (cases := getattr(split, part))}
    head = new_head(slides.width("he"), config.head.hidden, len(run.classes), config.compute.seed)
    task = AttentionMILTask(
        head, bags["train"], bags["validation"], config.head, config.bags, seed=config.compute.seed
    )
    yield from run.learn(task, run.step(number, "head"), STAGE, alike=config.head)

    def judge() -> Judging:
        yield Progress("Judging the slides")
        encoder, known = slides.encoder, slides.known
        facts = ModelFacts(
            method="attention-mil",
            architecture="AttentionMIL",
            arguments={"features": head.features, "hidden": head.hidden, "classes": head.classes},
            encoder=known.spec,
            stain="H&E",
            tile_px=known.tile_px or config.data.tile_px,
            mpp=known.mpp or config.data.mpp,
            min_tissue=slides.min_tissue,
            precision=precision_of(bag for own in bags.values() for bag in own),
        )
        return TrainedFold(
            head,
            encoder,
            facts,
            {"": {part: predict_bags(head, own, run.device) for part, own in bags.items()}},
            no_bundle=known.unknown,
            no_doubt=slides.no_doubt,
            note=known.remark or (GUIDED if slides.regions else ""),
        )

    return judge


def _pretrained(
    number: int, split: Split, run: ArmRun[AttentionConfig], slides: EmbeddedSlides
) -> Generator[Progress, None, PatchEncoder]:
    """Let the encoder learn from patches of the slides of a fold."""
    config, seed, own = run.config, run.config.compute.seed, run.config.pretraining
    encoder = encoder_to_learn(config.encoder, config.data.tile_px, seed, run.findings)
    check_scale(encoder, config.data.mpp, own.scale_jitter)
    classes = len(class_names(config.data.classes)) + bool(own.regions)
    most, few = own.patches_per_slide, min(own.patches_per_slide, _VALIDATION_PATCHES)

    def patches(
        cases: Sequence[Case], per_slide: int, seed: int, what: str
    ) -> Generator[Progress, None, LabelledPatches]:
        if run.findings is not None:
            count = sum(min(per_slide, slides.tiles.get(("he", case.row), 0)) for case in cases)
            run.findings.memory_bytes += config.data.tile_px**2 * 3 * count
            run.findings.leave_out("cutting the patches of the pre-training")
            return MadeUpPatches(count, config.data.tile_px, classes)
        stage = f"Cutting patches to {what}"
        steps = gather_patches(cases, config, run.data.parent, per_slide=per_slide, seed=seed, stage=stage)
        return from_first(cast("LabelledPatches", (yield from steps) if is_first() else None))

    train = yield from patches(split.train, most, seed, "learn from")
    validation = yield from patches(split.validation, few, seed + 1, "check with")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prepared = prepared_encoder(encoder, train, blocks=own.blocks)
        task = PatchTask(prepared, train, validation, own, classes=classes, seed=seed)
    yield from run.learn(task, run.step(number, "encoder"), PRETRAINING, what="pre-training", alike=own)
    return task.rounded()


train_attention_mil = on_cases(attention_steps, _check_regions)
