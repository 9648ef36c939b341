"""Pre-training of a patch encoder on a folder of labelled patches, from the folder to a file of weights.

This is the step before attention MIL that Abdulsadig et al. (arXiv:2411.05028) take on PatchCamelyon and on
patches of HER2 IHC. ``OUT/NAME.safetensors`` holds the encoder without its classifier, with the normalisation
that it learnt with; [encoder] weights of every configuration takes it. ``OUT/metrics.json`` says how well it
told the patches apart, and is written last: it means that the run is finished.

Differences from the paper
--------------------------
- Of optimiser, epochs and augmentation of the pre-training nothing is known; all of them are our choice.
- The mean and the deviation of the patches themselves normalise them, and travel with the weights.
- The norm of the gradient is clipped at 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from napari_her2.models.bundle_card import SUFFIX
from napari_her2.models.encoders import save_encoder
from napari_her2.steps import Progress
from napari_her2_training.encoder.counting import encoder_to_learn
from napari_her2_training.encoder.patch_folder import read_patch_folder
from napari_her2_training.encoder.patch_images import count_patches, open_patches
from napari_her2_training.encoder.pretraining import (
    STAGE,
    PatchTask,
    patch_probabilities,
    prepared_encoder,
)
from napari_her2_training.files import write_json
from napari_her2_training.measures.arms import METRICS_FILE
from napari_her2_training.measures.metrics import class_recalls, confusion, slide_metrics
from napari_her2_training.running.learning import learn_steps
from napari_her2_training.running.machines import choose_machines
from napari_her2_training.running.ranks import first_alone
from napari_her2_training.running.runs import RunFolder, open_run
from napari_her2_training.running.steps import in_thread

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_her2.inference.device import Device
    from napari_her2.models.patch_encoder import PatchEncoder
    from napari_her2_training.encoder.config import EncoderTrainingConfig
    from napari_her2_training.encoder.patch_folder import PatchFolder
    from napari_her2_training.encoder.patches import LabelledPatches
    from napari_her2_training.findings import Findings

PATCHES = "patches"
STEP = "encoder"


def train_encoder(
    config: EncoderTrainingConfig, data: Path, out: Path, *, resume: bool, findings: Findings | None = None
) -> Generator[Progress, None, Path]:
    """Pre-train an encoder on a folder of patches; see `napari_her2_training.run`.

    Returns
    -------
    Path
        The weights.
    """
    if findings is not None:
        yield Progress("Looking at the patches")
    found = read_patch_folder(data, config.data)
    device = choose_machines(config.compute, findings)
    run = RunFolder(out, resume) if findings else open_run(out, config, data, resume=resume)
    path = out / f"{config.model.name}{SUFFIX}"
    if findings is None and (out / METRICS_FILE).exists() and path.exists():
        yield Progress("Training", note="finished before")
        return path
    patches: dict[str, LabelledPatches] = {}
    if findings is not None:
        patches |= yield from count_patches(found, config.data, findings)
    for part in found.parts if findings is None else ():
        with first_alone():
            patches[part] = yield from open_patches(found, part, config.data, out / PATCHES)
    task = new_task(config, found, patches["train"], patches["validation"], findings)
    judged = sum(len(own.labels) for part, own in patches.items() if part != "train")
    yield from learn_steps(
        task,
        out / STEP,
        device,
        findings,
        stage=STAGE,
        resume=run.resume,
        judged=judged / config.pretraining.batch_size,
    )
    if findings is not None:
        return path
    with first_alone() as first:
        if not first:
            return path
        encoder = task.rounded()
        measured: dict[str, dict[str, Any]] = {}
        for part, own in patches.items():
            if part != "train":
                measured[part] = yield from _measures(task, own, found, device, f"Judging the {part} patches")
        save_encoder(path, encoder)
        write_json(out / METRICS_FILE, _record(path, encoder, found, measured, device))
    return path


def new_task(
    config: EncoderTrainingConfig,
    found: PatchFolder,
    train: LabelledPatches,
    validation: LabelledPatches,
    findings: Findings | None = None,
) -> PatchTask:
    """Build the encoder that is asked for with a classifier on top, as the run trains it."""
    seed = config.compute.seed
    encoder = encoder_to_learn(config.encoder, config.data.tile_px, seed, findings)
    if config.encoder.normalisation == "auto":
        encoder = prepared_encoder(encoder, train, blocks=config.pretraining.blocks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PatchTask(
            encoder, train, validation, config.pretraining, classes=len(found.classes), seed=seed
        )


def _measures(
    task: PatchTask, patches: LabelledPatches, found: PatchFolder, device: Device, stage: str
) -> Generator[Progress, None, dict[str, Any]]:
    """Measure the best epoch; its encoder as float16 holds it, as it is used."""
    labels, count = patches.labels, len(patches.labels)
    probabilities = yield from in_thread(
        lambda report: patch_probabilities(
            task, patches, device, lambda done: report(Progress(stage, done, count, "patches"))
        )
    )
    measures = slide_metrics(labels, probabilities, found.classes)
    measures.pop("quadratic kappa", None)  # classes of patches need not have an order
    measures |= class_recalls(labels, probabilities, found.classes)
    return {"metrics": measures, "confusion": confusion(labels, probabilities)}


def _record(
    path: Path,
    encoder: PatchEncoder,
    found: PatchFolder,
    measured: dict[str, dict[str, Any]],
    device: Device,
) -> dict[str, Any]:
    spec = encoder.spec
    return {
        "model": path.name,
        "encoder": spec.name,
        "tile_px": spec.tile_px,
        "features": spec.dim,
        "normalisation": {"mean": list(spec.mean), "std": list(spec.std)},
        "device": device.name,
        "classes": list(found.classes),
        "patches": {part: own.counts(found.classes) for part, own in found.parts.items()},
        "notes": list(found.notes),
        "measured": measured,
    }
