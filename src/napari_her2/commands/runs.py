"""``napari-her2 report`` and ``napari-her2 export``: what comes of a finished training."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from napari_her2.commands.bars import drive
from napari_her2.commands.console import JSON_HELP, tell
from napari_her2.commands.score import DEVICE_HELP
from napari_her2.commands.training_extra import training

RUN_HELP = "Folder of a finished training."


def report(
    run: Annotated[Path, typer.Argument(help=RUN_HELP, metavar="RUN")],
    cases: Annotated[
        int, typer.Option(min=0, help="So many failed cases are scored again and shown with their maps.")
    ] = 12,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    strange: Annotated[
        Path | None,
        typer.Option(
            help="Folder of slides that the model was not made for: does it tell them from the judged ones?",
            metavar="FOLDER",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Write the report of a training: report.html, and its numbers as CSV. Research use only."""
    page = drive(training().report(run, cases=cases, device=device, strange=strange), "report")
    tell("report", f"The report was written to {page}", as_json=as_json, path=str(page))


def export(
    run: Annotated[Path, typer.Argument(help=RUN_HELP, metavar="RUN")],
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="All folds answer together, instead of the best one.")
    ] = False,
    name: Annotated[str, typer.Option(help="Of the model; by default that of the training.")] = "",
    install: Annotated[
        bool, typer.Option("--install", help="Add it to your models: the docks and `score` find it by name.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a model of the same name.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Make one model of a training: its best fold, or all folds together."""
    bundle = training().export(run, ensemble=ensemble, name=name, install=install, force=force)
    tell("model", f"The model was written to {bundle}", as_json=as_json, path=str(bundle))
