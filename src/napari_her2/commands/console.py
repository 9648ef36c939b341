"""How commands speak: tables on standard output, one plain line on standard error."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
import traceback
import warnings
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_her2.errors import (
    CalibrationKept,
    ClusterLost,
    Her2Error,
    ModelMisfit,
    ModelNameTaken,
    file_problem,
)
from napari_her2.training_runs.outcome import outcome_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console
    from rich.table import Table

FAILED, CANCELLED = 1, 130
JSON_HELP = "End with a line of JSON: kind, message, path."

debug_everywhere: ContextVar[bool] = ContextVar("debug_everywhere", default=False)
"""``--debug`` before the command; after it, it belongs to the command."""

# What a user may decide against: the core says what is wrong, the command line knows its own options.
_OPTIONS: dict[type[Her2Error], str] = {
    CalibrationKept: " To replace it, add --replace.",
    ClusterLost: " To go on, add --skip-finished.",
    ModelMisfit: " To score it all the same, add --override-fit.",
    ModelNameTaken: " To replace it, add --force.",
}


def plainly(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command end in one plain line and an exit code, and give it ``--debug``.

    Parameters
    ----------
    command : callable
        With typer's annotations.

    Returns
    -------
    callable
        With one option more.
    """
    signature = inspect.signature(command, eval_str=True)
    option = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
    debug = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)

    @functools.wraps(command)
    def run(**values: Any) -> None:  # noqa: ANN401 - whatever the command takes
        with_traceback = bool(values.pop("debug")) or debug_everywhere.get()
        _run(command, values, with_traceback=with_traceback)

    del run.__wrapped__  # typer would read the signature of the original
    parameters = [*signature.parameters.values(), debug]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {item.name: item.annotation for item in parameters} | {"return": None}
    return run


def _run(command: Callable[..., None], values: dict[str, Any], *, with_traceback: bool) -> None:
    try:
        with warnings.catch_warnings():
            if not with_traceback:
                _hush()
            command(**values)
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except KeyboardInterrupt:
        say("Cancelled.")
        raise typer.Exit(CANCELLED) from None
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough; nothing more may be flushed into the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback for a user
        if with_traceback:
            traceback.print_exc()
        else:
            say(in_words(error))
        if values.get("as_json"):
            # The core's own words: whoever reads JSON knows other ways out than an option.
            words = str(error) if isinstance(error, Her2Error) else in_words(error)
            typer.echo(outcome_line(type(error).__name__, words))
        raise typer.Exit(FAILED) from None


def _hush() -> None:
    """Keep the chatter of libraries off standard error: what matters arrives as our own words."""
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())


def in_words(error: BaseException) -> str:
    """Say what happened, for a person."""
    if isinstance(error, Her2Error):
        return f"{error}{_OPTIONS.get(type(error), '')}"
    if isinstance(error, OSError):
        return file_problem(error)
    if isinstance(error, MemoryError):
        return "The memory of this machine is too short: close other programs and try again."
    return (
        f"napari-her2 met a fault of its own ({type(error).__name__}: {error}): run it again with --debug "
        f"and report what it prints."
    )


def say(text: str) -> None:
    """Write one plain line on standard error."""
    typer.echo(f"napari-her2: {plain(text)}", err=True)


def tell(kind: str, message: str, *, as_json: bool, **fields: object) -> None:
    """Write what came out on standard output: the sentence, or with all fields a line of JSON."""
    typer.echo(outcome_line(kind, message, **fields) if as_json else message)


def plain(text: object) -> str:
    """One line without control characters: names and headers come from files that anyone may have made."""
    line = " ".join(str(text).split())
    return "".join(character if character.isprintable() else "?" for character in line)


def output() -> Console:
    """Console for tables on standard output; wide where it goes to a file, so that nothing is cut."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def pairs_table(rows: Iterable[tuple[str, object]], title: str | None = None) -> Table:
    """Build a table of names and values."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left", title_style="bold")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(plain(value)))
    return table


def make_streams_safe() -> None:
    """Let a terminal that knows no µ or ² show a question mark instead of ending in an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
