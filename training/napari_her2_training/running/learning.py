"""A network that learns: a run trains it, a dry run makes one step with it and counts the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.steps import Progress
from napari_her2_training.findings import Enough
from napari_her2_training.running.costs import measure
from napari_her2_training.running.fitting import fit_steps

if TYPE_CHECKING:
    from collections.abc import Generator, Hashable
    from pathlib import Path

    from napari_her2.inference.device import Device
    from napari_her2_training.findings import Findings
    from napari_her2_training.running.task import Task

MEASURING = "Measuring a step of learning"


def learn_steps(
    task: Task,
    folder: Path,
    device: Device,
    findings: Findings | None,
    *,
    stage: str,
    resume: bool,
    judged: float = 0.0,
    what: str = "learning",
    alike: Hashable = None,
) -> Generator[Progress, None, None]:
    """Train the network of a task, or count what training would take.

    Parameters
    ----------
    task : Task
        Its network has the weights of the best epoch afterwards; untrained ones where it is counted.
    folder : Path
        For the checkpoints; made when absent.
    device : Device
    findings : Findings or None
        Nothing is trained, nor written: it hears of time, memory and disk space.
    stage : str
        Named in the progress.
    resume : bool
    judged : float
        Batches, as large as those of validation, that the method judges afterwards.
    what : str
        What is learnt, for the estimate.
    alike : hashable
        Tasks that take as long have the same: one of them is timed. None times each.
    """
    if findings is None:
        folder.mkdir(parents=True, exist_ok=True)
        yield from fit_steps(task, folder, device, stage=stage, resume=resume)
        return
    yield Progress(MEASURING, note=stage)
    with findings.noted():
        if findings.device is None:
            raise Enough
        key = (what, alike)
        if alike is None or key not in findings.costs:
            findings.costs[key] = measure(task, findings.device)
        cost = findings.costs[key]
        findings.spend(
            what,
            cost.total(
                train=task.epochs * task.train_batches,
                validate=task.epochs * task.validation_batches + judged,
            ),
            "too large to be measured on a CPU",
        )
        findings.learning_bytes = max(findings.learning_bytes, cost.memory_bytes)
        findings.disk_bytes += cost.disk_bytes
