"""On what a network learns: one device, or several of one or more machines together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import distributed

from napari_her2.inference.device import Device, choose_device
from napari_her2_training.running.ranks import own_number

if TYPE_CHECKING:
    from napari_her2_training.config_sections import ComputeConfig
    from napari_her2_training.findings import Findings


@dataclass(frozen=True, slots=True)
class Machines(Device):
    """A device, and how many like it learn together.

    Parameters
    ----------
    devices : int
        Of each machine; 0: all.
    nodes : int
        Machines.
    strategy : str
        Lightning's name of how they work together.
    reading : Device or None
        On which slides are embedded, as scoring will: features may be computed in lower precision where
        networks do not learn in it. None: on the device itself.
    """

    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    reading: Device | None = None

    @property
    def alone(self) -> bool:
        """Whether there is one only."""
        return self.devices == 1 and self.nodes == 1

    @property
    def reader(self) -> Device:
        """The device on which slides are embedded."""
        return self.reading or self


def choose_machines(compute: ComputeConfig, findings: Findings | None = None) -> Machines:
    """Choose what networks learn on, and slides are embedded on: for a training and for its dry run.

    Parameters
    ----------
    compute : ComputeConfig
    findings : Findings, optional
        Hears which it is, or why it cannot be had: then nothing is timed.
    """
    if findings is not None:
        chosen: Machines | None = None
        with findings.noted():
            chosen = choose_machines(compute)
            findings.device, findings.reader = chosen, chosen.reader
            findings.facts["Device"] = chosen.name
        return chosen or choose_machines(replace(compute, device="cpu"))
    device = choose_device(compute.device)
    if device.torch_device.type == "cuda" and not (compute.devices == compute.nodes == 1):
        device = choose_device(f"cuda:{own_number()}")
    # Small networks gain nothing from lower precision on a CPU, and lose digits.
    low = None if device.torch_device.type == "cpu" else device.autocast_dtype
    return Machines(
        device.torch_device,
        device.name,
        device.reason,
        low,
        devices=compute.devices,
        nodes=compute.nodes,
        strategy=compute.strategy,
        reading=device,
    )


def own_share(count: int) -> range:
    """Return the batches of an epoch that this process learns from.

    Parameters
    ----------
    count : int
        Batches of an epoch.

    Returns
    -------
    range
        Every n-th, the same number in all of n processes: what is left over at the end is left out.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return range(count)
    many = distributed.get_world_size()
    return range(distributed.get_rank(), count - count % many, many)


def steps_an_epoch(count: int, accumulate: int = 1) -> int:
    """Return how many steps the optimiser of this process takes in an epoch: schedules count in them.

    Parameters
    ----------
    count : int
        Batches of an epoch, of all processes together.
    accumulate : int, default 1
        Batches a step.

    Returns
    -------
    int
        At least 1.
    """
    return max(1, -(-len(own_share(count)) // accumulate))
