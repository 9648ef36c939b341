"""Cells in the window: which one is at a place, what it is like, and the way to one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2._napari.placement import look_at
from napari_her2._napari.tags import slide_tag
from napari_her2.cells.words import cell_in_words
from napari_her2.explain.cell_levels import CLEAR_UM
from napari_her2.explain.cells import CELLS, CellBorders, levels_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2._napari.session import Session
    from napari_her2.cells.reading import CellReading

CLOSE_UP = 6.0
"""Screen pixels per µm at which the membrane of a cell can be judged."""


def reading_of(session: Session, slide_id: str) -> CellReading | None:
    """Return the cells of the last result of a slide, None where it has none."""
    result = session.result(slide_id)
    drawings = () if result is None else result.slides[0].extras
    return next((of.reading for of in drawings if isinstance(of, CellBorders)), None)


def cell_at(session: Session, slide_id: str, position: Sequence[float]) -> int:
    """Find the cell of a slide at a place in the window.

    Parameters
    ----------
    session : Session
    slide_id : str
    position : sequence of float
        World, as `viewer.cursor.position` has it.

    Returns
    -------
    int
        Number of the cell, from 0; -1 where there is none.
    """
    reading, layer = reading_of(session, slide_id), session.layer_of(slide_id)
    tag = slide_tag(layer) if layer is not None else None
    if reading is None or layer is None or tag is None or tag.slide.mpp is None:
        return -1
    # napari counts from the centre of the first pixel, and cells from its corner.
    place_um = (np.asarray(layer.world_to_data(position))[-2:] + 0.5) * tag.slide.mpp
    return reading.index.at(float(place_um[0]), float(place_um[1]))


def cell_words_at(session: Session, slide_id: str, position: Sequence[float]) -> str:
    """Word the cell at a place; empty where there is none, or cells are not drawn."""
    reading, viewer, shown = reading_of(session, slide_id), session.viewer, session.overlays(slide_id)
    borders = None if shown is None else shown.layer(CELLS.kind)
    if reading is None or viewer is None or borders is None or not borders.visible:
        return ""
    if viewer.scene.camera.zoom * CLEAR_UM < 1:
        return ""
    number = cell_at(session, slide_id, position)
    return "" if number < 0 else cell_in_words(reading, number)


def show_cell(session: Session, slide_id: str, number: int, *, zoom: float = CLOSE_UP) -> None:
    """Move the view to a cell and draw a ring around it; cells that were hidden are shown.

    Parameters
    ----------
    session : Session
    slide_id : str
    number : int
        Of the cell, from 0; -1 takes the ring away and leaves the view as it is.
    zoom : float
        Screen pixels per µm that are wanted at least.
    """
    reading, layer, viewer = reading_of(session, slide_id), session.layer_of(slide_id), session.viewer
    tag = slide_tag(layer) if layer is not None else None
    if reading is None or layer is None or viewer is None or tag is None or number >= len(reading.cells):
        return
    shown = session.overlays(slide_id)
    borders = None if shown is None else shown.layer(CELLS.kind)
    levels = None if borders is None else levels_of(borders)
    if borders is not None and levels is not None:
        levels.mark(number)
        borders.refresh(extent=False, thumbnail=False)
        borders.visible = borders.visible or number >= 0
    if number >= 0 and tag.slide.mpp is not None:
        y, x = reading.cells.centre_um[number] / np.asarray(tag.slide.mpp)
        look_at(viewer, layer, (float(y), float(x)), zoom=zoom)
