"""Dry runs of the methods that embed slides and learn from bags of tiles: attention MIL and WSMCL."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.inference.result import Progress
from napari_her2_training.cohort.features import from_files
from napari_her2_training.cohort.manifest import SPLITS, STAINS
from napari_her2_training.cohort.splits import absent_classes
from napari_her2_training.dry_run.cases import check_regions, read_table
from napari_her2_training.dry_run.costs import attention_cost, pretraining_cost, wsmcl_cost
from napari_her2_training.dry_run.slides import (
    look_at_features,
    look_at_slides,
    median_taken,
    refuse_small,
    tell_tiles,
    tile_counter,
)
from napari_her2_training.wsmcl.pairs import check_pairs

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_her2.inference.device import Device
    from napari_her2.models.encoders import PatchEncoder
    from napari_her2_training.attention_mil.config import AttentionConfig
    from napari_her2_training.cohort.manifest import Case, Stain
    from napari_her2_training.dry_run.cases import Table
    from napari_her2_training.dry_run.costs import Cost
    from napari_her2_training.dry_run.findings import Findings
    from napari_her2_training.dry_run.slides import Seen, TileCounter
    from napari_her2_training.running.machines import Machines
    from napari_her2_training.wsmcl.config import PairedHeadConfig, WSMCLConfig

MEASURING = "Measuring a step of learning"
FROM_FILES = (
    "Features come from files, and nothing says which encoder made them: weights of the head are written, "
    "but no model that scores slides."
)
_VALIDATION_PATCHES = 100
"""Patches of a validation slide at most, as attention MIL cuts them."""


def check_attention_mil(
    config: AttentionConfig, data: Path, device: Machines | None, findings: Findings
) -> Generator[Progress, None, None]:
    """Check a training of attention MIL.

    Parameters
    ----------
    config : AttentionConfig
    data : Path
        The manifest.
    device : Machines or None
        None measures nothing.
    findings : Findings

    Yields
    ------
    Progress
    """
    table = read_table(data, ("he",), config.data, findings)
    if not table.cases:
        return
    learns = config.pretraining.epochs > 0
    if learns or config.head.guidance:
        check_regions(config.pretraining.regions, "[pretraining] regions", table.used, data.parent, findings)
    counter = tile_counter(
        config.encoder,
        tile_px=config.data.tile_px,
        mpp=config.data.mpp,
        min_tissue=config.data.min_tissue,
        seed=config.compute.seed,
        device=device,
        changes=learns,
        findings=findings,
    )
    seen = yield from look_at_slides(table.used, "he", counter, findings, check=config.data.check_stains)
    tell_tiles(seen, counter, findings, times=len(table.splits) or 1 if learns else 1)
    refuse_small(
        [s for s in seen if s.case.row in table.learnt],
        config.bags.size,
        f"A bag of {config.bags.size} tiles cannot be drawn from these slides",
        "Leave them out, or lower [bags] size.",
        findings,
    )
    if device is None or counter.runner is None or not table.splits:
        return
    yield Progress(MEASURING)
    encoder: PatchEncoder = copy.deepcopy(counter.runner.encoder)  # type: ignore[assignment]
    classes = len(config.data.mapping.names)
    folds = len(table.splits)
    with findings.noted():
        if learns:
            _pretraining(config, encoder, table, seen, classes, device, findings)
        cost = attention_cost(
            config.head, config.bags, width=encoder.spec.dim, classes=classes, device=device
        )
        times = config.head.epochs * folds
        findings.spend(
            "learning",
            cost.total(
                train=times * config.bags.train_batches, validate=times * config.bags.validation_batches
            ),
        )
        findings.memory_bytes += cost.memory_bytes
        findings.disk_bytes += cost.disk_bytes * folds


def _pretraining(
    config: AttentionConfig,
    encoder: PatchEncoder,
    table: Table,
    seen: Sequence[Seen],
    classes: int,
    device: Device,
    findings: Findings,
) -> None:
    own = config.pretraining
    cost = pretraining_cost(encoder, own, classes=classes + bool(own.regions), device=device)
    taken = {s.case.row: s.counted.taken for s in seen}
    seconds: float | None = 0.0
    for split in table.splits:
        most = own.patches_per_slide
        train = sum(min(taken.get(case.row, 0), most) for case in split.train)
        most = min(most, _VALIDATION_PATCHES)
        validation = sum(min(taken.get(case.row, 0), most) for case in split.validation)
        of_fold = cost.total(train=train * own.epochs, validate=validation * own.epochs)
        seconds = None if seconds is None or of_fold is None else seconds + of_fold
    findings.spend("pre-training", seconds, "too large to be measured on a CPU")
    findings.leave_out("cutting the patches of the pre-training")
    patch = config.data.tile_px**2 * 3
    findings.memory_bytes += cost.memory_bytes + patch * own.patches_per_slide * len(seen)
    findings.disk_bytes += cost.disk_bytes * len(table.splits)


def check_wsmcl(
    config: WSMCLConfig, data: Path, device: Machines | None, findings: Findings
) -> Generator[Progress, None, None]:
    """Check a training of WSMCL and its variants; see `check_attention_mil`."""
    modes = {config.pairs.mode, *(variant.config.pairs.mode for variant in config.variants)}
    table = read_table(data, ("he", "ihc") if "same-case" in modes else (), config.data, findings)
    if not table.cases:
        return
    _check_pairs(config, table, modes, findings)
    counter: TileCounter | None = None
    widths: dict[Stain, int] = {}
    tiles: list[Seen] = []
    for stain in STAINS:
        having = [case for case in table.used if getattr(case, stain) is not None]
        files = findings.attempt(functools.partial(from_files, having, stain))
        if files is None or not having:
            continue
        if files:
            seen, widths[stain] = yield from look_at_features(having, stain, findings)
            tell_tiles(seen, None, findings, dim=widths[stain])
            findings.warn(FROM_FILES)
        else:
            counter = counter or tile_counter(
                config.encoder,
                tile_px=config.data.tile_px,
                mpp=config.data.mpp,
                min_tissue=config.data.min_tissue,
                seed=config.compute.seed,
                device=device,
                changes=False,
                findings=findings,
            )
            seen = yield from look_at_slides(having, stain, counter, findings, check=config.data.check_stains)
            tell_tiles(seen, counter, findings)
            if counter.runner is not None:
                widths[stain] = counter.runner.encoder.spec.dim
        tiles += seen
    small = [s for s in tiles if s.counted.taken < 2 * config.head.k]
    if small:
        findings.warn(
            f"{len(small)} slides have fewer than {2 * config.head.k} tiles, twice [head] k: fewer of theirs "
            f"are contrasted. The smallest is in row {min(small, key=lambda s: s.counted.taken).case.row}."
        )
    if device is not None and len(widths) == len(STAINS) and table.splits:
        yield Progress(MEASURING)
        with findings.noted():
            _wsmcl_costs(config, table, (widths["he"], widths["ihc"]), median_taken(tiles), device, findings)


def _check_pairs(config: WSMCLConfig, table: Table, modes: set[str], findings: Findings) -> None:
    for split in table.splits:
        for part in SPLITS:
            for mode in sorted(modes):
                with findings.noted():
                    check_pairs(getattr(split, part), part, mode, config.data.classes)
        names = config.data.mapping.names
        if len(names) - len(absent_classes(split.validation, config.data.mapping)) < 2:
            with findings.noted():
                raise JobFailed(
                    "The validation cases are all of one class, which cannot tell the best epoch: add cases, "
                    "or change the split."
                )


def _wsmcl_costs(
    config: WSMCLConfig,
    table: Table,
    widths: tuple[int, int],
    tiles: int,
    device: Device,
    findings: Findings,
) -> None:
    classes = len(config.data.mapping.names)
    costs: dict[PairedHeadConfig, Cost] = {}
    for own in (config, *(variant.config for variant in config.variants)):
        if own.head not in costs:
            costs[own.head] = wsmcl_cost(own, widths=widths, tiles=tiles, classes=classes, device=device)
        cost, epochs = costs[own.head], own.head.epochs
        findings.disk_bytes += cost.disk_bytes * len(table.splits)
        for split in table.splits:
            pairs = _pairs(split.train, own.pairs.mode, classes)
            judged = _pairs(split.validation, own.pairs.mode, 1)
            findings.spend(
                "learning", cost.total(train=epochs * pairs, validate=epochs * judged), "too large for a CPU"
            )
    findings.memory_bytes += max(cost.memory_bytes for cost in costs.values())


def _pairs(cases: Sequence[Case], mode: str, classes: int) -> int:
    """Pairs an epoch, as `napari_her2_training.wsmcl.pairs` makes them."""
    if mode == "same-case":
        return sum(case.he is not None and case.ihc is not None for case in cases)
    return classes * (sum(case.he is not None for case in cases) // classes)
