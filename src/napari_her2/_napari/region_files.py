"""Files of regions, read and written in threads: GeoJSON, as QuPath has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.inference.result import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_her2.inference.regions import Region


def loading_regions(path: Path) -> Generator[Progress, None, tuple[str, list[Region]]]:
    """Read the regions of a file; returns what its layer is called, and the regions."""
    yield Progress("Reading regions")
    from napari_her2.inference.regions import read_named_regions

    return f"regions · {path.name}", read_named_regions(path)


def saving_regions(regions: Sequence[Region], path: Path) -> Generator[Progress, None, Path]:
    """Write regions with their names and kinds; what was there before is replaced whole or not at all."""
    yield Progress("Writing regions")
    from napari_her2.export.geojson import write_drawn_regions

    write_drawn_regions(path, regions)
    return path
