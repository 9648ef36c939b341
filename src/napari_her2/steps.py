"""Generators that report on their way and return what they made: run to their end, or passed on."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

Report = TypeVar("Report")
Changed = TypeVar("Changed")
Made = TypeVar("Made")


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
