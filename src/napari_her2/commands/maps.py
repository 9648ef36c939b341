"""``napari-her2 maps``: the maps of a result for other viewers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from napari_her2.commands.console import JSON_HELP, tell


class MapFormat(StrEnum):
    """What maps are written as."""

    ome_tiff = "ome-tiff"
    dicom = "dicom"


def maps(
    result: Annotated[Path, typer.Argument(help="Folder of a result, or its result.her2.", metavar="RESULT")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; by default maps/ in the folder of the result.")
    ] = None,
    as_format: Annotated[
        MapFormat,
        typer.Option(
            "--format",
            help="ome-tiff: numbers and coloured pyramids, which other viewers open in place. dicom: "
            "parametric maps and a structured report, of a slide that is DICOM itself (extra: dicom).",
        ),
    ] = MapFormat.ome_tiff,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Write the maps of a result for other viewers. Research use only."""
    from napari_her2.export.dicom_maps import write_dicom
    from napari_her2.export.kept_result import KEPT_NAME, read_kept
    from napari_her2.export.map_images import write_map_images

    kept = result / KEPT_NAME if result.is_dir() else result
    write = write_dicom if as_format is MapFormat.dicom else write_map_images
    files = write(read_kept(kept), out or kept.parent / "maps")
    lines = "\n".join(str(path) for path in files)
    tell("maps", f"{len(files)} files were written:\n{lines}", as_json=as_json, paths=[str(p) for p in files])
