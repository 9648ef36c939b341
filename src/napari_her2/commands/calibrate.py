"""``napari-her2 calibrate``: the gain of a laboratory from control tissue, kept by name."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_her2.commands.console import output, pairs_table, plain, plainly, say
from napari_her2.commands.flags import Command, Group

if TYPE_CHECKING:
    from napari_her2.cells.calibration import Calibration

MPP_HELP = "Your own µm per level-0 pixel, where the file states none or a wrong one."
BACKEND_HELP = "Library that reads the slide: auto, tiffslide or openslide."
_MAKE, _HELP = "make", ("-h", "--help", "--debug")


class _SlideOrCommand(Group):
    """``calibrate SLIDE`` means ``calibrate make SLIDE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - click's or typer's own
        if args and args[0] not in self.commands and args[0] not in _HELP:
            args = [_MAKE, *args]
        return super().parse_args(ctx, args)


calibrate_app = typer.Typer(
    name="calibrate",
    cls=_SlideOrCommand,
    add_completion=False,
    no_args_is_help=True,
    help="Work out the gain of a laboratory from a 3+ control (calibrate SLIDE ...), and keep it by name.",
    pretty_exceptions_enable=False,
)
_Name = Annotated[str, typer.Argument(help="Name of a calibration.", metavar="NAME")]


def make(
    slide: Annotated[Path, typer.Argument(help="IHC slide with control tissue.", metavar="SLIDE")],
    regions: Annotated[
        Path,
        typer.Option(
            help="GeoJSON with the controls, named 3+, 2+, 1+ and 0; a single region is the 3+ control."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name to keep it by.")],
    laboratory: Annotated[str, typer.Option(help="Where the slide was stained.")] = "",
    antibody: Annotated[str, typer.Option(help="Clone or kit.")] = "",
    scanner: Annotated[str, typer.Option(help="What the slide was scanned with.")] = "",
    mpp: Annotated[float | None, typer.Option(help=MPP_HELP)] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a calibration of the same name.")
    ] = False,
    backend: Annotated[str, typer.Option(help=BACKEND_HELP)] = "auto",
) -> None:
    """Read the cells of the controls, and keep the gain of the 3+ control (the default)."""
    from napari_her2.cells.calibration_store import check_free, keep_calibration
    from napari_her2.commands.bars import drive
    from napari_her2.inference.calibrating import calibrating
    from napari_her2.slide.reader import open_slide

    check_free(name, replace=replace)
    with open_slide(slide, mpp=mpp, backend=backend) as opened:  # type: ignore[arg-type]  # checked there
        made = drive(
            calibrating(opened, regions, name, laboratory=laboratory, antibody=antibody, scanner=scanner)
        )
    path = keep_calibration(made, replace=replace)
    output().print(pairs_table([*calibration_rows(made), ("kept in", path)]))


def list_all() -> None:
    """List the calibrations that are kept."""
    from rich.table import Table

    from napari_her2.cells.calibration_store import calibration_folder, kept_calibrations

    kept, broken = kept_calibrations()
    if kept:
        table = Table()
        for column in ("name", "gain", "cells", "laboratory", "antibody", "scanner", "slide", "date"):
            table.add_column(column, overflow="fold")
        for item in kept:
            made = (item.laboratory, item.antibody, item.scanner, item.slide, item.date)
            values = (item.name, f"{item.gain:.3f}", f"{item.cells:,}", *made)
            table.add_row(*(plain(value) for value in values))
        output().print(table, markup=False)
    else:
        typer.echo("No calibration is kept: draw a 3+ control, and run napari-her2 calibrate SLIDE.")
    for unreadable in broken:
        say(unreadable.problem)
    if broken:
        say(f"The calibrations lie in {calibration_folder()}.")


def show(name: _Name) -> None:
    """Show a calibration and how its controls came out."""
    from napari_her2.cells.calibration_store import load_calibration

    output().print(pairs_table(calibration_rows(load_calibration(name))))


def remove(name: _Name) -> None:
    """Delete a calibration; results that were made with it hold its values."""
    from napari_her2.cells.calibration_store import remove_calibration

    remove_calibration(name)
    typer.echo(f"The calibration {plain(name)} was removed.")


def calibration_rows(calibration: Calibration) -> list[tuple[str, object]]:
    """Return what is known of a calibration as names and values."""
    from napari_her2.cells.rules import CLASSES
    from napari_her2.models.card import NOTICE

    rows: list[tuple[str, object]] = [
        ("calibration", calibration.name),
        ("gain", f"{calibration.gain:.4f}"),
        ("from", f"{calibration.cells:,} complete cells of {calibration.slide}, {calibration.date}"),
    ]
    rows += [(title, getattr(calibration, title)) for title in ("laboratory", "antibody", "scanner")]
    if calibration.mpp:
        rows.append(("scale", f"{calibration.mpp:.5g} µm/px"))
    for control in calibration.controls:
        shares = ", ".join(
            f"{name} {share:.0f} %" for name, share in zip(CLASSES, control.percentages, strict=True)
        )
        rows.append((f"{control.level} control", f"{control.cells:,} cells: {shares}"))
    rows += [("warning", remark) for remark in calibration.remarks]
    rows += [("slide SHA-256", calibration.slide_fingerprint), ("version", calibration.version)]
    return [*((name, value) for name, value in rows if value != ""), ("notice", NOTICE)]


for _name, _command in ((_MAKE, make), ("list", list_all), ("show", show), ("remove", remove)):
    calibrate_app.command(_name, cls=Command)(plainly(_command))
