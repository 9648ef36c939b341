"""Everything that can be laid over a scored slide, as one list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.explain.geometries import SEEN, TISSUE, Outline, PlacedImage, TileValues, frames_of
from napari_her2.explain.overlays import Overlay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_her2.explain.overlays import Drawing
    from napari_her2.inference.result import ScoredSlide


def overlays_of(slide: ScoredSlide) -> tuple[Overlay, ...]:
    """List the overlays of a slide, in the order of their checkboxes.

    Parameters
    ----------
    slide : ScoredSlide

    Returns
    -------
    tuple of Overlay
        What lies under a name of its own only in files is left out, and damage where there is none.
    """
    kinds: dict[str, list[Drawing]] = {}
    for drawing in _drawings(slide):
        if drawing.info.layer_name:
            kinds.setdefault(drawing.info.kind, []).append(drawing)
    return tuple(sorted((Overlay(tuple(of)) for of in kinds.values()), key=lambda of: of.info.order))


def _drawings(slide: ScoredSlide) -> Iterator[Drawing]:
    for tile_map in slide.maps:
        if tile_map.info.is_map or tile_map.holds_any:
            yield tile_map
    yield from slide.extras
    count = len(slide.thumbnails)
    for number, thumbnail in enumerate(slide.thumbnails, start=1):
        of = f" ({number} of {count})" if count > 1 else ""
        yield PlacedImage(SEEN, thumbnail.rgb, thumbnail.origin_px0, thumbnail.pixel_px0, detail=of)
    if slide.ranks is not None and len(slide.table):
        yield frames_of(slide.ranks, slide.table.index)
    if slide.tissue is not None:
        yield Outline(TISSUE, slide.tissue)
    yield TileValues(slide.tiles_info, slide.maps, slide.table.index, slide.grid)
