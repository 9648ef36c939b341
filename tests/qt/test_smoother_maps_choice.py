"""Smoother maps in the docks: off until somebody takes them, and shown in their place."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
from driving import score, with_tissue
from qtpy.QtCore import Qt

from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.session import session_of
from napari_her2._qt.parts.smooth_maps import SmoothMaps
from scored import make_result, make_slide, with_smooth

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2._napari.work import Equipment


def test_the_choice_is_off_and_asks_for_overlap_when_taken(
    qtbot: QtBot, make_dock: object, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    add_slide(make_slide())
    choice = dock.smooth_maps.choice
    assert (choice.accessibleName(), dock.smooth_maps.caption.buddy()) == ("Smoother maps", choice)
    assert "4 times the tiles" in dock.smooth_maps.toolTip().replace("\n", " ")
    assert "score stays the same" in dock.smooth_maps.toolTip().replace("\n", " ")
    score(qtbot, dock)
    qtbot.keyClick(choice, Qt.Key.Key_Down)  # by keyboard alone
    assert choice.currentText() == "Half overlapping"
    score(qtbot, dock)
    assert [of["overlap"] for of in asked] == [0.0, 0.5]


def test_a_model_without_tiles_says_why_there_is_nothing_to_choose(
    qtbot: QtBot, make_dock: object, equipment: Equipment
) -> None:
    dock = make_dock()
    dock.smooth_maps.choice.setCurrentIndex(1)
    card = replace(equipment.models[0].card, name="whole", method="low-resolution")
    whole = SimpleNamespace(name="whole", path=None, card=card, origin="bundled")
    dock.models.set_models([*equipment.models, whole], "whole")
    assert not dock.smooth_maps.choice.isEnabled()
    assert dock.smooth_maps.overlap == 0.0
    assert "whole sees all tissue in images" in dock.smooth_maps.toolTip().replace("\n", " ")
    dock.models.set_models(equipment.models, "hand-model")
    assert dock.smooth_maps.overlap == 0.5  # what was chosen stayed


def test_a_day_list_offers_the_same_choice(qtbot: QtBot) -> None:
    row = SmoothMaps()
    qtbot.addWidget(row)
    assert row.overlap == 0.0
    assert [row.choice.itemText(at) for at in range(row.choice.count())] == ["Off", "Half overlapping"]


def test_smoother_maps_lie_over_the_same_tissue_and_give_way_to_plain_ones(viewer: ViewerModel) -> None:
    slide = make_slide()
    data, options, _ = slide_layer(slide)
    viewer.add_image(data, **options)
    session = session_of(viewer)
    plain = with_tissue(make_result(slide))
    session.set_result(with_smooth(plain), OverlayLook())
    layer = session.overlays(slide.slide_id).layer("attention")
    assert layer.name.startswith("attention (regions the model used), smooth")
    np.testing.assert_allclose(layer.scale, (12.5, 12.5))
    edge = layer.data_to_world((-0.5, -0.5))
    np.testing.assert_allclose(edge, (-0.25, -0.25))  # the edge of the slide, whose pixel is 0.5 µm
    session.follow_result(plain, drawing=True)
    assert session.overlays(slide.slide_id).layer("attention") is layer
    np.testing.assert_allclose(layer.scale, (25, 25))
    np.testing.assert_allclose(layer.data_to_world((-0.5, -0.5)), (-0.25, -0.25))
    np.testing.assert_array_equal(layer.data, plain.maps[0].values)
    assert "smooth" not in layer.name
