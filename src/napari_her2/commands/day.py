"""A day's list on the command line: what is paired is shown first, then every slide as it is done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from napari_her2.commands.bars import drive
from napari_her2.commands.cohort import regions_of_slide
from napari_her2.commands.console import FAILED, output, plain, say
from napari_her2.number_words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from napari_her2.cohort.day_list import DayList
    from napari_her2.cohort.day_queue import DayQueue
    from napari_her2.cohort.tls import TlsFiles
    from napari_her2.models.card import ModelCard
    from napari_her2.steps import Progress

_SHOWN = 40


@dataclass(frozen=True, slots=True)
class DayWishes:
    """What is asked of a list: the options of the command that no single slide has."""

    he_names: str = ""
    ihc_names: str = ""
    subfolders: bool = True
    mpp: float | None = None
    ihc_mpp: float | None = None
    regions: Path | None = None
    dry_run: bool = False
    retry_failed: bool = False
    case_slides: str = "auto"

    @property
    def of_a_list(self) -> bool:
        """Whether anything is asked that only a list has."""
        named = self.he_names or self.ihc_names or self.case_slides != "auto"
        return bool(named or self.dry_run or self.retry_failed)


def is_list(slides: Sequence[Path]) -> bool:
    """Whether a folder is given that is no slide of DICOM files by itself."""
    from napari_her2.cohort.day_files import is_slide_folder

    return any(path.is_dir() and not is_slide_folder(path) for path in slides)


def score_day(
    sources: Sequence[Path],
    models: Sequence[str],
    out: Path,
    wishes: DayWishes,
    options: Mapping[str, Any],
    *,
    device: str,
    backend: str,
    cluster: tuple[str, TlsFiles | None, int] | None,
) -> None:
    """Put a list together, show it, and score it; the same command goes on where it was stopped.

    Raises
    ------
    typer.Exit
        With 1, if anything failed or was refused.
    """
    from napari_her2.cohort.day_items import DaySettings
    from napari_her2.cohort.day_list import NamePatterns, entries_steps
    from napari_her2.cohort.day_queue import DayQueue
    from napari_her2.cohort.day_run import Workers
    from napari_her2.cohort.sources import ModelSource
    from napari_her2.desk.kept_scales import kept_scale
    from napari_her2.inference.options import ScoringOptions

    settings = DaySettings(ScoringOptions(**options), device, backend, wishes.case_slides)
    cards = [(name, ModelSource(name).card()) for name in models]
    patterns = NamePatterns(wishes.he_names, wishes.ihc_names)
    found = drive(
        entries_steps(
            sources,
            patterns,
            subfolders=wishes.subfolders,
            mpp=wishes.mpp,
            ihc_mpp=wishes.ihc_mpp,
            known_scale=kept_scale,
        )
    )
    found = _with_regions(found, wishes.regions)
    _show(found, [card for _, card in cards], wishes.case_slides)
    if wishes.dry_run:
        return
    queue = DayQueue.begin(out, found, cards, settings)
    if wishes.retry_failed:
        queue.retry()
    _work(queue, None if cluster is None else Workers(*cluster))


def _with_regions(found: DayList, regions: Path | None) -> DayList:
    """Give every case without regions of its own those of its first slide, from a folder."""
    if regions is None:
        return found
    entries = [
        entry
        if entry.regions is not None or entry.problem
        else replace(entry, regions=regions_of_slide(regions, entry.slides[0]))
        for entry in found.entries
    ]
    return replace(found, entries=tuple(entries))


def _show(found: DayList, cards: Sequence[ModelCard], case_slides: str) -> None:
    """Print what belongs together, what was refused and what no model takes."""
    from rich.markup import escape
    from rich.table import Table

    from napari_her2.cohort.day_items import planned

    table = Table(title=escape(plain(found.in_words())), title_justify="left", title_style="bold")
    for name in ("case", "H&E slide", "IHC slide", "paired by", "note"):
        table.add_column(name, overflow="fold")
    # What cannot be scored is shown in any case.
    refused = [entry for entry in found.entries if entry.problem]
    fine = [entry for entry in found.entries if not entry.problem]
    for entry in [*fine[:_SHOWN], *refused]:
        names = ("" if path is None else path.name for path in (entry.he, entry.ihc))
        note = f"refused: {entry.problem}" if entry.problem else entry.note
        table.add_row(*(escape(plain(text)) for text in (entry.name, *names, entry.because, note)))
    output().print(table)
    if len(fine) > _SHOWN:
        output().print(f"... and {len(fine) - _SHOWN:,} more")
    for path, why in found.left_out[:_SHOWN]:
        say(f"left out: {path} ({why})")
    for item in planned(found.entries, cards, case_slides):
        entry = found.entries[item.entry]
        if item.state == "skipped" and not entry.problem:
            say(f"{entry.name}, {cards[item.model].name}: skipped. {item.reason}")


def _work(queue: DayQueue, workers: Any) -> None:  # noqa: ANN401 - Workers, imported late
    from napari_her2.cohort.case_table import CASES_FILE
    from napari_her2.cohort.day_run import score_day_steps
    from napari_her2.cohort.day_table import DAY_TABLE

    def report(step: Progress) -> Callable[[], None] | None:
        warning: str = getattr(step, "warning", "")
        if warning:
            return lambda: say(warning)
        outcome, number = getattr(step, "outcome", None), getattr(step, "number", -1)
        return None if outcome is None else lambda: _print_item(queue, number, outcome.title)

    try:
        drive(score_day_steps(queue, workers), tell=report)
    except KeyboardInterrupt:
        say("What is finished is kept: the same command goes on.")
        raise
    finally:
        _write_table(queue)
    counts = queue.counts()
    words = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    output().print(f"{counted(len(queue.items), 'row')}: {words}", highlight=False)
    table = queue.folder / DAY_TABLE
    output().print(f"All of them in one table: {table}", soft_wrap=True, markup=False, highlight=False)
    for answer in queue.case_answers():
        slides = counted(len(answer.slides), "slide")
        say_answer = f"case {answer.case_id} ({slides}), {answer.model}: {answer.label}"
        output().print(plain(say_answer), soft_wrap=True, markup=False, highlight=False)
    if (queue.folder / CASES_FILE).exists():
        cases = f"One answer a case: {queue.folder / CASES_FILE}"
        output().print(cases, soft_wrap=True, markup=False, highlight=False)
    refused = sum(bool(entry.problem) for entry in queue.entries)
    if counts["failed"]:
        say(f"{counts['failed']:,} failed: to try them again, add --retry-failed.")
    if counts["failed"] or refused:
        raise typer.Exit(FAILED)


def _print_item(queue: DayQueue, number: int, title: str) -> None:
    item = queue.item(number)
    done = sum(each.state in ("done", "failed", "skipped") for each in queue.items)
    model = queue.model_of(item).name
    if item.state == "failed":
        say(f"{done}/{len(queue.items)} {queue.entry_of(item).name}, {model}: {item.reason}")
        return
    took = "" if item.seconds is None else f" ({item.seconds:.1f} s)"
    earlier = f", {item.reason}" if item.reason else took
    line = f"{done}/{len(queue.items)} {title}, {model}{earlier}"
    output().print(plain(line), soft_wrap=True, markup=False, highlight=False)


def _write_table(queue: DayQueue) -> None:
    from napari_her2.cohort.case_table import CASES_FILE, write_case_table
    from napari_her2.cohort.day_rows import reading_rows
    from napari_her2.cohort.day_table import DAY_TABLE, day_records, write_day_csv
    from napari_her2.steps import finished

    facts = finished(reading_rows(queue, range(len(queue.items))))
    write_day_csv(queue.folder / DAY_TABLE, day_records(queue, facts))
    write_case_table(queue.folder / CASES_FILE, queue.case_answers(lone=True))
