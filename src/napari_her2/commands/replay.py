"""``napari-her2 replay``: the same scoring again, and what differs."""

from __future__ import annotations

import math
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from napari_her2.commands.bars import drive
from napari_her2.commands.console import FAILED, output, plain, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from napari_her2.reports.replay import Difference

MOST_ROWS = 40


def replay(
    result: Annotated[
        Path, typer.Argument(help="A result.json, or the folder of a result.", metavar="RESULT")
    ],
    slide: Annotated[
        list[Path] | None,
        typer.Option(help="Where a slide lies now, if it was moved; may be given for both of a case."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="File of the model, where it is not found by itself.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="recorded (the one that was used), auto, cpu, cuda, cuda:0 or mps.")
    ] = "recorded",
) -> None:
    """Score again as it was recorded, and say what differs; exit code 1 where anything does."""
    from napari_her2.reports.replay import replay_steps

    done = drive(replay_steps(result, slides=slide or (), model=model, device=device), "replay")
    for note in done.notes:
        typer.echo(f"Note: {plain(note)}.")
    if not done.found:
        typer.echo(
            f"{plain(done.result.slide)}: {plain(done.result.label)}. Nothing differs: {done.compared:,} "
            "values were compared, and each is the same."
        )
        return
    output().print(_table(done.found))
    many = f"{len(done.found):,} things differ" if len(done.found) > 1 else "One thing differs"
    say(f"{many} from the recorded result: the table names them.")
    raise typer.Exit(FAILED)


def _table(found: Sequence[Difference]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for name in ("what", "before", "after", "largest difference"):
        table.add_column(name, overflow="fold")
    for each in found[:MOST_ROWS]:
        size = "" if math.isnan(each.magnitude) else f"{each.magnitude:.3g}"
        table.add_row(*(escape(plain(text)) for text in (each.what, each.before, each.after, size)))
    if len(found) > MOST_ROWS:
        table.caption = f"and {len(found) - MOST_ROWS:,} more"
    return table
