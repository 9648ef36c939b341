"""``napari-her2 cohort``: public data sets and own tables as a table of cases, shown before it is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from napari_her2.commands.console import FAILED, output, pairs_table, plain, plainly, say
from napari_her2.commands.flags import Command, Group
from napari_her2.commands.training_extra import training
from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

cohort_app = typer.Typer(
    name="cohort",
    cls=Group,
    add_completion=False,
    help="Make a table of cases (manifest.csv) from a public data set or a table of your own.",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
_MOST_SAID = 20
_MPP_HELP = "µm per pixel of slides that do not say theirs, as plain pictures."
_COLUMN_HELP = 'Column of a field: case_id="Patient ID"; also he, ihc, score, ish, split, fold, mpp, ihc_mpp.'
_MAP_HELP = 'Score that a label of the table means: "negative=0"; "unclear=" leaves its cases out.'
_OUT_HELP = "Table to write (.csv); its paths are relative to its folder."

Out = Annotated[Path, typer.Option("--out", help=_OUT_HELP, metavar="FILE.csv")]
Columns = Annotated[list[str] | None, typer.Option("--column", help=_COLUMN_HELP, metavar="FIELD=NAME")]
Labels = Annotated[list[str] | None, typer.Option("--map", help=_MAP_HELP, metavar="LABEL=SCORE")]
Mpp = Annotated[float | None, typer.Option("--mpp", help=_MPP_HELP)]
SheetName = Annotated[str, typer.Option("--sheet", help="Sheet of a workbook; by default the first.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Write without being asked.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a table that is there.")]


def import_cohort(
    kind: Annotated[str, typer.Argument(help="Name of the data set; see cohort list.", metavar="KIND")],
    folder: Annotated[Path, typer.Argument(help="Folder that it was unpacked to.")],
    out: Out,
    column: Columns = None,
    label_map: Labels = None,
    mpp: Mpp = None,
    sheet: SheetName = "",
    force: Force = False,
) -> None:
    """Make a table of cases from a public data set as it is distributed."""
    source = training("cohort_sources.sources").find_source(kind)
    _refuse_existing(out, force=force)
    found = source.find(folder, _options(column, label_map, mpp, sheet))
    _show(found)
    _write(found, out)


def from_table(
    table: Annotated[Path, typer.Argument(help="CSV, TSV or XLSX with a row for each case or slide.")],
    out: Out,
    slides: Annotated[
        Path | None, typer.Option("--slides", help="Folder of the slides; by default that of the table.")
    ] = None,
    column: Columns = None,
    label_map: Labels = None,
    mpp: Mpp = None,
    sheet: SheetName = "",
    stain: Annotated[
        str, typer.Option("--stain", help="Stain of slides whose names tell none: he or ihc.")
    ] = "he",
    yes: Yes = False,
    force: Force = False,
) -> None:
    """Make a table of cases from a table of your own; what is guessed of it is shown first.

    On a terminal you are asked before it is written. Elsewhere it is written where you named every column
    that is used, or with --yes.
    """
    if stain not in ("he", "ihc"):
        raise typer.BadParameter(f"--stain is he or ihc, not {plain(stain)}.")
    _refuse_existing(out, force=force)
    options = _options(column, label_map, mpp, sheet)
    found = training("cohort_sources.own_table").find_own(table, options, slides=slides, stain=stain)
    _show(found)
    if found.guessed and not yes and not found.faults:
        if not sys.stdin.isatty():
            raise JobFailed(
                "Nothing is written: columns were guessed. See the table above, and add --yes, or name them "
                "with --column."
            )
        if not typer.confirm(f"Write {out}?"):
            raise typer.Exit(FAILED)
    _write(found, out)


def list_sources() -> None:
    """List the data sets that can be imported."""
    sources = training("cohort_sources.sources").SOURCES
    table = Table()
    for name in ("name", "holds", "page", "licence, as read in 2026"):
        table.add_column(name, overflow="fold")
    for source in sources.values():
        table.add_row(source.name, source.title, source.page, source.licence)
    output().print(table)


def _options(
    columns: Sequence[str] | None, labels: Sequence[str] | None, mpp: float | None, sheet: str
) -> Any:  # noqa: ANN401 - of the training package
    options = training("cohort_sources.options").ImportOptions
    return options(
        training("cohort_sources.columns").read_columns(columns or ()),
        training("cohort_sources.scores").read_map(labels or ()),
        mpp,
        sheet,
    )


def _refuse_existing(out: Path, *, force: bool) -> None:
    if out.exists() and not force:
        raise JobFailed(f"{out} is there already: add --force to replace it, or choose another name.")


def _show(found: Any) -> None:  # noqa: ANN401 - of the training package
    """Print which columns were taken, and what was found; what is wrong goes to standard error."""
    if found.columns is not None:
        table = Table(title="Columns", title_justify="left", title_style="bold")
        for name in ("field", "column", "taken", "cells"):
            table.add_column(name, overflow="fold")
        for column in found.columns.used:
            how = "guessed" if column.guessed else "as you said"
            cells = ", ".join(column.examples)
            table.add_row(column.field, *(escape(plain(text)) for text in (column.name, how, cells)))
        output().print(table)
        if found.columns.unused:
            unused = plain(", ".join(found.columns.unused))
            output().print(f"not used: {unused}", markup=False, soft_wrap=True)
    output().print(pairs_table([("found", found.in_words()), *(("note", text) for text in found.notes)]))
    for texts in (found.missing, found.doubled, found.faults):
        for text in texts[:_MOST_SAID]:
            say(text)
        if len(texts) > _MOST_SAID:
            say(f"and {len(texts) - _MOST_SAID:,} more like this.")


def _write(found: Any, out: Path) -> None:  # noqa: ANN401 - of the training package
    if found.faults:
        say("Nothing is written: mend what is named above, or say what labels mean with --map.")
        raise typer.Exit(FAILED)
    writing = training("cohort_sources.writing")
    written = writing.write_manifest(found, out)
    what = "The table of cases" if found.scored else "The list of slides to score"
    typer.echo(f"{what} was written to {written}")
    if any(row.outlines is not None for row in found.written):
        typer.echo(f'Outlines of tumours lie beside it: regions = "{writing.REGIONS}"')


for name, command in (("import", import_cohort), ("from-table", from_table), ("list", list_sources)):
    cohort_app.command(name, cls=Command)(plainly(command))
