"""Generators that report on their way and return what they made: what they yield, and how they are run."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

Report = TypeVar("Report")
Changed = TypeVar("Changed")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of long work, yielded by the generators of this package.

    Parameters
    ----------
    stage : str
        What is being done, for a person: "Finding tissue", "Embedding tiles".
    done, total : int
        Units done and to be done in this stage; ``total`` 0 means not known.
    unit : str
        What is counted ("tiles").
    note : str
        Anything worth a line: which device, that the cache was used, memory was short.
    values : mapping of str to float
        Measures of a finished epoch of training ("train_loss", "validation_loss", ...); empty for all other
        reports.
    fold, folds : int
        Which fold of a training it is, counted from 1, and how many there are; 0 where there is one split.
    epoch, epochs : int
        Epochs of a training that are finished, and how many there will be; 0 for all other work.
    """

    stage: str
    done: int = 0
    total: int = 0
    unit: str = ""
    note: str = ""
    values: Mapping[str, float] = field(default_factory=dict, hash=False)
    fold: int = 0
    folds: int = 0
    epoch: int = 0
    epochs: int = 0

    @property
    def title(self) -> str:
        """Stage and fold, for a person: "Training abmil, fold 2 of 5"."""
        return f"{self.stage}, fold {self.fold} of {self.folds}" if self.folds > 1 else self.stage

    @property
    def lasting(self) -> bool:
        """Whether it has to be shown even where newer ones of the same stage follow at once."""
        return False


def finished(steps: Generator[Report, None, Made], report: Callable[[Report], object] | None = None) -> Made:
    """Run a generator to its end.

    Parameters
    ----------
    steps : generator
        Closed in any case.
    report : callable, optional
        Called with each of its reports.

    Returns
    -------
    object
        What it returns.
    """
    with closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                made: Made = end.value
                return made
            if report is not None:
                report(step)


def passed_on(
    steps: Generator[Report, None, Made], change: Callable[[Report], Changed]
) -> Generator[Changed, None, Made]:
    """Pass the reports of other work on, each changed, and return what it returns.

    Parameters
    ----------
    steps : generator
        Closed in any case.
    change : callable
        Given a report, returns the one that is passed on.
    """
    with closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                made: Made = end.value
                return made
            yield change(step)
