"""What a cohort says: an outcome a slide, progress on the way, and a report at the end."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from napari_her2.errors import Her2Error, file_problem
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from pathlib import Path

State = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, slots=True, eq=False)
class SlideOutcome:
    """What became of one slide. Small enough to travel: what was computed lies in the files.

    Parameters
    ----------
    path : Path
        Of the slide.
    state : str
        "done", "skipped" (an earlier run had finished it) or "failed".
    title : str
        For a person: "case-7: 2+ (equivocal, ISH required)".
    written : Path or None
        Folder or file of the result; None where there is none.
    facts : tuple of (str, str)
        Name and text for a person, in the order in which they are shown.
    error : Exception or None
        Why it failed.
    worker : str
        Address of the worker of a cluster; empty where there was none.
    tries : int
        How often it was begun.
    withheld : bool
        Whether there is an answer that is not shown, because the slide is unlike what the model learnt from.
    """

    path: Path
    state: State
    title: str
    written: Path | None = None
    facts: tuple[tuple[str, str], ...] = ()
    error: Exception | None = None
    worker: str = ""
    tries: int = 1
    withheld: bool = False

    @classmethod
    def failure(cls, path: Path, error: Exception, worker: str = "", tries: int = 1) -> SlideOutcome:
        """Return the outcome of a slide that failed."""
        return cls(path, "failed", path.name, error=error, worker=worker, tries=tries)

    def computed_by(self, worker: str, tries: int) -> SlideOutcome:
        """Return the same outcome with where it was computed, for a person too."""
        where = (("worker", worker),) + ((("tries", str(tries)),) if tries > 1 else ())
        return replace(self, worker=worker, tries=tries, facts=self.facts + where)


@dataclass(frozen=True, slots=True)
class CohortProgress(Progress):
    """A step of a cohort.

    Parameters
    ----------
    stage, done, total, unit, note
        As of `Progress`.
    outcome : SlideOutcome or None
        Of the slide that this step finished.
    warning : str
        What concerns all slides and should be known; empty where there is nothing.
    places : tuple of int
        The slides that this step is about, those under way or the one that is finished, by their number as
        given, from 0; empty where it is about all.
    """

    outcome: SlideOutcome | None = None
    warning: str = ""
    places: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class CohortReport:
    """What became of a cohort.

    Parameters
    ----------
    outcomes : tuple of SlideOutcome
        One a slide, in the order in which the slides were given; without those that were not begun, where
        somebody had enough.
    """

    outcomes: tuple[SlideOutcome, ...]

    def of(self, state: State) -> tuple[SlideOutcome, ...]:
        """Return the outcomes of a state."""
        return tuple(outcome for outcome in self.outcomes if outcome.state == state)


def forget_locals(error: BaseException) -> None:
    """Free what the frames of an error hold, arrays of a slide among it; where it was raised stays known."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def reason_of(error: Exception) -> str:
    """Say why a slide failed, for a person."""
    if isinstance(error, Her2Error):
        return str(error)
    if isinstance(error, OSError):
        return file_problem(error)
    if isinstance(error, MemoryError):
        return "The memory is too short: close other programs and try it again."
    what = f"{type(error).__name__}: {error}"[:500]
    return f"An error that was not foreseen ({what}): score this slide by itself with --debug and report it."
