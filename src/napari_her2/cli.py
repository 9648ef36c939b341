"""The command line ``napari-her2``: torch, napari and slide readers load only where they are needed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from napari_her2 import __version__
from napari_her2.commands.console import CANCELLED, debug_everywhere, make_streams_safe, plainly
from napari_her2.commands.embed import embed
from napari_her2.commands.info import info
from napari_her2.commands.models import models_app
from napari_her2.commands.runs import export, report
from napari_her2.commands.score import score
from napari_her2.commands.tools import bench, cache, demo, phantom
from napari_her2.commands.train import train
from napari_her2.commands.window import open_slides

app = typer.Typer(
    name="napari-her2",
    help="HER2 scoring of breast cancer whole slide images. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"napari-her2 {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    debug_everywhere.set(debug)


for _command in (info, score, embed, phantom, demo, cache):
    app.command()(plainly(_command))
app.command("open")(plainly(open_slides))
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(plainly(bench))
for _training_command in (train, report, export):
    app.command()(plainly(_training_command))
app.add_typer(models_app, name="models")


def main() -> None:
    """Run the command line, and leave with its exit code."""
    make_streams_safe()
    try:
        app()
    except KeyboardInterrupt:  # outside a command: while parsing or importing
        sys.exit(CANCELLED)
