"""A study as CSV: every reading, a row a case, agreement and disagreements."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_her2.export.csv_cells import write_records, write_table
from napari_her2.reading.agreement import LevelTable, agreements
from napari_her2.reading.disagreements import disagreements
from napari_her2.reading.levels import LEVELS
from napari_her2.reading.model_answers import find_answers
from napari_her2.reading.readings import counted_readings, read_readings
from napari_her2.reading.study_file import read_study
from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from napari_her2.reading.agreement import Agreement
    from napari_her2.reading.disagreements import Disagreement
    from napari_her2.reading.readings import Reading
    from napari_her2.reading.worklist import Study

READINGS, WIDE = "readings.csv", "wide.csv"
AGREEMENT, DISAGREEMENTS = "agreement.csv", "disagreements.csv"
_READING_COLUMNS = (
    "reader", "round", "case", "score", "category", "percentage", "ish", "comment", "seconds", "time",
    "counts", "changed", "blinded", "model_seen", "skipped", "fingerprints",
)  # fmt: skip


def export_study(
    folder: Path, out: Path, *, corrected: bool = False, note: Callable[[str], object] = lambda _: None
) -> tuple[Path, ...]:
    """Write all four tables of a study, each whole or not at all.

    Parameters
    ----------
    folder : Path
        Of the study.
    out : Path
        Made where it is missing.
    corrected : bool
        As for `napari_her2.reading.readings.counted_readings`.
    note : callable
        Called with what could not be read, a sentence each.

    Returns
    -------
    tuple of Path

    Raises
    ------
    JobFailed
        If the study cannot be read, or a table not be written.
    """
    study, found = read_study(folder), read_readings(folder)
    answers = find_answers(study.results)
    for problem in (*found.notes, *answers.notes):
        note(problem)
    tables = {
        name: LevelTable(study, found.readings, levels, corrected=corrected)
        for name, levels in LEVELS.items()
    }
    rows = [row for table in tables.values() for row in agreements(table, answers)]
    return (
        write_readings(out / READINGS, found.readings, corrected=corrected),
        write_wide(out / WIDE, study, found.readings, corrected=corrected),
        write_agreement(out / AGREEMENT, rows),
        write_disagreements(out / DISAGREEMENTS, study, disagreements(tables["five"])),
    )


def write_readings(path: Path, readings: Iterable[Reading], *, corrected: bool = False) -> Path:
    """Write every reading, also those that were corrected, with whether it counts for agreement."""
    readings = tuple(readings)
    counted = {id(reading) for reading in counted_readings(readings, corrected=corrected)}
    with whole_file(path) as file:
        write_records(
            file,
            _READING_COLUMNS,
            ({**_values(reading), "counts": _yes(id(reading) in counted)} for reading in readings),
        )
    return path


def write_wide(path: Path, study: Study, readings: Iterable[Reading], *, corrected: bool = False) -> Path:
    """Write a row a case, with a column of scores and one of percentages for each reader and round."""
    counted = counted_readings(readings, corrected=corrected)
    read = {(of.reader, of.round, of.case): of for of in counted}
    sittings = sorted({key[:2] for key in read}, key=lambda of: (of[1], of[0]))
    columns = ["case", "H&E", "IHC", "slide"]
    columns += [f"{reader}, round {name}{what}" for reader, name in sittings for what in ("", ", %")]

    def row_of(case_id: str, slides: dict[str, str]) -> list[object]:
        row: list[object] = [case_id, *(slides.get(stain, "") for stain in ("H&E", "IHC", ""))]
        for sitting in sittings:
            reading = read.get((*sitting, case_id))
            row += ["", ""] if reading is None else [reading.score, _number(reading.percentage)]
        return row

    with whole_file(path) as file:
        write_table(
            file,
            columns,
            (row_of(of.case_id, {slide.stain: str(slide.path) for slide in of.slides}) for of in study.cases),
        )
    return path


def write_agreement(path: Path, rows: Sequence[Agreement]) -> Path:
    """Write coefficients with intervals; what is not known is empty, with its reason in the last column."""
    columns = ("levels", "who", "measure", "value", "low_95", "high_95", "cases", "note")
    with whole_file(path) as file:
        write_table(file, columns, map(_agreement_row, rows))
    return path


def write_disagreements(path: Path, study: Study, rows: Sequence[Disagreement]) -> Path:
    """Write the queue of a consensus reading."""
    columns = ("case", "levels_apart", "entropy_bits", *study.readers, "consensus")
    with whole_file(path) as file:
        write_table(
            file,
            columns,
            (
                [
                    of.case,
                    of.apart,
                    f"{of.entropy:.3f}",
                    *(of.levels.get(reader, "") for reader in study.readers),
                    of.agreed,
                ]
                for of in rows
            ),
        )
    return path


def _agreement_row(row: Agreement) -> list[object]:
    of = row.estimate
    numbers = ["" if math.isnan(value) else f"{value:.4f}" for value in (of.value, of.low, of.high)]
    return [row.levels, row.who, row.measure, *numbers, of.cases, of.note]


def _values(reading: Reading) -> dict[str, object]:
    return {
        "reader": reading.reader,
        "round": reading.round,
        "case": reading.case,
        "score": reading.score,
        "category": reading.category,
        "percentage": _number(reading.percentage),
        "ish": reading.ish,
        "comment": reading.comment,
        "seconds": f"{reading.seconds:.1f}",
        "time": reading.time.isoformat(timespec="seconds"),
        "changed": _yes(reading.changed),
        "blinded": _yes(reading.blinded),
        "model_seen": _yes(reading.model_seen),
        "skipped": reading.skipped,
        "fingerprints": " ".join(
            f"{stain}:{of}" if stain else of for stain, of in reading.fingerprints.items()
        ),
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
