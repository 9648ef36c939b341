"""Dry runs of the arms: the low-resolution model, patches, slide models on frozen features, all of them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.inference.result import Progress
from napari_her2.models.low_resolution import VIEWS
from napari_her2.slide.thumbnail import count_thumbnails, thumbnail_mpp
from napari_her2_training.cohort.features import from_files
from napari_her2_training.cohort.manifest import SPLITS
from napari_her2_training.cohort.tissue import check_scale
from napari_her2_training.dry_run.bags import FROM_FILES, MEASURING
from napari_her2_training.dry_run.cases import read_table
from napari_her2_training.dry_run.costs import aggregator_cost, image_cost
from napari_her2_training.dry_run.slides import (
    Counted,
    look_at_features,
    look_at_slides,
    median_taken,
    tell_tiles,
    tile_counter,
    warn_of_download,
)
from napari_her2_training.low_resolution.config import LowResolutionConfig, PatchArmConfig
from napari_her2_training.low_resolution.slide_images import cut_thumbnails, cut_tiles
from napari_her2_training.low_resolution.start import IMAGENET
from napari_her2_training.mil.config import MILConfig

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_her2.slide.reader import Slide
    from napari_her2_training.arm_config import StainedCasesConfig
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.comparison.config import CompareConfig
    from napari_her2_training.dry_run.cases import Table
    from napari_her2_training.dry_run.findings import Findings
    from napari_her2_training.dry_run.slides import Seen
    from napari_her2_training.low_resolution.config import (
        ConvNeXtConfig,
        ImageConfig,
        LearningConfig,
        PatchesConfig,
    )
    from napari_her2_training.mil.config import AggregatorConfig
    from napari_her2_training.running.machines import Machines

_PATCHES_TIMED = 16


class ThumbnailCounter:
    """Counts the small images of a slide, and cuts those of the first one, with a stopwatch.

    Attributes
    ----------
    seconds : float or None
        For a slide.
    """

    def __init__(self, config: ImageConfig, data: StainedCasesConfig) -> None:
        self.config, self.data = config, data
        self.seconds: float | None = None

    def __call__(self, slide: Slide, case: Case) -> Counted:
        """Count the images of a slide."""
        image = self.config
        mpp = image.mpp if image.mode == "fixed" else None
        side, mode, tissue = image.size_px, image.mode, slide.tissue()
        taken = count_thumbnails(slide, tissue, size_px=side, mode=mode, mpp=mpp)
        check_scale(slide, thumbnail_mpp(slide, tissue, size_px=side, mode=mode, mpp=mpp))
        if self.seconds is None:
            began = time.perf_counter()
            cut_thumbnails(image, self.data)(slide, case)
            self.seconds = time.perf_counter() - began
        return Counted(taken)


class PatchCounter:
    """Counts the patches of a slide, and cuts some of the first one, with a stopwatch.

    Attributes
    ----------
    seconds : float or None
        For a patch.
    """

    def __init__(self, config: PatchesConfig, data: StainedCasesConfig) -> None:
        self.config, self.data = config, data
        self.seconds: float | None = None

    def __call__(self, slide: Slide, case: Case) -> Counted:
        """Count the patches of a slide."""
        own = self.config
        grid = slide.tile_grid(own.tile_px, own.mpp)
        check_scale(slide, own.mpp)
        found = int(np.count_nonzero(slide.tissue().keep(grid, own.min_tissue)))
        taken = min(found, own.per_slide) if own.per_slide else found
        if self.seconds is None and taken:
            some = replace(own, per_slide=min(taken, _PATCHES_TIMED))
            began = time.perf_counter()
            cut_tiles(some, self.data, 0)(slide, case)
            self.seconds = (time.perf_counter() - began) / some.per_slide
        return Counted(taken)


def check_low_resolution(
    config: LowResolutionConfig, data: Path, device: Machines | None, findings: Findings
) -> Generator[Progress, None, None]:
    """Check a training of the low-resolution model; see `check_attention_mil`."""
    table = read_table(data, (config.data.column,), config.data, findings)
    yield from _low_resolution(config, table, device, findings)


def check_patches(
    config: PatchArmConfig, data: Path, device: Machines | None, findings: Findings
) -> Generator[Progress, None, None]:
    """Check a training of the classifier of patches; see `check_attention_mil`."""
    table = read_table(data, (config.data.column,), config.data, findings)
    yield from _patches(config, table, device, findings)


def check_mil(
    config: MILConfig, data: Path, device: Machines | None, findings: Findings
) -> Generator[Progress, None, None]:
    """Check a training of a slide model on frozen features; see `check_attention_mil`."""
    table = read_table(data, (config.data.column,), config.data, findings)
    yield from _mil(config, (config.head,), table, device, findings)


def check_comparison(
    config: CompareConfig, data: Path, device: Machines | None, findings: Findings
) -> Generator[Progress, None, None]:
    """Check a comparison of arms, each slide as each of them looks at it; see `check_attention_mil`."""
    table = read_table(data, (config.data.column,), config.data, findings)
    names = config.compare.names
    findings.facts["Arms"] = ", ".join(names)
    if "low-resolution" in names:
        yield from _low_resolution(config.of(LowResolutionConfig), table, device, findings)
    if "patches" in names:
        yield from _patches(config.of(PatchArmConfig), table, device, findings)
    heads = tuple(
        replace(config.head, architecture=name) for name in names if name not in ("low-resolution", "patches")
    )
    if heads:
        yield from _mil(config.of(MILConfig), heads, table, device, findings)


def _low_resolution(
    config: LowResolutionConfig, table: Table, device: Machines | None, findings: Findings
) -> Generator[Progress, None, None]:
    if not table.cases:
        return
    counter = ThumbnailCounter(config.image, config.data)
    seen = yield from look_at_slides(
        table.used, config.data.column, counter, findings, check=config.data.check_stains
    )
    side = config.image.size_px
    taken = sum(s.counted.taken for s in seen)
    findings.facts["Small images"] = (
        f"{taken:,} of {side} px, from {len(seen):,} {config.data.stain_name} slides"
    )
    findings.disk_bytes += taken * side**2 * 3
    findings.spend(
        "cutting images", counter.seconds and counter.seconds * len(seen), "no slide could be read"
    )
    yield from _learn_images(
        config.network,
        config.learning,
        (side, False),
        table,
        seen,
        len(config.data.mapping.names),
        device,
        findings,
    )


def _patches(
    config: PatchArmConfig, table: Table, device: Machines | None, findings: Findings
) -> Generator[Progress, None, None]:
    if not table.cases:
        return
    own = config.patches
    counter = PatchCounter(own, config.data)
    seen = yield from look_at_slides(
        table.used, config.data.column, counter, findings, check=config.data.check_stains
    )
    taken = sum(s.counted.taken for s in seen)
    findings.facts["Patches"] = (
        f"{taken:,} of {own.tile_px} px, from {len(seen):,} {config.data.stain_name} slides"
    )
    if own.per_slide and (few := [s for s in seen if s.counted.taken < own.per_slide]):
        least = min(few, key=lambda s: s.counted.taken)
        findings.warn(
            f"{len(few)} slides give fewer than the {own.per_slide} patches of [patches] per_slide, row "
            f"{least.case.row} the fewest ({least.counted.taken})."
        )
    findings.disk_bytes += taken * own.tile_px**2 * 3
    findings.spend("cutting images", counter.seconds and counter.seconds * taken, "no slide could be read")
    learning = replace(
        config.learning,
        epochs=own.epochs or config.learning.epochs,
        batch_size=own.batch_size or config.learning.batch_size,
    )
    yield from _learn_images(
        config.network,
        learning,
        (own.tile_px, True),
        table,
        seen,
        len(config.data.mapping.names),
        device,
        findings,
    )


def _learn_images(
    network: ConvNeXtConfig,
    learning: LearningConfig,
    seen_as: tuple[int, bool],
    table: Table,
    seen: Sequence[Seen],
    classes: int,
    device: Machines | None,
    findings: Findings,
) -> Generator[Progress, None, None]:
    """Add the cost of learning from images: their side, and whether they are patches."""
    _check_network(network, findings)
    if device is None or not table.splits:
        return
    yield Progress(MEASURING)
    side, patches = seen_as
    taken = {s.case.row: s.counted.taken for s in seen}
    with findings.noted():
        cost = image_cost(
            network.variant, learning, side=side, patches=patches, classes=classes, device=device
        )
        for split in table.splits:
            train, validation, test = (
                sum(taken.get(case.row, 0) for case in getattr(split, part)) for part in SPLITS
            )
            judged = (1 if patches else VIEWS) * (train + validation + test)
            findings.spend(
                "learning",
                cost.total(train=learning.epochs * train, validate=learning.epochs * validation + judged),
                "too large to be measured on a CPU",
            )
        findings.memory_bytes += cost.memory_bytes + learning.batch_size * side**2 * 3 * 4
        findings.disk_bytes += cost.disk_bytes * len(table.splits)


def _check_network(network: ConvNeXtConfig, findings: Findings) -> None:
    """Look for the weights that a ConvNeXt begins with."""
    if network.weights == "pretrained":
        warn_of_download(f"timm:{IMAGENET[network.variant]}", network.weights, findings)
    elif network.weights != "random":
        from napari_her2.models.convnext import build_convnext
        from napari_her2_training.low_resolution.start import start_from

        with findings.noted():
            start_from(build_convnext(network.variant, 2), network)


def _mil(
    config: MILConfig,
    heads: Sequence[AggregatorConfig],
    table: Table,
    device: Machines | None,
    findings: Findings,
) -> Generator[Progress, None, None]:
    if not table.cases:
        return
    stain, width = config.data.column, 0
    files = findings.attempt(lambda: from_files(table.used, stain))
    if files is None:
        return
    if files:
        seen, width = yield from look_at_features(table.used, stain, findings)
        tell_tiles(seen, None, findings, dim=width)
        findings.warn(FROM_FILES)
    else:
        counter = tile_counter(
            config.encoder,
            tile_px=config.tiles.tile_px,
            mpp=config.tiles.mpp,
            min_tissue=config.tiles.min_tissue,
            seed=config.compute.seed,
            device=device,
            changes=False,
            findings=findings,
        )
        seen = yield from look_at_slides(table.used, stain, counter, findings, check=config.data.check_stains)
        tell_tiles(seen, counter, findings)
        width = counter.runner.encoder.spec.dim if counter.runner is not None else 0
    if device is None or not width or not table.splits:
        return
    classes, tiles = len(config.data.mapping.names), median_taken(seen)
    for head in heads:
        yield Progress(MEASURING, note=head.architecture)
        with findings.noted():
            cost = aggregator_cost(
                head, config.loss, width=width, tiles=tiles, classes=classes, device=device
            )
            for split in table.splits:
                findings.spend(
                    "learning",
                    cost.total(
                        train=head.epochs * len(split.train), validate=head.epochs * len(split.validation)
                    ),
                )
            findings.memory_bytes += cost.memory_bytes
            findings.disk_bytes += cost.disk_bytes * len(table.splits)
