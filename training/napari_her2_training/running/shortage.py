"""Memory that is too short to learn in: a batch in parts, or which setting to lower.

Where a network looks at each example by itself, its batch goes through it in parts (`Task.in_parts`), and the
loss stays that of the batch. Losses that compare examples, and normalisation over a batch, would be others:
there a sentence says what would fit.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.models.shortage import is_out_of_memory, release
from napari_her2_training.running.machines import Machines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_her2.inference.device import Device
    from napari_her2_training.running.task import Task


def halve(task: Task, error: BaseException, device: Device) -> bool:
    """Let batches go through the network in twice as many parts, where an error says that memory is short.

    Parameters
    ----------
    task : Task
    error : BaseException
        What a step ended with.
    device : Device

    Returns
    -------
    bool
        Whether that can be tried. Of several processes that learn together one cannot do it by itself.
    """
    alone = not isinstance(device, Machines) or device.alone
    if not alone or not is_out_of_memory(error) or task.parts >= task.most_parts:
        return False
    task.parts = min(2 * task.parts, task.most_parts)
    return True


@contextmanager
def shortage_named(task: Task, device: Device, stage: str, *, begun: bool) -> Iterator[None]:
    """Say of a step that did not fit into memory what would.

    Parameters
    ----------
    task : Task
    device : Device
    stage : str
        What was done: "Training".
    begun : bool
        Whether it is a run that can be gone on with.

    Raises
    ------
    JobFailed
        In place of the error of the computation. All other errors go through.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failed = JobFailed(_advice(task, device, stage, begun=begun))
        release(device.torch_device)
        raise failed from error


def _advice(task: Task, device: Device, stage: str, *, begun: bool) -> str:
    where = "this machine" if device.torch_device.type == "cpu" else device.name
    ways = ["close other programs that use it"]
    if device.torch_device.type != "cpu":
        ways.append("choose another device")
    same = " or ".join(ways) + (" and go on with --resume" if begun else "")
    lighter = task.lighter()
    other = f"; or set {lighter} in the configuration" if lighter else ""
    anew = " and begin in another folder" if lighter and begun else ""
    return f"{stage}: the memory of {where} is too short for one batch: {same}{other}{anew}."


def halved(setting: str, value: int, *, least: int = 1) -> str:
    """Return a setting with half its value, for `Task.lighter`; empty where it is as small as may be.

    Parameters
    ----------
    setting : str
        Section and key: "[bags] batch_size".
    value : int
        What it is now.
    least : int
        The smallest value that makes sense.
    """
    smaller = max(least, value // 2)
    return f"{setting} = {smaller}" if smaller < value else ""
