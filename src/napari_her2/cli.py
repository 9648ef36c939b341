"""The command line ``napari-her2``: a command is imported when it is asked for, and no other.

So ``models list`` loads no slide reader, and no command torch or napari before it needs them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any

import typer

from napari_her2.commands.console import CANCELLED, debug_everywhere, make_streams_safe, plainly
from napari_her2.commands.flags import Command, Group

# Module and name of each, in the order of the help.
_COMMANDS = {
    "info": ("info", "info"),
    "score": ("score", "score"),
    "calibrate": ("calibrate", "calibrate_app"),
    "embed": ("embed", "embed"),
    "phantom": ("tools", "phantom"),
    "demo": ("tools", "demo"),
    "cache": ("tools", "cache"),
    "open": ("window", "open_slides"),
    "bench": ("tools", "bench"),
    "cohort": ("cohort_import", "cohort_app"),
    "train": ("train", "train"),
    "report": ("report", "report"),
    "replay": ("replay", "replay"),
    "export": ("runs", "export"),
    "maps": ("maps", "maps"),
    "doubt": ("doubt", "doubt"),
    "reading": ("reading", "reading_app"),
    "models": ("models", "models_app"),
    "encoders": ("encoders", "encoders_app"),
}
_SETTINGS = {"bench": {"allow_extra_args": True, "ignore_unknown_options": True}}


class _Commands(Group):
    """The commands by name; what is listed (help, completion) is imported too."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - those of typer
        super().__init__(**settings)
        # Names alone, which typer lists and suggests: what they stand for comes from `get_command`.
        self.commands: Any = dict.fromkeys(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - click's or typer's own
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        found = getattr(import_module(f"napari_her2.commands.{module}"), name)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False)
            settings = _SETTINGS.get(cmd_name)
            alone.command(cmd_name, cls=Command, context_settings=settings)(plainly(found))
            found = alone
        return typer.main.get_command(found)


app = typer.Typer(
    name="napari-her2",
    cls=_Commands,
    help="HER2 scoring of breast cancer whole slide images. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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
