"""Dry run of the pre-training of an encoder on a folder of patches."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from napari_her2.errors import Her2Error
from napari_her2.inference.result import Progress
from napari_her2_training.dry_run.bags import MEASURING
from napari_her2_training.dry_run.costs import pretraining_cost
from napari_her2_training.dry_run.slides import tile_counter
from napari_her2_training.encoder.patch_folder import read_patch_folder
from napari_her2_training.encoder.patch_images import MEASURED_PATCHES, read_patch
from napari_her2_training.pictures import place

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_her2_training.dry_run.findings import Findings
    from napari_her2_training.encoder.config import EncoderTrainingConfig
    from napari_her2_training.encoder.patch_folder import PatchFolder
    from napari_her2_training.running.machines import Machines

_STEP = 256
_MOST_FAULTS = 100
_MOST_NAMED = 10


def check_encoder(
    config: EncoderTrainingConfig, data: Path, device: Machines | None, findings: Findings
) -> Generator[Progress, None, None]:
    """Check a pre-training: every image file is read; see `check_attention_mil`."""
    yield Progress("Looking at the patches")
    found = findings.attempt(lambda: read_patch_folder(data, config.data))
    if found is None:
        return
    side = config.data.tile_px
    for part, own in found.parts.items():
        told = ", ".join(f"{count:,} of {name}" for name, count in own.counts(found.classes).items())
        findings.facts[f"Patches ({part})"] = f"{len(own):,} ({told})"
        findings.disk_bytes += len(own.files) * side**2 * 3
    for note in found.notes:
        findings.warn(note)
    yield from _read_all(found, config, findings)
    counter = tile_counter(
        config.encoder,
        tile_px=side,
        mpp=1.0,
        min_tissue=0.0,
        seed=config.compute.seed,
        device=device,
        changes=True,
        findings=findings,
    )
    if device is None or counter.runner is None:
        return
    yield Progress(MEASURING)
    with findings.noted():
        encoder = counter.runner.encoder
        cost = pretraining_cost(
            encoder,  # type: ignore[arg-type]
            config.pretraining,
            classes=len(found.classes),
            device=device,
        )
        train, validation = (len(found.parts[part]) for part in ("train", "validation"))
        judged = sum(len(own) for part, own in found.parts.items() if part != "train")
        epochs = config.pretraining.epochs
        findings.spend(
            "learning",
            cost.total(train=epochs * train, validate=epochs * validation + judged),
            "too large to be measured on a CPU",
        )
        findings.memory_bytes += cost.memory_bytes + min(train, MEASURED_PATCHES) * side**2 * 3
        findings.disk_bytes += cost.disk_bytes


def _read_all(
    found: PatchFolder, config: EncoderTrainingConfig, findings: Findings
) -> Generator[Progress, None, None]:
    """Read every image file; name those that cannot be used, and those that two parts share."""
    files = [(file, part) for part, own in found.parts.items() for file in own.files]
    began, faults = time.perf_counter(), 0
    first: dict[bytes, tuple[Path, str]] = {}
    shared: list[str] = []
    for number, (file, part) in enumerate(files):
        if number % _STEP == 0:
            yield Progress("Reading the patches", number, len(files), "patches")
        try:
            content = hashlib.blake2b(read_patch(file, config.data).tobytes(), digest_size=16).digest()
        except Her2Error as error:
            faults += 1
            if faults <= _MOST_FAULTS:
                findings.faults.append(str(error))
            continue
        other, its_part = first.setdefault(content, (file, part))
        if its_part != part:
            shared.append(f"{place(file, 1)} ({part}) is {place(other, 1)} ({its_part})")
    if shared:
        findings.warn(
            f"{len(shared)} patches are in two parts, so that the encoder is judged by what it learnt: "
            f"{', '.join(shared[:_MOST_NAMED])}{' and others' if len(shared) > _MOST_NAMED else ''}."
        )
    if files:
        findings.spend("reading patches", time.perf_counter() - began)
        yield Progress("Reading the patches", len(files), len(files), "patches")
