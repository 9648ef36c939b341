"""``napari-her2 train``: from a table of cases to a model; checked first, stopped and resumed at will."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from napari_her2.commands.bars import drive
from napari_her2.commands.console import CANCELLED, FAILED, output, pairs_table, say, tell
from napari_her2.commands.score import DEVICE_HELP
from napari_her2.commands.training_extra import training
from napari_her2.errors import JobStopped
from napari_her2.export.csv_cells import read_table
from napari_her2.models.card import NOTICE
from napari_her2.models.case_slides import RULES, WAYS
from napari_her2.training_runs.outcome import outcome_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_MEASURES_SHOWN = 4
CASE_SLIDES_HELP = (
    "What several rows of one case_id are, in place of what the configuration says: each, joined bags (all "
    "tiles of a case as one bag) or joined answers."
)
METHOD_HELP = "One of the training methods; --list shows them."


def train(
    method: Annotated[str | None, typer.Argument(help=METHOD_HELP, metavar="METHOD")] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="Configuration (TOML), or the name of one of ours; by default the published protocol."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run and its model.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Manifest (CSV) of the cases; by default the one that the configuration names."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="Train with each of several values: section.key=value,value. Given again: all combinations."
        ),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(help="Encoder in place of that of the configuration, with the tiles that it takes."),
    ] = "",
    weights: Annotated[
        str, typer.Option(help="Its weights: installed (the default), pretrained, random, or a file.")
    ] = "",
    case_slides: Annotated[
        str, typer.Option("--case-slides", help=CASE_SLIDES_HELP, metavar="|".join(WAYS))
    ] = "",
    case_rule: Annotated[
        str,
        typer.Option("--case-rule", help="How joined answers are joined.", metavar="|".join(RULES)),
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check cases, files and splits and estimate time; train nothing."),
    ] = False,
    list_methods: Annotated[
        bool, typer.Option("--list", help="List the methods and the configurations of ours.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with a line of JSON: kind, message, and what was found.")
    ] = False,
) -> None:
    """Train a model and write it as a bundle."""
    if list_methods:
        _list_methods(as_json=as_json)
        return
    if method is None:
        raise typer.BadParameter("which METHOD? --list shows them.")
    if out is None and not dry_run:
        raise typer.BadParameter("--out is missing: the folder for the run and its model.")
    settings: dict[str, Any] = {"config": None if config is None else Path(config), "data": data}
    settings |= {"out": out, "device": device}
    given = (encoder, weights, case_slides, case_rule)
    if sweep and any(given):
        raise typer.BadParameter(
            "with --sweep, name encoders and ways of joining in it: --sweep encoder.name=uni,virchow2."
        )
    if any(given):
        settings["instead"] = training("instead").Instead(*given)
    if sweep and dry_run:
        raise typer.BadParameter("check the configuration without --sweep: each run takes about as long.")
    with _ending_on_sigterm():
        if dry_run:
            _check(method, settings, as_json=as_json)
            return
        try:
            if sweep:
                steps = training("sweep").sweep_steps(method, sweep, resume=resume, **settings)
            else:
                steps = training("command").train_steps(method, resume=resume, **settings)
            written = drive(steps, f"train {method}")
        except JobStopped as stopped:
            say(f"{stopped} Go on with --resume.")
            raise typer.Exit(CANCELLED) from None
        except KeyboardInterrupt:
            say("Cancelled. Go on with --resume.")
            raise typer.Exit(CANCELLED) from None
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return  # of several processes that learn together, one tells
    if written.suffix != ".csv":
        tell("model", f"The model was written to {written}", as_json=as_json, path=str(written))
        return
    if not as_json:
        _show_table(written)
    message = f"The table was written to {written}, the models and all measures beside it. {NOTICE}"
    tell("table", message, as_json=as_json, path=str(written))


def _check(method: str, settings: dict[str, Any], *, as_json: bool) -> None:
    check = drive(training("dry_run").check_steps(method, **settings), f"check {method}")
    if as_json:
        typer.echo(outcome_line("check", **check.to_json()))
    else:
        rows = [*check.facts, *(("warning", text) for text in check.warnings)]
        output().print(pairs_table(rows, title=f"{method}, nothing is trained"))
        for fault in check.faults:
            say(fault)
    if check.faults:
        raise typer.Exit(FAILED)


def _list_methods(*, as_json: bool) -> None:
    listed = training("methods")
    methods = [
        {
            "name": method.name,
            "line": method.line,
            "folder": method.folder,
            "table": method.table,
            "encoder": method.has_encoder,
            "case_ways": method.case_ways,
            "configs": [{"name": name, "about": listed.about_config(name)} for name in method.configs],
        }
        for method in listed.METHODS.values()
    ]
    if as_json:
        typer.echo(outcome_line("methods", methods=methods))
        return
    rows = [
        (method.name, f"{method.line}; --config {', '.join(method.configs)}")
        for method in listed.METHODS.values()
    ]
    output().print(pairs_table(rows))


def _show_table(path: Path) -> None:
    """Print the first measures of a table, with their intervals where it has them."""
    columns, *lines = read_table(path)
    rows = [dict(zip(columns, line, strict=True)) for line in lines]
    measures = [name for name in columns if f"{name} low" in columns][:_MEASURES_SHOWN]
    if not measures:
        return
    table = Table(*(columns[0], "cases", *measures))
    for row in rows:
        cells = [
            f"{row[m]} ({row[f'{m} low']} to {row[f'{m} high']})" if row[f"{m} low"] else row[m]
            for m in measures
        ]
        table.add_row(row[columns[0]], row.get("cases", ""), *cells)
    output().print(table)


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end a training as Ctrl-C does, so that it can be resumed; a second one ends it hard.

    Schedulers of clusters send it before they take a machine away, and so does a computer that is shut down.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
