"""Overlays that come one a turn of the event loop, while the window is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from napari.components import ViewerModel

from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.overlay_layers import overlays_of
from napari_her2._napari.session import Session
from napari_her2._qt.parts.turns import one_a_turn
from scored import make_field_result, make_result, make_slide

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def session(viewer: ViewerModel) -> Session:
    made = Session(viewer)
    made.use_turns(one_a_turn)
    data, options, _ = slide_layer(make_slide())
    viewer.add_image(data, **options)
    return made


def kinds(viewer: ViewerModel, slide_id: str) -> list[str]:
    return [layer.metadata["napari_her2"].kind for layer in overlays_of(viewer, slide_id)]


def test_the_overlays_come_one_a_turn_the_visible_first(
    qtbot: QtBot, viewer: ViewerModel, session: Session
) -> None:
    result, told = make_result(), []
    session.look_changed.connect(told.append)
    session.set_result(result, OverlayLook())
    assert session.result(result.slide_id) is not None
    assert not overlays_of(viewer, result.slide_id)  # a layer is made in one turn and put in in another
    assert not told
    qtbot.waitUntil(lambda: any(layer.visible for layer in overlays_of(viewer, result.slide_id)))
    assert len(overlays_of(viewer, result.slide_id)) == 1
    qtbot.waitUntil(lambda: told == [result.slide_id])
    other = ViewerModel()
    data, options, _ = slide_layer(make_slide())
    other.add_image(data, **options)
    at_once = Session(other)
    at_once.set_result(result, OverlayLook())
    shown, expected = overlays_of(viewer, result.slide_id), overlays_of(other, result.slide_id)
    assert [layer.name for layer in shown] == [layer.name for layer in expected]
    assert [layer.visible for layer in shown] == [layer.visible for layer in expected]
    assert [layer.opacity for layer in shown] == [layer.opacity for layer in expected]


def test_a_second_result_in_between_takes_over(qtbot: QtBot, viewer: ViewerModel, session: Session) -> None:
    first, second, told = make_result(), make_field_result(), []
    session.look_changed.connect(told.append)
    session.set_result(first, OverlayLook())
    session.set_result(second, OverlayLook())
    qtbot.waitUntil(lambda: bool(told))
    expected = {overlay.kind for overlay in second.overlays if not overlay.info.on_request}
    found = kinds(viewer, second.slide_id)
    assert set(found) == expected
    assert len(found) == len(expected)
    assert told == [second.slide_id]


def test_a_slide_closed_in_between_leaves_nothing(
    qtbot: QtBot, viewer: ViewerModel, session: Session
) -> None:
    session.set_result(make_result(), OverlayLook())
    viewer.layers.remove(session.slide_layers()[0])
    qtbot.wait(100)
    assert not viewer.layers
