"""A day's list at work: cases for one or several models, one after the other, going on where it was stopped.

It scores by the same jobs as `napari_her2.cohort.run.score_cohort_steps`, here or on a cluster: a model is
loaded once, a slide that fails stops no other, and what an earlier run finished is recognised by what its
files hold.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_her2.cohort.case_table import case_answers
from napari_her2.cohort.day_cases import cases_for
from napari_her2.cohort.day_file import (
    DAY_FILE,
    DayState,
    append_item,
    going_on,
    held_day,
    read_day,
    write_day,
)
from napari_her2.cohort.day_items import STATES, DayModel, DaySettings, Item, planned
from napari_her2.cohort.outcome import reason_of
from napari_her2.cohort.run import RETRIES, anywhere, score_jobs_steps
from napari_her2.cohort.score_job import ScoreJob
from napari_her2.cohort.sources import ModelSource, absolute
from napari_her2.errors import Her2Error, JobFailed
from napari_her2.export.result_files import RESULT_FILE
from napari_her2.steps import Progress
from napari_her2.whole_files import check_writable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

    from napari_her2.cohort.case_answer import CaseAnswer
    from napari_her2.cohort.day_items import State
    from napari_her2.cohort.day_list import DayList
    from napari_her2.cohort.entry import Entry
    from napari_her2.cohort.outcome import CohortProgress, SlideOutcome
    from napari_her2.cohort.score_job import Case
    from napari_her2.cohort.tls import TlsFiles
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.card import ModelCard

_MOST_LOST = 2
_LOST = (
    f"The program ended {_MOST_LOST} times while this was being scored: score it by itself, which tells why, "
    f"or try it again."
)
_EARLIER = "finished by an earlier run"


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of a cluster, who score instead of this machine; see `score_cohort_steps`.

    Parameters
    ----------
    scheduler : str
        Address of a dask scheduler, or the file it wrote.
    tls : TlsFiles or None
    retries : int
    """

    scheduler: str
    tls: TlsFiles | None = None
    retries: int = RETRIES


@dataclass(frozen=True, slots=True)
class DayProgress(Progress):
    """A step of a list.

    Parameters
    ----------
    stage, done, total, unit, note
        As of `Progress`: of the slide that is being scored.
    number : int
        Of the item that this step is about; -1 where it is about all.
    outcome : SlideOutcome or None
        Of the slide that this step finished.
    warning : str
        What concerns all slides and should be known.
    """

    number: int = -1
    outcome: SlideOutcome | None = None
    warning: str = ""

    @property
    def lasting(self) -> bool:
        """Whether it is more than how far a slide is."""
        return bool(self.warning) or self.outcome is not None


class DayQueue:
    """A list in the folder that its results go to.

    Parameters
    ----------
    folder : Path
        It holds a list, see `DayQueue.begin`.

    Raises
    ------
    JobFailed
        If it holds none, or one that cannot be read.

    Attributes
    ----------
    folder : Path
    changes : list of int
        Numbers of the items that changed, in the order in which they did; whoever shows them remembers how
        far it has read.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = absolute(folder)
        self.changes: list[int] = []
        self._enough = threading.Event()
        state = read_day(self.folder)
        self._settings, self.entries, self.models = state.settings, state.entries, state.models
        self._items = list(map(self._still_there, state.items))

    @classmethod
    def begin(
        cls,
        folder: Path | str,
        cases: DayList | Sequence[Entry],
        models: Sequence[tuple[Path | str, ModelCard]],
        settings: DaySettings | None = None,
    ) -> DayQueue:
        """Begin a list, or go on with the one in the folder.

        Parameters
        ----------
        folder : Path or str
            For the results: a folder for each model in it, with a folder for each slide. What a list there
            has done already for the same case and model by the same settings stays done; cases and models
            that are not given any more leave the list, their results stay.
        cases : DayList or sequence of Entry
        models : sequence of (Path or str, ModelCard)
            Each by its name or file, and its card.
        settings : DaySettings, optional

        Returns
        -------
        DayQueue

        Raises
        ------
        JobFailed
            If there is nothing to score, the folder cannot be written, or somebody works on its list.
        """
        target, chosen = absolute(folder), settings or DaySettings()
        entries = tuple(cases if isinstance(cases, list | tuple) else cases.entries)  # type: ignore[union-attr]
        cards = {card.name: (DayModel.of(card, source), card) for source, card in models}
        if not entries or not cards:
            raise JobFailed("A list takes at least one case and one model: choose both.")
        check_writable(target)
        chosen = replace(chosen, options=chosen.options.calibrated())
        items = planned(entries, [card for _, card in cards.values()], chosen.case_slides)
        state = DayState(entries, tuple(model for model, _ in cards.values()), items, chosen)
        with held_day(target):
            if (target / DAY_FILE).is_file():
                state = going_on(state, read_day(target))
            write_day(target, state)
        return cls(target)

    @property
    def items(self) -> tuple[Item, ...]:
        """How every case stands with every model."""
        return tuple(self._items)

    def item(self, number: int) -> Item:
        """Return how a case stands with a model, by the number of the item."""
        return self._items[number]

    @property
    def settings(self) -> DaySettings:
        """How its slides are scored."""
        return self._settings

    def counts(self) -> dict[State, int]:
        """Return how many items are in each state."""
        found = Counter(item.state for item in self._items)
        return {state: found[state] for state in STATES}

    def entry_of(self, item: Item) -> Entry:
        """Return the case of an item."""
        return self.entries[item.entry]

    def model_of(self, item: Item) -> DayModel:
        """Return the model of an item."""
        return self.models[item.model]

    def folder_of(self, item: Item) -> Path | None:
        """Folder of its result; None where there is none."""
        return self.folder / item.folder if item.folder else None

    def case_answers(self, *, lone: bool = False) -> list[CaseAnswer]:
        """Join the results of cases with several slides that are there, by model; read from their files.

        With ``lone``, those of one slide are told beside them.
        """
        folders = [self.folder_of(item) for item in self._items if item.state == "done"]
        return case_answers((folder for folder in folders if folder is not None), lone=lone)

    def pause(self) -> None:
        """Begin no other slide; those under way are finished.

        To stop at once, close the generator of `steps`.
        """
        self._enough.set()

    @property
    def pausing(self) -> bool:
        """Whether it pauses after what is under way."""
        return self._enough.is_set()

    def retry(self, numbers: Iterable[int] | None = None) -> int:
        """Let items that failed, or whose slides had a problem, be tried again.

        Parameters
        ----------
        numbers : iterable of int, optional
            By default all that failed.

        Returns
        -------
        int
            How many wait again.

        Raises
        ------
        JobFailed
            If the folder cannot be written to, or somebody works on the list.
        """
        chosen = range(len(self._items)) if numbers is None else numbers
        again = [number for number in chosen if self.can_retry(number)]
        entries = list(self.entries)
        for number in again:
            at = self._items[number].entry
            entries[at] = replace(entries[at], problem="")  # whoever opens the slide will see
        with held_day(self.folder):
            self.entries = tuple(entries)
            for number in again:
                self._items[number] = self._items[number].again()
            write_day(self.folder, self._state())
        self.changes += again
        return len(again)

    def leave_out(self, numbers: Iterable[int]) -> None:
        """Skip items that wait."""
        with held_day(self.folder):
            for number in numbers:
                item = self._items[number]
                if item.state == "waiting":
                    self._set(number, replace(item, state="skipped", reason="left out by you"))

    def steps(self, workers: Workers | None = None) -> Generator[DayProgress, None, dict[State, int]]:
        """Score what waits, model by model.

        Parameters
        ----------
        workers : Workers, optional
            By default this machine scores.

        Yields
        ------
        DayProgress
            Closing the generator stops at once: what was being scored waits again, and what was computed of
            it stays in the cache.

        Returns
        -------
        dict of str to int
            How many items are in each state.

        Raises
        ------
        JobFailed
            What concerns all slides: the folder, the cluster; what is finished is kept.
        """
        try:
            with held_day(self.folder):
                write_day(self.folder, self._state())
                for number, item in enumerate(self._items):
                    if item.state == "waiting" and item.lost >= _MOST_LOST:
                        self._set(number, replace(item, state="failed", reason=_LOST))
                for model in range(len(self.models)):
                    if not self._enough.is_set():
                        yield from self._model_steps(model, workers)
        finally:
            self._enough.clear()
        return self.counts()

    def _model_steps(self, model: int, workers: Workers | None) -> Generator[DayProgress, None, None]:
        """Score what waits for one model, which is loaded once."""
        numbers = [
            number
            for number, item in enumerate(self._items)
            if item.model == model and item.state == "waiting"
        ]
        if not numbers:
            return
        # Those that the program did not survive go last: they should not take it from the others.
        numbers.sort(key=lambda number: self._items[number].lost)
        source = ModelSource(self.models[model].where)
        yield DayProgress(f"Loading {self.models[model].name}")
        try:
            bundle = source.load()
        except Her2Error as error:
            for number in numbers:
                self._set(number, replace(self._items[number], state="failed", reason=str(error)))
            return
        yield from self._scored(numbers, source, bundle, workers)

    def _scored(
        self, numbers: Sequence[int], source: ModelSource, bundle: ModelBundle, workers: Workers | None
    ) -> Generator[DayProgress, None, None]:
        jobs, known = [], []
        taken = cases_for(self.entries, bundle.card, self._settings.case_slides)
        for number in numbers:
            case = taken[self._items[number].entry]
            if isinstance(case, str):
                self._set(number, replace(self._items[number], state="skipped", reason=case))
            else:
                jobs.append(self._job(number, case))
                known.append(number)
        scheduler = workers or Workers("")
        steps = score_jobs_steps(
            jobs,
            source,
            bundle,
            self.folder,
            scheduler=scheduler.scheduler or None,
            tls=scheduler.tls,
            retries=scheduler.retries,
            enough=self._enough.is_set,
        )
        running: dict[int, float] = {}
        try:
            for step in steps:
                about = [known[place] for place in step.places]
                for number in about if step.outcome is None else ():
                    if number not in running:
                        running[number] = time.time()
                        self._begin(number, running[number])
                if step.outcome is not None:
                    self._finish(about[0], step.outcome, running.pop(about[0], time.time()))
                yield _progress(step, about)
        finally:
            steps.close()
            for number in running:  # stopped, or the cluster is gone
                self._set(number, self._items[number].again())

    def _job(self, number: int, case: Case) -> ScoreJob:
        out = self.folder / self.models[self._items[number].model].name
        place = self.entries[self._items[number].entry].place
        settings = self._settings
        return ScoreJob(
            anywhere(case),
            out / place if place else out,
            settings.options,
            settings.device,
            settings.backend,
            skip_finished=True,
        )

    def _begin(self, number: int, now: float) -> None:
        self._set(number, replace(self._items[number], state="running", started=now, reason=""))

    def _finish(self, number: int, outcome: SlideOutcome, started: float) -> None:
        item = replace(self._items[number], started=started, seconds=round(time.time() - started, 3), lost=0)
        if outcome.error is not None:
            item = replace(item, state="failed", reason=reason_of(outcome.error))
        else:
            written = outcome.written
            folder = "" if written is None else written.relative_to(self.folder).as_posix()
            reason = _EARLIER if outcome.state == "skipped" else ""
            item = replace(item, state="done", reason=reason, folder=folder)
        self._set(number, item)

    def _set(self, number: int, item: Item) -> None:
        """Keep how an item stands now; on the disk first."""
        append_item(self.folder, number, item)
        self._items[number] = item
        self.changes.append(number)

    def _state(self) -> DayState:
        return DayState(self.entries, self.models, tuple(self._items), self._settings)

    def _still_there(self, item: Item) -> Item:
        """Let an item whose result is gone wait again."""
        gone = item.state == "done" and not (self.folder / item.folder / RESULT_FILE).is_file()
        return item.again() if gone else item

    def can_retry(self, number: int) -> bool:
        """Whether an item failed, or was skipped because its slides had a problem."""
        item = self._items[number]
        entry = self.entries[item.entry]
        return item.state == "failed" or (
            item.state == "skipped" and bool(entry.slides) and item.reason == entry.problem
        )


def _progress(step: CohortProgress, about: Sequence[int]) -> DayProgress:
    number = about[0] if len(about) == 1 else -1
    return DayProgress(
        step.stage,
        step.done,
        step.total,
        step.unit,
        step.note,
        number=number,
        outcome=step.outcome,
        warning=step.warning,
    )
