"""``napari-her2 export``: one model of a finished training."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from napari_her2.commands.console import JSON_HELP, tell
from napari_her2.commands.training_extra import training

RUN_HELP = "Folder of a finished training."


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
