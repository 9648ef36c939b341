"""Quality of a slide in the viewer: looked at without scoring, shown as a layer, told under the cursor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2._napari.collecting import take_out
from napari_her2._napari.layers import Over, OverlayLook, draw
from napari_her2._napari.overlay_layers import make_layer
from napari_her2._napari.tags import shows, slide_tag
from napari_her2.errors import JobFailed
from napari_her2.explain.quality import QUALITY, quality_map, tile_in_words
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_her2.models.card import ModelCard
    from napari_her2.slide.quality import Quality
    from napari_her2.slide.quality_limits import QualityLimits
    from napari_her2.slide.reader import Slide

_TILE_PX, _MPP = 96, 0.5
_SMALLEST_UM, _LARGEST_UM = 40.0, 600.0
"""Of the tiles of models that quality is shown on; else tiles of 48 µm are."""


def looking_at_slide(
    slide: Slide, card: ModelCard | None, preset: str, limits: QualityLimits
) -> Generator[Progress, None, Quality]:
    """Look at the quality of a slide without scoring it, on the tiles of a model where they are of use.

    Parameters
    ----------
    slide : Slide
    card : ModelCard or None
        Of the chosen model.
    preset : str
        Of the tissue mask.
    limits : QualityLimits

    Yields
    ------
    Progress

    Returns
    -------
    Quality

    Raises
    ------
    SlideError, JobFailed
    """
    from napari_her2.inference.leaving_out import looking_at_quality

    yield Progress("Finding tissue")
    tile_px, mpp = _TILE_PX, _MPP
    if card is not None and _SMALLEST_UM <= card.tile_px * card.mpp <= _LARGEST_UM:
        tile_px, mpp = card.tile_px, card.mpp
    grid, tissue = slide.tile_grid(tile_px, mpp), slide.tissue(preset)  # type: ignore[arg-type]  # checked there
    counted = tissue.keep(grid)
    if not counted.any():
        raise JobFailed(
            f"No tissue was found on {slide.name}, so there is nothing to judge: try another tissue preset."
        )
    return (yield from looking_at_quality(slide, grid, tissue, limits, counted))


def show_quality(viewer: ViewerModel, quality: Quality, slide_layer: Image, opacity: float) -> Image:
    """Show the quality of a slide as a layer, in place of one before.

    Parameters
    ----------
    viewer : ViewerModel
    quality : Quality
    slide_layer : Image
    opacity : float

    Returns
    -------
    Image
        The layer; what is under the cursor is told while it is visible (`quality_words`).
    """
    tag = slide_tag(slide_layer)
    if tag is None or tag.slide.mpp is None:
        raise JobFailed("The slide states no µm/px: give it, and look at its quality again.")
    take_out(viewer, quality_layer(viewer, tag.slide_id))
    drawing = quality_map(quality)
    drawing = replace(drawing, info=replace(QUALITY, visible=True, on_request=True))
    over = Over(tag.slide.name, tag.slide_id, tag.slide.mpp)
    layer: Image = make_layer(draw(drawing, over, OverlayLook(opacity=opacity)), slide_layer)
    layer.metadata = {**layer.metadata, _KEY: quality}
    active = viewer.layers.selection.active
    viewer.layers.insert(viewer.layers.index(slide_layer) + 1, layer)
    viewer.layers.selection.active = active  # the slide, whose values are told
    return layer


_KEY = "napari_her2_quality"


def quality_layer(viewer: ViewerModel, slide_id: str) -> Layer | None:
    """Return the layer of the quality of a slide; None where there is none."""
    return next((layer for layer in viewer.layers if shows(layer, QUALITY.kind, slide_id)), None)


def quality_words(viewer: ViewerModel, slide_id: str, known: Quality | None) -> str:
    """Say what is wrong with the tile under the cursor: "left out: out of focus"; empty for nothing.

    Parameters
    ----------
    viewer : ViewerModel
    slide_id : str
    known : Quality or None
        Of the result that is shown.
    """
    layer = quality_layer(viewer, slide_id)
    quality = known if layer is None else layer.metadata.get(_KEY, known)
    if layer is None or not layer.visible or quality is None:
        return ""
    # A pixel of the layer is a tile.
    row, col = np.rint(layer.world_to_data(viewer.cursor.position)[-2:]).astype(int).tolist()
    return tile_in_words(quality, row, col)
