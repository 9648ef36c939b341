"""Files of regions, read and written in threads: GeoJSON, as QuPath has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_her2.inference.regions import Region
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.tissue import Preset


def loading_regions(
    path: Path, slide: Slide | None = None
) -> Generator[Progress, None, tuple[str, list[Region]]]:
    """Read the regions of a file on a slide; returns what its layer is called, and the regions."""
    yield Progress("Reading regions")
    from napari_her2.inference.region_frame import NO_FRAME, RegionFrame
    from napari_her2.inference.regions import read_named_regions

    frame = NO_FRAME if slide is None else RegionFrame.of(slide)
    return f"regions · {path.name}", read_named_regions(path, frame)


def taking_piece(
    slide: Slide, preset: Preset, at_px0: tuple[float, float]
) -> Generator[Progress, None, Region | None]:
    """Take the connected piece of tissue at a place of a slide; None where there is none.

    Parameters
    ----------
    slide : Slide
    preset : str
        Of the tissue mask.
    at_px0 : tuple of float
        (y, x), level-0 pixels.
    """
    yield Progress("Finding tissue")
    from napari_her2.inference.region_wand import piece_at
    from napari_her2.inference.regions import Region

    tissue = slide.tissue(preset)
    # Half a pixel of the mask: the steps of its edge go, its shape stays.
    piece = piece_at(tissue, *at_px0, tolerance_px0=max(tissue.downsample) / 2)
    return None if piece is None else Region(piece)


def saving_regions(
    regions: Sequence[Region], path: Path, slide: Slide | None = None
) -> Generator[Progress, None, Path]:
    """Write regions with their names and kinds; what was there before is replaced whole or not at all."""
    yield Progress("Writing regions")
    from napari_her2.export.geojson import write_drawn_regions
    from napari_her2.inference.region_frame import NO_FRAME, RegionFrame

    write_drawn_regions(path, regions, NO_FRAME if slide is None else RegionFrame.of(slide))
    return path
