"""Cells in a real window: to the pixel where they are, and as the rules have them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from cell_results import make_cell_result
from cells_by_hand import cells_by_hand
from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.session import session_of
from napari_her2.cells.reading import CellReading
from napari_her2.cells.rules import Rules
from napari_her2.cells.table import Cells
from napari_her2.explain.class_colours import score_colours
from scored import make_slide

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari import Viewer

COLOURS = np.round(255 * score_colours(4)[:, :3]).astype(int)
RADIUS_UM = 6.0


def one_round_cell(centre_um: tuple[float, float]) -> CellReading:
    """A cell of 3+ whose lower half is stained, and that is 2+ by stricter rules."""
    cells, _ = cells_by_hand(1)
    stained = np.zeros((1, 32), np.float16)
    stained[0, :24] = 0.5
    fields = {name: getattr(cells, name) for name in (of.name for of in dataclasses.fields(Cells))}
    fields |= {
        "centre_um": np.array([centre_um], np.float32),
        "border_um": np.full((1, 32), RADIUS_UM, np.float16),
        "contrast": stained,
        "dab": stained,
        "mass": np.full((1, 32), 0.8, np.float16),
    }
    return CellReading(Cells(**fields), np.zeros(1, np.int16), ("tumour",), np.zeros(1, bool))


def test_a_cell_is_drawn_to_the_pixel_at_every_zoom(make_napari_viewer: Callable[..., Viewer]) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(900, 700)
    session, slide, centre = session_of(viewer), make_slide((800, 1000)), (150.0, 260.0)
    data, options, _ = slide_layer(slide)
    viewer.add_image(data, **options)
    reading = one_round_cell(centre)
    session.set_result(make_cell_result(slide, reading), OverlayLook())
    for layer in session.overlays(slide.slide_id).layers():
        layer.visible = layer.name.startswith("cells")
    viewer.scene.camera.center = (0, *(np.array(centre) - 0.25))  # of the canvas: the centre of the cell

    def at(y_um: float, x_um: float, zoom: float) -> np.ndarray:
        """Pixel at so many µm from the centre of the cell."""
        viewer.scene.camera.zoom = zoom
        shot = viewer.screenshot(canvas_only=True, flash=False).astype(int)
        y, x = shot.shape[0] / 2 + y_um * zoom, shot.shape[1] / 2 + x_um * zoom
        return shot[int(y), int(x), :3]

    drawn = RADIUS_UM - 0.7  # inside of the membrane, which stays bare
    for zoom in (8.0, 3.8, 2.1):
        for y, x in ((drawn, 0), (0, drawn), (0, -drawn)):
            assert np.abs(at(y, x, zoom) - COLOURS[3]).max() < 60, (zoom, y, x)
        grey = at(-drawn * np.sin(1.0), drawn * np.cos(1.0), 8.0)
        assert np.ptp(grey) < 60  # not stained there
        np.testing.assert_array_equal(at(drawn + 3, 0, zoom), (230, 180, 205))
    assert np.abs(at(0, 0, 0.45) - COLOURS[3]).max() < 60  # a dot
    np.testing.assert_array_equal(at(0, 0, 0.12), (230, 180, 205))  # nothing
    stricter = reading.judged_by(Rules(mass=(0.18, 0.385, 0.9)))
    session.refresh_result(make_cell_result(slide, stricter))
    assert np.abs(at(drawn, 0, 3.8) - COLOURS[2]).max() < 60
