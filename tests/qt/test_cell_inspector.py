"""One cell in the dock: hovered, clicked, walked to, and why it has its class."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel

from cell_results import make_cell_result
from cells_by_hand import reading_by_hand
from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.session import session_of
from napari_her2._napari.viewer_keys import ViewerKeys
from napari_her2._qt.scoring.cell_profile import CellProfile
from napari_her2._qt.scoring.cell_walk import CellWalk
from napari_her2.cells.deciding import deciding_cells, steps_to_change, why
from napari_her2.cells.rules import Rules
from napari_her2.explain.cells import CELLS, levels_of
from scored import make_slide

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytestqt.qtbot import QtBot

    from napari_her2.cells.reading import CellReading

NUMBER = 41


class Shown(SimpleNamespace):
    """A walk over the cells of a slide in a viewer."""

    walk: CellWalk
    viewer: ViewerModel
    reading: CellReading
    slide_id: str

    def at(self, number: int) -> tuple[float, float]:
        """World position of the centre of a cell: napari counts from the centre of the first pixel."""
        y, x = self.reading.cells.centre_um[number] - 0.25
        return float(y), float(x)

    def click(self, position: tuple[float, float]) -> None:
        self.walk.pointer.clicked.emit(position)

    def hover(self, position: tuple[float, float]) -> None:
        self.walk.pointer.moved.emit(position)

    def key(self, key: str) -> None:
        from napari.utils.key_bindings import coerce_keybinding

        self.viewer.keymap[coerce_keybinding(key)](self.viewer)


@pytest.fixture
def shown(qtbot: QtBot) -> Iterator[Shown]:
    viewer, slide = ViewerModel(), make_slide((1200, 1600))
    session = session_of(viewer)
    data, options, _ = slide_layer(slide)
    viewer.add_image(data, **options)
    reading = reading_by_hand(1500, columns=50, left_out=0.1, outside=0.1)
    session.set_result(make_cell_result(slide, reading), OverlayLook())
    walk = CellWalk(session)
    qtbot.addWidget(walk)
    walk.show_reading(slide.slide_id, reading)
    yield Shown(walk=walk, viewer=viewer, reading=reading, slide_id=slide.slide_id, session=session)
    walk.shutdown()


def ring(shown: Shown) -> int:
    """Number of the cell that has a ring on the slide."""
    return int(levels_of(shown.session.overlays(shown.slide_id).layer(CELLS.kind)).marked)


def test_the_cell_under_the_cursor_is_told(shown: Shown) -> None:
    shown.hover(shown.at(NUMBER))
    words = shown.walk.inspector.hover.text()
    assert words.startswith(f"Under the cursor: {NUMBER + 1}: ")
    assert f"complete {100 * shown.reading.completeness[NUMBER]:.0f} %" in words
    shown.hover((-50.0, -50.0))
    assert shown.walk.inspector.hover.text() == ""


def test_a_click_shows_why_a_cell_has_its_class(shown: Shown) -> None:
    before = tuple(shown.viewer.scene.camera.center)
    shown.click(shown.at(NUMBER))
    assert shown.walk.chosen == NUMBER
    assert shown.walk.inspector.why.text().lower() == why(shown.reading, NUMBER)
    sectors = round(32 * float(shown.reading.completeness[NUMBER]))
    assert f"{sectors} of 32 sectors stained" in shown.walk.inspector.numbers.text()
    assert f"{sectors} of 32 sectors stained" in shown.walk.inspector.profile.accessibleName()
    assert ring(shown) == NUMBER
    assert tuple(shown.viewer.scene.camera.center) == before


def test_cells_that_do_not_count_say_why(shown: Shown) -> None:
    out = int(np.flatnonzero(shown.reading.region < 0)[0])
    small = int(np.flatnonzero((shown.reading.region >= 0) & shown.reading.left_out)[0])
    shown.walk.inspect(out)
    assert "Not counted: outside the tumour regions" in shown.walk.inspector.numbers.text()
    shown.walk.inspect(small)
    assert "Not counted: looks like a lymphocyte" in shown.walk.inspector.numbers.text()


def test_keys_walk_through_the_cells_that_decide(shown: Shown) -> None:
    order = deciding_cells(shown.reading, 500)
    steps = steps_to_change(shown.reading)
    assert steps[order[0]] == steps[shown.reading.counted].min()
    shown.key("N")
    assert shown.walk.chosen == order[0]
    assert shown.walk.inspector.walked.text() == "Cell 1 of the 500 nearest to a threshold"
    shown.key("N")
    assert shown.walk.chosen == order[1]
    centre = np.asarray(shown.viewer.scene.camera.center)[-2:]
    np.testing.assert_allclose(centre, shown.at(int(order[1])), atol=1e-3)
    assert ring(shown) == order[1]
    shown.key("Shift-N")
    shown.key("Shift-N")
    assert shown.walk.chosen == order[-1]
    shown.walk.inspector.next.click()
    assert shown.walk.chosen == order[0]


def test_a_walk_goes_on_from_the_cell_that_was_clicked(shown: Shown) -> None:
    order = deciding_cells(shown.reading, 500)
    shown.click(shown.at(int(order[7])))
    shown.key("N")
    assert shown.walk.chosen == order[8]


def test_other_rules_keep_the_cell_and_change_the_order(shown: Shown) -> None:
    shown.walk.inspect(NUMBER)
    strict = shown.reading.judged_by(Rules(completeness=(0.4, 0.8, 0.95), mass=(0.3, 0.6, 1.0)))
    shown.walk.show_reading(shown.slide_id, strict)
    assert shown.walk.chosen == NUMBER
    assert shown.walk.inspector.why.text().lower() == why(strict, NUMBER)
    shown.walk.inspect(0)
    shown.walk.step(1)
    order = deciding_cells(strict, 500)
    found = np.flatnonzero(order == 0)
    assert shown.walk.chosen == (order[found[0] + 1] if len(found) else order[0])


def test_other_cells_are_another_walk(shown: Shown) -> None:
    shown.walk.inspect(NUMBER)
    shown.walk.show_reading(shown.slide_id, reading_by_hand(20, 9))
    assert shown.walk.chosen is None
    assert not shown.walk.inspector.hint.isHidden()


def test_without_cells_that_count_there_is_nothing_to_walk_to(shown: Shown) -> None:
    shown.walk.show_reading(shown.slide_id, reading_by_hand(20, outside=1.0))
    shown.walk.step(1)
    assert "No cell counts" in shown.walk.inspector.walked.text()


# -- keys


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> None:
        self.count += 1


def test_keys_of_others_stay_theirs() -> None:
    viewer, counter = ViewerModel(), Counter()
    viewer.bind_key("K", lambda viewer: None)
    keys = ViewerKeys(viewer, {"K": counter.add, "V": counter.add, "N": counter.add})
    keys.bind()
    assert keys.held == ("N",)  # V is napari's own
    keys.release()
    assert [str(key) for key in viewer.keymap] == ["K"]


def test_keys_keep_no_widget_alive() -> None:
    viewer, counter = ViewerModel(), Counter()
    keys = ViewerKeys(viewer, {"N": counter.add})
    keys.bind()
    (bound,) = viewer.keymap.values()
    bound(viewer)
    assert counter.count == 1
    del counter
    bound(viewer)


def test_keys_are_given_back_with_the_cells(shown: Shown) -> None:
    assert shown.walk.keys.held == ("N", "Shift-N")
    assert "key N" in shown.walk.inspector.next.toolTip()
    shown.walk.show_reading("", None)
    assert not shown.viewer.keymap
    assert "key" not in shown.walk.inspector.next.toolTip()


# -- the plot


def test_stained_sectors_lie_in_the_plot_where_they_lie_on_the_slide(qtbot: QtBot) -> None:
    reading = reading_by_hand(300, 2)
    number = int(np.flatnonzero((reading.completeness > 0.4) & (reading.completeness < 0.6))[0])
    profile = CellProfile()
    qtbot.addWidget(profile)
    profile.resize(300, 158)
    profile.set_cell(reading, number)
    picture = profile.grab().toImage()
    scale = picture.width() / profile.width()
    ring = profile.rings()[0]
    stained = (reading.cells.contrast[number] >= 0.1) & (reading.cells.dab[number] >= 0.1)
    assert 0 < stained.sum() < 32
    for ray in range(32):
        angle = 2 * np.pi * ray / 32
        # Around the hole, where every sector begins; its edges are blurred.
        near = [(reach, turn) for reach in np.arange(0.2, 2.5, 0.2) for turn in (-0.03, 0, 0.03)]
        blue = 0
        for reach, turn in near:
            far = ring.width() / 2 * 0.28 + reach
            x = ring.center().x() + far * np.cos(angle + turn)
            y = ring.center().y() + far * np.sin(angle + turn)
            colour = picture.pixelColor(int(x * scale), int(y * scale))
            blue = max(blue, colour.blue() - colour.red())
        assert (blue > 60) == stained[ray], (ray, blue)
