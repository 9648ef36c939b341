"""What a dry run finds: faults, warnings and facts, and what the training is expected to take.

A run is written once. Where it is given `Findings` it counts and times what it would do, and does nothing:
each step of it knows both.
"""

from __future__ import annotations

import statistics
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from napari_her2.errors import Her2Error, JobFailed

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from pathlib import Path

    from napari_her2.inference.device import Device

_WEIGHTS = 4
"""Copies of the weights while learning: themselves, their gradient, and two moments of Adam."""
_CHECKPOINTS = 2
_IN_CHECKPOINT = 3
"""best.ckpt and last.ckpt, each with the weights and two moments."""
_UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))


class SeveralFaults(JobFailed):
    """What is wrong in several places.

    Parameters
    ----------
    message : str
    faults : tuple of str
        A sentence each.
    """

    def __init__(self, message: str, faults: tuple[str, ...]) -> None:
        super().__init__(message)
        self.faults = faults


class Enough(Her2Error):
    """Ends the counting where what follows needs what is missing. It is no fault, and nobody sees it."""


@dataclass(frozen=True, slots=True)
class TrainingCheck:
    """What is known of a training before it begins.

    Parameters
    ----------
    method : str
    config, data : Path
        The configuration, and the manifest or folder; empty paths where none could be found.
    faults : tuple of str
        Why it would fail, a sentence or two each. With any of them it should not be started.
    warnings : tuple of str
        What a person should know, a sentence each.
    facts : tuple of (name, text)
        For a person: cases of each class in each split, slides, tiles, what is embedded already.
    estimates : tuple of str
        Names of the facts that are estimates.
    seconds : float or None
        Estimate of the whole training; None where there is nothing to base it on. What is not in it is told
        by the fact "Not in the estimate".
    memory_bytes : int or None
        Of features, patches, weights and the optimiser; what layers need on the way comes on top.
    disk_bytes : int or None
        Of what is written: cache, images, checkpoints, models.
    """

    method: str
    config: Path
    data: Path
    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    estimates: tuple[str, ...]
    seconds: float | None
    memory_bytes: int | None
    disk_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it; facts keep their order."""
        return asdict(self) | {"config": str(self.config), "data": str(self.data), "facts": dict(self.facts)}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a batch takes.

    Parameters
    ----------
    train, validate : float or None
        Seconds; None where it was not measured.
    parameters : int
        That learn.
    batch_bytes : int
        Of a batch to learn from.
    """

    train: float | None
    validate: float | None
    parameters: int
    batch_bytes: int = 0

    @property
    def memory_bytes(self) -> int:
        """Of weights, gradients, moments and a batch."""
        return self.parameters * 4 * _WEIGHTS + self.batch_bytes

    @property
    def disk_bytes(self) -> int:
        """Of the checkpoints of one fit, and of the weights that are saved at the end."""
        return self.parameters * 4 * (_CHECKPOINTS * _IN_CHECKPOINT + 1)

    def total(self, *, train: float, validate: float) -> float | None:
        """Seconds for so many batches; None where they were not measured."""
        if self.train is None or self.validate is None:
            return None
        return self.train * train + self.validate * validate


@dataclass(slots=True, eq=False)
class Findings:
    """What was found so far.

    Attributes
    ----------
    faults, warnings : list of str
    facts : dict of str to str
    seconds : dict of str to float
        By what takes them: "embedding", "learning".
    left_out : list of str
        What is not in the estimate.
    memory_bytes, disk_bytes : int
        Memory without that of learning.
    learning_bytes : int
        Memory of the network that needs most: one learns after the other.
    device, reader : Device or None
        On what steps of learning are timed, and on what embedding is; None times nothing.
    costs : dict of Hashable to Cost
        Of the networks that were timed.
    looked : list of float
        Seconds that opening each slide, and finding its tissue, took.
    """

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    memory_bytes: int = 0
    disk_bytes: int = 0
    learning_bytes: int = 0
    device: Device | None = None
    reader: Device | None = None
    costs: dict[Hashable, Cost] = field(default_factory=dict)
    looked: list[float] = field(default_factory=list)

    @property
    def seconds_a_slide(self) -> float | None:
        """What opening a slide and finding its tissue takes, of one in the middle; None where none was."""
        return statistics.median(self.looked) if self.looked else None

    @contextmanager
    def noted(self, where: str = "") -> Iterator[None]:
        """Turn an error that a training would end with into a fault, and go on."""
        try:
            yield
        except Enough:
            return
        except Her2Error as error:
            found = error.faults if isinstance(error, SeveralFaults) else (f"{where}{error}",)
            self.faults += [fault for fault in found if fault not in self.faults]

    def spend(self, what: str, seconds: float | None, why: str = "") -> None:
        """Add to the estimate; what could not be measured is said instead."""
        if seconds is None:
            self.leave_out(f"{what}{f' ({why})' if why else ''}")
        else:
            self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    def leave_out(self, what: str) -> None:
        """Say what is not in the estimate."""
        if what not in self.left_out:
            self.left_out.append(what)

    def warn(self, text: str) -> None:
        """Add a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    @property
    def memory(self) -> int:
        """Bytes of all that is in memory at once."""
        return self.memory_bytes + self.learning_bytes

    def estimates(self) -> dict[str, str]:
        """Return what the training is expected to take, in words."""
        facts = {}
        if self.seconds:
            parts = ", ".join(f"{what} {duration(taken)}" for what, taken in self.seconds.items())
            facts["Estimated time"] = f"{duration(sum(self.seconds.values()))}: {parts}"
        if self.memory:
            facts["Estimated memory"] = f"{size(self.memory)}, without what layers need on the way"
        if self.disk_bytes:
            facts["Estimated disk space"] = size(self.disk_bytes)
        return facts

    def all_facts(self) -> tuple[tuple[str, str], ...]:
        """Return the facts, those about the estimate last."""
        left_out = {"Not in the estimate": "; ".join(self.left_out)} if self.left_out else {}
        return tuple((self.facts | self.estimates() | left_out).items())


def noted(findings: Findings | None, where: str = "") -> AbstractContextManager[None]:
    """Let errors end a training, and become faults where it is only counted."""
    return nullcontext() if findings is None else findings.noted(where)


def duration(seconds: float) -> str:
    """Seconds for a person: "12 minutes"."""
    for length, name in _UNITS:
        if seconds >= 1.5 * length:
            value = seconds / length
            return f"{value:.0f} {name}" if value >= 10 else f"{value:.1f} {name}"
    return f"{seconds:.0f} seconds" if seconds >= 10 else f"{seconds:.1f} seconds"


def size(count: int) -> str:
    """Bytes for a person: "1.2 GB"."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
