"""The command line ``napari-her2``: a command is imported when it is asked for, and no other.

So ``models list`` loads no slide reader, and no command torch or napari before it needs them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer

from napari_her2.commands.console import CANCELLED, debug_everywhere, make_streams_safe, plainly
from napari_her2.commands.flags import Command, Group


class _Kept(NamedTuple):
    """What is known of a command without importing it.

    Parameters
    ----------
    module, name : str
        Where it is.
    words : str
        What it does, as its own help begins.
    """

    module: str
    name: str
    words: str


# In the order of the help.
_COMMANDS = {
    "info": _Kept(
        "info",
        "info",
        "Show dimensions, levels, µm/px and where it comes from, vendor and associated images.",
    ),
    "score": _Kept(
        "score", "score", "Score slides. Research use only; not for diagnosis or treatment decisions."
    ),
    "calibrate": _Kept(
        "calibrate",
        "calibrate_app",
        "Work out the gain of a laboratory from a 3+ control (calibrate SLIDE ...), and keep it by name.",
    ),
    "embed": _Kept(
        "embed",
        "embed",
        "Write the features of each slide's tissue tiles as HDF5 that CLAM and TRIDENT read.",
    ),
    "phantom": _Kept(
        "tools",
        "phantom",
        "Make a synthetic cohort: H&E and HER2 IHC slide of each case, manifest and truth.",
    ),
    "demo": _Kept("tools", "demo", "Open napari on a synthetic case, score it and show the overlays."),
    "cache": _Kept(
        "tools", "cache", "Show where embeddings are kept and how much space they take, or delete them."
    ),
    "open": _Kept("window", "open_slides", "Open napari with slides side by side and the scoring dock."),
    "bench": _Kept("tools", "bench", "Run a benchmark of a source checkout; further options go to it."),
    "cohort": _Kept(
        "cohort_import",
        "cohort_app",
        "Make a table of cases (manifest.csv) from a public data set or a table of your own.",
    ),
    "train": _Kept("train", "train", "Train a model and write it as a bundle."),
    "report": _Kept(
        "report",
        "report",
        "Write one page about a result as HTML and PDF, or the report of a training. Research use only.",
    ),
    "replay": _Kept(
        "replay",
        "replay",
        "Score again as it was recorded, and say what differs; exit code 1 where anything does.",
    ),
    "export": _Kept("runs", "export", "Make one model of a training: its best fold, or all folds together."),
    "maps": _Kept("maps", "maps", "Write the maps of a result for other viewers. Research use only."),
    "doubt": _Kept(
        "doubt",
        "doubt",
        "Let a model tell what is unlike the cases it learnt from, and answer with sets that it can "
        "stand for.",
    ),
    "reading": _Kept(
        "reading",
        "reading_app",
        "Slides read by people: worklists, agreement, disagreements. Research use only.",
    ),
    "models": _Kept("models", "models_app", "List, show, add, import and verify models."),
    "encoders": _Kept(
        "encoders",
        "encoders_app",
        "List, show, fetch and add patch encoders. Nothing is fetched unless you say so.",
    ),
}
_WIDTH = 110  # of lines of help, where the terminal has so many columns
_SETTINGS = {"bench": {"allow_extra_args": True, "ignore_unknown_options": True}}


class _Commands(Group):
    """The commands by name; the help lists what is kept of them, and completion imports them too."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - those of typer
        super().__init__(**settings)
        # Names alone, which typer lists and suggests: what they stand for comes from `get_command`.
        self.commands: Any = dict.fromkeys(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - click's or typer's own
        if cmd_name not in _COMMANDS:
            return None
        kept = _COMMANDS[cmd_name]
        found = getattr(import_module(f"napari_her2.commands.{kept.module}"), kept.name)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False)
            settings = _SETTINGS.get(cmd_name)
            alone.command(cmd_name, cls=Command, context_settings=settings)(plainly(found))
            found = alone
        # Plain text, here and below: typer's frames around it take longer to import than all else in a help.
        found.rich_markup_mode = None
        return typer.main.get_command(found)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """List the commands as they are kept."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, kept.words) for name, kept in _COMMANDS.items()])


app = typer.Typer(
    name="napari-her2",
    cls=_Commands,
    help="HER2 scoring of breast cancer whole slide images. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDTH},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from napari_her2 import __version__

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


def main() -> None:
    """Run the command line, and leave with its exit code."""
    make_streams_safe()
    try:
        app()
    except KeyboardInterrupt:  # outside a command: while parsing or importing
        sys.exit(CANCELLED)
