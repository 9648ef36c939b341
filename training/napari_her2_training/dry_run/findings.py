"""What a dry run finds: faults, warnings and facts, and what the training is expected to take."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from napari_her2.errors import Her2Error
from napari_her2_training.cohort.manifest import ManifestFaults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")
_UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))


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

    def told(self) -> dict[str, Any]:
        """Return it as JSON has it; facts keep their order."""
        return asdict(self) | {"config": str(self.config), "data": str(self.data), "facts": dict(self.facts)}


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
    """

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    memory_bytes: int = 0
    disk_bytes: int = 0

    @contextmanager
    def noted(self, where: str = "") -> Iterator[None]:
        """Turn an error that a training would end with into a fault, and go on."""
        try:
            yield
        except Her2Error as error:
            self._note(error, where)

    def attempt(self, work: Callable[[], T]) -> T | None:
        """Return what the work gives; None, and a fault, where it ends with an error."""
        try:
            return work()
        except Her2Error as error:
            self._note(error, "")
            return None

    def _note(self, error: Her2Error, where: str) -> None:
        if isinstance(error, ManifestFaults):
            self.faults += error.faults
        else:
            self.faults.append(f"{where}{error}")

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

    def estimates(self) -> dict[str, str]:
        """Return what the training is expected to take, in words."""
        facts = {}
        if self.seconds:
            parts = ", ".join(f"{what} {duration(taken)}" for what, taken in self.seconds.items())
            facts["Estimated time"] = f"{duration(sum(self.seconds.values()))}: {parts}"
        if self.memory_bytes:
            facts["Estimated memory"] = f"{size(self.memory_bytes)}, without what layers need on the way"
        if self.disk_bytes:
            facts["Estimated disk space"] = size(self.disk_bytes)
        return facts

    def all_facts(self) -> tuple[tuple[str, str], ...]:
        """Return the facts, those about the estimate last."""
        left_out = {"Not in the estimate": "; ".join(self.left_out)} if self.left_out else {}
        return tuple((self.facts | self.estimates() | left_out).items())


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
