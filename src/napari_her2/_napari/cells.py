"""Cells in the window: which one is at a place, and the way to one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2._napari.cell_hover import cell_number
from napari_her2._napari.placement import look_at
from napari_her2._napari.tags import slide_tag
from napari_her2.explain.cells import CELLS, levels_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2._napari.session import Session
    from napari_her2.cells.reading import CellReading

CLOSE_UP = 6.0
"""Screen pixels per µm at which the membrane of a cell can be judged."""


def reading_of(session: Session, slide_id: str) -> CellReading | None:
    """Return the cells of the last result of a slide, None where it has none."""
    result = session.result(slide_id)
    return None if result is None else result.slides[0].cells


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
    return -1 if reading is None or layer is None else cell_number(reading, layer, position)


def mark_cell(session: Session, slide_id: str, number: int) -> None:
    """Draw a ring around a cell, where cells are drawn; the view stays as it is.

    Parameters
    ----------
    session : Session
    slide_id : str
    number : int
        Of the cell, from 0; -1 for no ring.
    """
    shown = session.overlays(slide_id)
    borders = None if shown is None else shown.layer(CELLS.kind)
    levels = None if borders is None else levels_of(borders)
    if borders is not None and levels is not None:
        levels.mark(number)
        borders.refresh(extent=False, thumbnail=False)


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
    mark_cell(session, slide_id, number)
    shown = session.overlays(slide_id)
    borders = None if shown is None else shown.layer(CELLS.kind)
    if borders is not None:
        borders.visible = borders.visible or number >= 0
    if number >= 0 and tag.slide.mpp is not None:
        y, x = reading.cells.centre_um[number] / np.asarray(tag.slide.mpp)
        look_at(viewer, layer, (float(y), float(x)), zoom=zoom)
