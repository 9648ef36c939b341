"""What learning takes: one step of the very task that the run trains, on made-up data, with a stopwatch.

On a CPU a step is made with a part of a batch, and scaled: what convolutions, and attention over landmarks,
take grows with the pixels and with the tiles.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import torch

from napari_her2.models.shortage import release
from napari_her2_training.findings import Cost
from napari_her2_training.running.shortage import halve, shortage_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_her2.inference.device import Device
    from napari_her2_training.running.task import Batch, Task

_LONG_ENOUGH = 0.3
_MOST_TIMES = 7
_CPU_IMAGES = 8
"""Images of a batch that a CPU takes to time a step; of images with longer sides, `_CPU_LARGE`."""
_CPU_LARGE = 2
_CPU_SIDE = 128
_CPU_TILES = 4096
_CPU_PARAMETERS = 100_000_000
"""Larger networks are not measured on a CPU: one step alone would take a minute."""


def measure(task: Task, device: Device) -> Cost:
    """Make a step of training and one of validation, after another one that is not counted.

    Parameters
    ----------
    task : Task
        Thrown away afterwards.
    device : Device

    Raises
    ------
    JobFailed
        If the memory of the device is too short for a batch.
    """
    parameters = sum(p.numel() for p in task.parameters() if p.requires_grad)
    where = device.torch_device
    if where.type == "cpu" and parameters > _CPU_PARAMETERS:
        return Cost(None, None, parameters)
    with shortage_named(task, device, "Measuring a step of learning", begun=False):
        # The layout that convolutions learn in; others have no weights that it touches.
        task.to(memory_format=torch.channels_last)
        while True:
            try:
                return _timed(task.to(where), device, parameters)
            except (RuntimeError, MemoryError) as error:
                if not halve(task, error, device):
                    raise
            release(where)  # outside of the handler, where the tensors of the step are gone


def _timed(task: Task, device: Device, parameters: int) -> Cost:
    given: Any = task.optimiser()
    optimiser = given["optimizer"] if isinstance(given, dict) else given
    where, low = device.torch_device, device.autocast_dtype
    learnt, checked = task.draw(0, 0), task.draw_validation(0)
    some, share = smaller(learnt, any_side=task.any_side) if where.type == "cpu" else (learnt, 1.0)
    few, checked_share = smaller(checked, any_side=task.any_side) if where.type == "cpu" else (checked, 1.0)

    def train() -> None:
        batch = some if share != 1 else task.draw(0, 0)
        with torch.autocast(where.type, dtype=low, enabled=low is not None):
            loss: Any = task.loss(*(part.to(where, copy=True) for part in batch))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def validate() -> None:
        with torch.no_grad(), torch.autocast(where.type, dtype=low, enabled=low is not None):
            task.judge(*(part.to(where, copy=True) for part in few))

    task.train()
    train()
    taken = _clock(train, device) / share
    task.eval()
    judging = _clock(validate, device) / checked_share
    size = sum(part.numel() * part.element_size() for part in learnt)
    return Cost(taken, judging, parameters, size)


def smaller(batch: Batch, *, any_side: bool) -> tuple[Batch, float]:
    """Return a part of a batch, and what share it is of what the batch takes.

    Parameters
    ----------
    batch : tuple of Tensor
    any_side : bool
        Whether images may be smaller than the network will be given.
    """
    images = [part for part in batch if part.ndim == 4]
    if not images:  # bags of tiles
        bags = [part for part in batch if part.ndim == 2 and part.is_floating_point()]
        most = max(map(len, bags), default=1)
        cut = tuple(part[:_CPU_TILES] if any(part is bag for bag in bags) else part for part in batch)
        return cut, min(1.0, _CPU_TILES / most)
    count, side = len(images[0]), max(part.shape[-1] for part in images)
    kept = min(count, _CPU_IMAGES if side <= _CPU_SIDE else _CPU_LARGE)
    edge = min(side, _CPU_SIDE) if any_side else side
    some = (part[:kept] if part.ndim and len(part) == count else part for part in batch)
    cut = tuple(part[:, :, :edge, :edge] if part.ndim == 4 else part for part in some)
    return cut, kept / count * (edge / side) ** 2


def _clock(work: Callable[[], None], device: Device) -> float:
    """Seconds that work takes: in the middle of some times where it is short."""
    taken: list[float] = []
    while sum(taken) < _LONG_ENOUGH and len(taken) < _MOST_TIMES:
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _wait(device: Device) -> None:
    if device.torch_device.type == "cuda":
        torch.cuda.synchronize(device.torch_device)
