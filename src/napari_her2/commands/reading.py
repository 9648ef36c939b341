"""``napari-her2 reading``: studies of readers, from their worklists to their agreement."""

from __future__ import annotations

import math
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from napari_her2.commands.console import output, plain, plainly, say
from napari_her2.commands.flags import Command, Group

if TYPE_CHECKING:
    from napari_her2.reading.agreement import Agreement, LevelTable
    from napari_her2.reading.levels import Levels
    from napari_her2.reading.model_answers import AnswersFound

reading_app = typer.Typer(
    name="reading",
    cls=Group,
    add_completion=False,
    no_args_is_help=True,
    help="Slides read by people: worklists, agreement, disagreements. Research use only.",
    pretty_exceptions_enable=False,
)
_FOLDER = typer.Argument(help="Folder of the study.", metavar="FOLDER")
_LEVELS_HELP = (
    "What is compared: five (0, ultralow, 1+, 2+, 3+), ihc (0, 1+, 2+, 3+), ultralow (any staining), low (1+ "
    "or more), positive (3+, or 2+ with ISH positive); give it again for several."
)
_CORRECTED_HELP = "Count the latest reading also where it was made after a model's answer was shown."
_MOST_SHOWN = 40


def new(
    folder: Annotated[Path, _FOLDER],
    slides: Annotated[
        list[Path],
        typer.Argument(
            help="Slides, folders of slides, or a table (CSV: case_id, he, ihc).", metavar="SLIDES"
        ),
    ],
    reader: Annotated[list[str], typer.Option(help="Name of a reader; give it again for several.")],
    title: Annotated[str, typer.Option(help="Of the study; by default the name of its folder.")] = "",
    rounds: Annotated[int, typer.Option(min=1, max=9, help="How often everybody reads each case.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the orders: the same seed gives the same orders.")] = 0,
    blinded: Annotated[
        bool,
        typer.Option("--blinded/--open", help="Hide file names, models and maps until a case is scored."),
    ] = True,
    reveal: Annotated[
        str,
        typer.Option(
            help="When the file name and the answers of models are shown: never, each (after each reading), "
            "last (after each reading of the last round)."
        ),
    ] = "last",
    results: Annotated[
        list[Path],
        typer.Option(help="Folder of results that may be shown then; give it again for several."),
    ] = [],  # noqa: B006 - typer's way of a default; never changed
    washout_days: Annotated[float, typer.Option(min=0, help="Days between two rounds of a reader.")] = 14.0,
    he_pattern: Annotated[
        str, typer.Option(help="How files of H&E slides are called, * for the case: '*_HE.svs'.")
    ] = "",
    ihc_pattern: Annotated[str, typer.Option(help="How files of IHC slides are called: '*_HER2.svs'.")] = "",
) -> None:
    """Make a study in a folder: which cases, by whom, in which orders."""
    from napari_her2.cohort.day_list import NamePatterns
    from napari_her2.models.card import NOTICE
    from napari_her2.reading.cases import cases_of
    from napari_her2.reading.study_file import write_study
    from napari_her2.reading.worklist import Study

    patterns = NamePatterns(he_pattern, ihc_pattern) if he_pattern or ihc_pattern else None
    found = cases_of(slides, patterns)
    study = Study(
        title=title or folder.absolute().name,
        cases=found.cases,
        readers=tuple(reader),
        rounds=rounds,
        seed=seed,
        blinded=blinded,
        reveal=reveal,  # type: ignore[arg-type]  # checked there
        results=tuple(path.absolute() for path in results),
        washout_days=washout_days,
    )
    path = write_study(folder, study)
    for note in found.notes:
        say(note)
    pairs = sum(len(case.slides) == 2 for case in found.cases)
    typer.echo(f"{len(found.cases)} cases ({pairs} with H&E and IHC), {len(reader)} readers: {path}")
    typer.echo("Read it in napari: Plugins > napari-her2 > HER2 Reading.")
    typer.echo(NOTICE)


def agreement(
    folder: Annotated[Path, _FOLDER],
    levels: Annotated[list[str], typer.Option(help=_LEVELS_HELP)] = ["five", "ihc"],  # noqa: B006
    corrected: Annotated[bool, typer.Option("--corrected", help=_CORRECTED_HELP)] = False,
    seed: Annotated[int | None, typer.Option(help="Of the intervals; by default that of the study.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write it to this CSV.")] = None,
) -> None:
    """Show how far readers agree, with each other, with themselves and with models."""
    from rich.table import Table

    from napari_her2.models.card import NOTICE
    from napari_her2.reading.tables import write_agreement

    rows = _agreements(folder, levels, corrected=corrected, seed=seed)
    table = Table()
    for name in ("levels", "who", "measure", "value", "95 % interval", "cases"):
        table.add_column(name, overflow="fold")
    for row in rows:
        of = row.estimate
        interval = of.note if math.isnan(of.low) else f"{_shown(row, of.low)} to {_shown(row, of.high)}"
        value = "–" if math.isnan(of.value) else _shown(row, of.value)
        table.add_row(
            *(plain(item) for item in (row.levels, row.who, row.measure, value, interval, of.cases))
        )
    if rows:
        output().print(table)
    else:
        typer.echo("Nothing can be compared yet: it takes two readers, or two rounds of one.")
    if out is not None:
        write_agreement(out, rows)
    typer.echo(NOTICE)


def disagreements(
    folder: Annotated[Path, _FOLDER],
    levels: Annotated[str, typer.Option(help=_LEVELS_HELP)] = "five",
    round_name: Annotated[
        str, typer.Option("--round", help="By default the last one that two readers took part in.")
    ] = "",
    corrected: Annotated[bool, typer.Option("--corrected", help=_CORRECTED_HELP)] = False,
    out: Annotated[Path | None, typer.Option(help="Also write it to this CSV.")] = None,
) -> None:
    """Show the cases that readers read most differently: the queue of a consensus reading."""
    from rich.table import Table

    from napari_her2.models.card import NOTICE
    from napari_her2.reading.disagreements import disagreements as found_disagreements
    from napari_her2.reading.tables import write_disagreements

    table = _level_table(folder, _chosen_levels([levels])[0], corrected=corrected)
    rows = found_disagreements(table, round_name)
    shown = Table()
    for name in ("case", "levels apart", "readers", "consensus"):
        shown.add_column(name, overflow="fold")
    for row in rows[:_MOST_SHOWN]:
        readers = ", ".join(f"{reader} {level}" for reader, level in row.levels.items())
        shown.add_row(*(plain(item) for item in (row.case, row.apart, readers, row.agreed)))
    if rows:
        output().print(shown)
    typer.echo(f"{len(rows)} of {len(table.study.cases)} cases are read differently.")
    if out is not None:
        write_disagreements(out, table.study, rows)
    typer.echo(NOTICE)


def export(
    folder: Annotated[Path, _FOLDER],
    out: Annotated[Path, typer.Option(help="Folder for the CSV files.")],
    corrected: Annotated[bool, typer.Option("--corrected", help=_CORRECTED_HELP)] = False,
) -> None:
    """Write a study as CSV: every reading, a row a case, agreement, disagreements."""
    from napari_her2.models.card import NOTICE
    from napari_her2.reading.tables import export_study

    for path in export_study(folder, out, corrected=corrected, note=say):
        typer.echo(str(path))
    typer.echo(NOTICE)


def _agreements(folder: Path, names: list[str], *, corrected: bool, seed: int | None) -> list[Agreement]:
    from napari_her2.reading.agreement import agreements

    chosen, answers = _chosen_levels(names), _answers(folder)
    tables = [_level_table(folder, levels, corrected=corrected) for levels in chosen]
    return [row for table in tables for row in agreements(table, answers, seed=seed)]


def _level_table(folder: Path, levels: Levels, *, corrected: bool) -> LevelTable:
    from napari_her2.reading.agreement import LevelTable
    from napari_her2.reading.readings import read_readings
    from napari_her2.reading.study_file import read_study

    study, found = read_study(folder), read_readings(folder)
    for note in found.notes:
        say(note)
    return LevelTable(study, found.readings, levels, corrected=corrected)


def _answers(folder: Path) -> AnswersFound:
    from napari_her2.reading.model_answers import find_answers
    from napari_her2.reading.study_file import read_study

    found = find_answers(read_study(folder).results)
    for note in found.notes:
        say(note)
    return found


def _chosen_levels(names: list[str]) -> list[Levels]:
    from napari_her2.reading.levels import LEVELS

    unknown = next((name for name in names if name not in LEVELS), None)
    if unknown is not None:
        raise typer.BadParameter(f"there are no levels {unknown!r}: choose from {', '.join(LEVELS)}.")
    return [LEVELS[name] for name in dict.fromkeys(names)]


def _shown(row: Agreement, value: float) -> str:
    return f"{value:.1f} %" if row.measure.endswith("%") else f"{value:.3f}"


for _name, _command in (
    ("new", new),
    ("agreement", agreement),
    ("disagreements", disagreements),
    ("export", export),
):
    reading_app.command(_name, cls=Command)(plainly(_command))
