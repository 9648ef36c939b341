"""The page of a study of readers: who read what, how far they agree, and which cases they part on."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from napari_her2.models.card import NOTICE
from napari_her2.reading.agreement import LevelTable, agreements
from napari_her2.reading.disagreements import disagreements, latest_round
from napari_her2.reading.levels import LEVELS
from napari_her2.reading.model_answers import find_answers
from napari_her2.reading.readings import counted_readings, read_readings
from napari_her2.reading.study_file import read_study
from napari_her2.reports.page import Page, Table
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_her2.reading.agreement import Agreement
    from napari_her2.reading.disagreements import Disagreement
    from napari_her2.reading.readings import Reading
    from napari_her2.reading.worklist import Study

LEVEL_NAMES = ("five", "ihc")
MOST_AGREEMENTS, MOST_CASES, MOST_READERS = 24, 12, 12
_ULTRALOW = "HER2-ultralow is read by persons alone; no model predicts it."


def study_steps(folder: Path, when: datetime | None = None) -> Generator[Progress, None, Page]:
    """Make the page of a study.

    Parameters
    ----------
    folder : Path
        Of the study.
    when : datetime, optional
        Time of the report; now.

    Yields
    ------
    Progress

    Returns
    -------
    Page

    Raises
    ------
    JobFailed
        If the folder holds no study, or its files are damaged.
    """
    study, found = read_study(folder), read_readings(folder)
    yield Progress("Reading the study")
    answers = find_answers(study.results)
    rows: list[Agreement] = []
    for done, name in enumerate(LEVEL_NAMES):
        yield Progress("Comparing readers", done, len(LEVEL_NAMES), "levels")
        rows += agreements(LevelTable(study, found.readings, LEVELS[name]), answers)
    table = LevelTable(study, found.readings, LEVELS[LEVEL_NAMES[0]])
    parted = disagreements(table)
    return Page(
        title=f"HER2 reading: {study.title}",
        subtitle=f"Written on {when or datetime.now(UTC):%Y-%m-%d %H:%M %Z} by napari-her2",
        notice=NOTICE,
        left=(Table("Study", _study_rows(study)),),
        right=(_readers_table(study, found.readings),),
        wide=(_agreement_table(rows), _parted_table(parted, study, latest_round(table))),
        warnings=(*found.notes, *answers.notes),
    )


def _study_rows(study: Study) -> tuple[tuple[str, ...], ...]:
    pairs = sum(len(case.slides) == 2 for case in study.cases)
    hidden = "names, models and maps are hidden until a case is scored" if study.blinded else "nothing hidden"
    return (
        ("cases", f"{len(study.cases):,}, {pairs:,} of them with H&E and IHC"),
        ("readers", f"{len(study.readers)}"),
        ("rounds", f"{study.rounds}, {study.washout_days:g} days between them"),
        ("order", f"shuffled by seed {study.seed}, for each reader and round"),
        ("blinded", hidden),
        ("shown after", {"never": "nothing", "each": "each reading", "last": "the last round"}[study.reveal]),
    )


def _readers_table(study: Study, readings: Sequence[Reading]) -> Table:
    """How much each reader has read, and what."""
    counted, five = counted_readings(readings), LEVELS[LEVEL_NAMES[0]]
    rows = []
    for reader in study.readers[:MOST_READERS]:
        for name in study.round_names:
            own = [reading for reading in counted if (reading.reader, reading.round) == (reader, name)]
            scored = [reading for reading in own if reading.score]
            if not own:
                continue
            seconds = sorted(reading.seconds for reading in scored)
            middle = f"{seconds[len(seconds) // 2]:.0f} s" if seconds else ""
            counts = Counter(map(five.level_of, scored))
            words = ", ".join(f"{name}: {counts[level]}" for level, name in enumerate(five.levels))
            rows.append((reader, name, f"{len(scored):,}", middle, words))
    more = len(study.readers) - MOST_READERS
    note = f"and {more:,} more readers. {_ULTRALOW}" if more > 0 else _ULTRALOW
    return Table(
        "Readings that count", tuple(rows), ("reader", "round", "cases", "median time", "scores"), note
    )


def _agreement_table(rows: Sequence[Agreement]) -> Table:
    shown = tuple(
        (
            row.levels,
            row.who,
            row.measure,
            _value(row, row.estimate.value),
            _interval(row),
            f"{row.estimate.cases:,}",
        )
        for row in rows[:MOST_AGREEMENTS]
    )
    if not shown:
        return Table(
            "Agreement", (), note="Nothing can be compared yet: it takes two readers, or two rounds."
        )
    more = len(rows) - len(shown)
    note = f"and {more:,} more rows in the CSV of the study" if more else ""
    header = ("levels", "who", "measure", "value", "95 % interval", "cases")
    return Table("Agreement", shown, header, note)


def _value(row: Agreement, value: float) -> str:
    if math.isnan(value):
        return "not known"
    return f"{value:.1f} %" if row.measure.endswith("%") else f"{value:.3f}"


def _interval(row: Agreement) -> str:
    of = row.estimate
    return of.note if math.isnan(of.low) else f"{_value(row, of.low)} to {_value(row, of.high)}"


def _parted_table(parted: Sequence[Disagreement], study: Study, round_name: str) -> Table:
    rows = tuple(
        (
            each.case,
            f"{each.apart}",
            ", ".join(f"{reader} {level}" for reader, level in each.levels.items()),
            each.agreed,
        )
        for each in parted[:MOST_CASES]
    )
    note = f"{len(parted):,} of {len(study.cases):,} cases are read differently in round {round_name}."
    header = ("case", "levels apart", "read as", "agreed on")
    return Table("Cases that readers part on most", rows, header if rows else (), note)
