"""What the dock of a day's list runs in threads, as generators without Qt."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from napari_her2._napari.table_import import load_tables
from napari_her2._napari.torch_import import load_torch
from napari_her2.cohort.case_table import CASES_FILE, write_case_table
from napari_her2.cohort.day_queue import DayQueue
from napari_her2.cohort.day_rows import reading_rows, row_facts
from napari_her2.cohort.day_run import score_day_steps
from napari_her2.cohort.day_table import DAY_TABLE, OwnScore, day_records, write_day_csv, write_day_table
from napari_her2.desk.own_score import ManualScore
from napari_her2.errors import Her2Error, JobFailed, SlideError
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

    from napari_her2.cohort.day_items import Item, State
    from napari_her2.cohort.day_rows import RowFacts
    from napari_her2.cohort.day_run import Workers
    from napari_her2.inference.result import SlideResult
    from napari_her2.slide.reader import Slide

Counts = dict["State", int]


@dataclass(slots=True, eq=False)
class Day:
    """A list and what its rows show; a thread fills it, the window reads it.

    Parameters
    ----------
    queue : DayQueue
    facts : dict of int to RowFacts or None
        What the results say, by the number of the item.
    own : dict of str to ManualScore
        What the pathologist reads, by the fingerprint of a slide.
    """

    queue: DayQueue
    facts: dict[int, RowFacts | None] = field(default_factory=dict)
    own: dict[str, ManualScore] = field(default_factory=dict)

    def own_score(self, facts: RowFacts | None) -> ManualScore:
        """Return what the pathologist reads of the slides of a row, first on its IHC slide."""
        given = [self.own[key] for key in reversed(facts.fingerprints if facts else ()) if key in self.own]
        return next((score for score in given if score.given), ManualScore())

    def records(self, numbers: Iterable[int] | None = None) -> list[dict[str, object]]:
        """Return the rows of the table, all or some in an order of their own."""

        def own(facts: RowFacts) -> OwnScore:
            score = self.own_score(facts)
            return OwnScore(score.score, score.ish, score.note)

        return day_records(self.queue, self.facts, own, numbers)


@dataclass(frozen=True, slots=True)
class DayBegun(Progress):
    """The list is there, and is about to be worked on."""

    day: Day | None = None


@dataclass(frozen=True, slots=True)
class OpenedRow:
    """The slides of a row, and its result as it is kept.

    Parameters
    ----------
    slides : tuple of Slide
        Closed by whoever takes them.
    result : SlideResult
        Of these very slides.
    when : datetime or None
        When they were scored.
    """

    slides: tuple[Slide, ...]
    result: SlideResult
    when: datetime | None = None


def running_day(
    begin: Callable[[], DayQueue], workers: Workers | None, *, retry: bool = False
) -> Generator[Progress, None, Counts]:
    """Begin a list, or go on with one, and score what waits; closing it stops at once.

    Parameters
    ----------
    begin : callable
        Makes the queue.
    workers : Workers or None
    retry : bool
        Whether what failed is tried again.
    """
    yield Progress("Preparing the list")
    day = Day(begin())
    queue = day.queue
    if retry:
        queue.retry()
    yield from _filled(day)
    yield DayBegun("Loading PyTorch", day=day)
    load_torch()
    try:
        for step in score_day_steps(queue, workers):
            if step.outcome is not None and step.number >= 0:
                item = queue.item(step.number)
                facts = _facts_of(queue, item)
                _take_own(day, facts)
                day.facts[step.number] = facts
            yield step
    finally:
        write_day_csv(queue.folder / DAY_TABLE, day.records())
        write_case_table(queue.folder / CASES_FILE, queue.case_answers(lone=True))
    return queue.counts()


def opening_day(folder: Path) -> Generator[Progress, None, Day]:
    """Read a list and its results; nothing is scored."""
    yield Progress("Reading the list")
    day = Day(DayQueue(folder))
    yield from _filled(day)
    return day


def changing_day(change: Callable[[], object]) -> Generator[Progress, None, None]:
    """Change which rows of a list wait: its file is written anew, which takes a moment."""
    yield Progress("Changing the list")
    change()


def writing_day(day: Day, path: Path, numbers: Sequence[int]) -> Generator[Progress, None, Path]:
    """Write the rows of a list as CSV or XLSX, in the order in which they are shown."""
    yield Progress("Writing")
    write_day_table(path, day.records(numbers))
    return path


def opening_row(day: Day, number: int) -> Generator[Progress, None, OpenedRow]:
    """Open the slides of a row and read its result; nothing is scored.

    Raises
    ------
    JobFailed, SlideError
        If the row has no result, it cannot be read, or a slide changed since it was scored.
    """
    from napari_her2.export.kept_result import KEPT_NAME, read_kept
    from napari_her2.inference.unchanged import identified
    from napari_her2.slide.facts import GIVEN_BY_USER
    from napari_her2.slide.reader import open_slide

    item = day.queue.item(number)
    folder, entry = day.queue.folder_of(item), day.queue.entry_of(item)
    if folder is None or not (folder / KEPT_NAME).is_file():
        raise JobFailed(f"{entry.name} has no result that can be shown: score it first, or try it again.")
    yield Progress("Reading the result")
    result = read_kept(folder / KEPT_NAME)
    wanted = {scored.fingerprint: scored for scored in result.slides}
    scales = zip(entry.slides, entry.scales, entry.scale_sources, strict=True)
    with ExitStack() as stack:
        slides: dict[str, Slide] = {}
        for path, mpp, source in scales:
            if not any(scored.path.name == path.name for scored in result.slides):
                continue  # the other slide of the case, which the model did not take
            yield Progress(f"Opening {path.name}")
            slide = stack.enter_context(open_slide(path, mpp=mpp, mpp_source=source or GIVEN_BY_USER))
            yield from identified(slide)
            slides[slide.fingerprint] = slide
        if wanted.keys() - slides.keys():
            raise SlideError(f"The slides of {entry.name} changed since they were scored: score them again.")
        result = read_kept(folder / KEPT_NAME, {key: slide.slide_id for key, slide in slides.items()})
        load_tables()
        stack.pop_all()  # kept open: whoever takes them closes them
    ended = None if item.started is None else datetime.fromtimestamp(item.started + (item.seconds or 0), UTC)
    return OpenedRow(tuple(slides[key] for key in wanted), result, ended)


def _filled(day: Day) -> Generator[Progress, None, None]:
    """Read what the results say, and what the pathologist left on their slides."""
    done = [number for number, item in enumerate(day.queue.items) if item.state == "done"]
    day.facts.update((yield from reading_rows(day.queue, done)))
    for facts in list(day.facts.values()):
        _take_own(day, facts)


def _take_own(day: Day, facts: RowFacts | None) -> None:
    """Look up the own scores of the slides of a row, where they are not known yet."""
    from napari_her2.desk.store import Desk

    for fingerprint in facts.fingerprints if facts is not None else ():
        if fingerprint in day.own:
            continue
        try:
            kept = Desk().read(fingerprint)
        except Her2Error:  # the scoring dock says so when the slide is opened
            continue
        if kept is not None and kept.own_score.given:
            day.own[fingerprint] = kept.own_score


def _facts_of(queue: DayQueue, item: Item) -> RowFacts | None:
    folder = queue.folder_of(item) if item.state == "done" else None
    return None if folder is None else row_facts(folder)
