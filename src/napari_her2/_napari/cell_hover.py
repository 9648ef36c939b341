"""The cell of a result at a place in the window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2._napari.tags import slide_tag
from napari_her2.cells.words import cell_in_words
from napari_her2.explain.cell_levels import CLEAR_UM
from napari_her2.explain.cells import CELLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_her2._napari.overlays import OverlaySet
    from napari_her2.cells.reading import CellReading


def cell_number(reading: CellReading, slide_layer: Image, position: Sequence[float]) -> int:
    """Find the cell at a place.

    Parameters
    ----------
    reading : CellReading
    slide_layer : Image
        Of the slide that was read.
    position : sequence of float
        World, as `viewer.cursor.position` has it.

    Returns
    -------
    int
        From 0; -1 where there is none.
    """
    tag = slide_tag(slide_layer)
    if tag is None or tag.slide.mpp is None:
        return -1
    # napari counts from the centre of the first pixel, and cells from its corner.
    place_um = (np.asarray(slide_layer.world_to_data(position))[-2:] + 0.5) * tag.slide.mpp
    return reading.index.at(float(place_um[0]), float(place_um[1]))


def cell_words(viewer: ViewerModel, shown: OverlaySet, slide_layer: Image | None) -> str:
    """Word the cell under the cursor; empty where there is none, or cells are not drawn."""
    reading, borders = shown.result.slides[0].cells, shown.layer(CELLS.kind)
    if reading is None or slide_layer is None or borders is None or not borders.visible:
        return ""
    if viewer.scene.camera.zoom * CLEAR_UM < 1:
        return ""
    number = cell_number(reading, slide_layer, viewer.cursor.position)
    return "" if number < 0 else cell_in_words(reading, number)
