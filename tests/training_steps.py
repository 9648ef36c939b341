"""Fits of tests: on the CPU, to their end or up to a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch

from napari_her2.inference.device import Device
from napari_her2_training.running.fitting import fit_steps

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2_training.running.task import Task

Own = TypeVar("Own", bound="Task")
CPU = Device(torch.device("cpu"), "cpu (test)", "test")


def fit_until(task: Own, folder: Path, *, resume: bool = False, until: int | None = None) -> Own:
    """Train a task; with ``until`` close it once so many batches are done, in the midst of an epoch."""
    steps = fit_steps(task, folder, CPU, stage="Training", resume=resume)
    for progress in steps:
        if until is not None and progress.done == until:
            steps.close()
            return task
    assert until is None, "it ended before it could be killed"
    return task
