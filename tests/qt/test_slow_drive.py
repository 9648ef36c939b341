"""A slide on a slow drive: the dock says why views come late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.components import ViewerModel

from napari_her2._napari.layers import slide_layer
from napari_her2._napari.session import session_of
from napari_her2._qt.scoring.slide_picker import SlidePicker
from scored import make_slide

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

SLOW = "Views come late."


def test_a_slow_drive_is_named_once_the_view_moves(qtbot: QtBot) -> None:
    viewer, slide = ViewerModel(), make_slide()
    data, options, _ = slide_layer(slide)
    viewer.add_image(data, **options)
    picker = SlidePicker(session_of(viewer))
    qtbot.addWidget(picker)
    picker.set_slides([(slide.slide_id, slide.name, slide)])
    viewer.scene.camera.center = (0.0, 1.0, 1.0)
    assert picker.warnings.isHidden()
    slide.slow_drive = SLOW
    viewer.scene.camera.center = (0.0, 2.0, 2.0)
    assert picker.warnings.text() == f"⚠ {SLOW}"
    assert not picker.warnings.isHidden()
    slide.slow_drive = ""
    viewer.scene.camera.zoom = 3.0
    assert picker.warnings.isHidden()
    picker.shutdown()
    slide.slow_drive = SLOW
    viewer.scene.camera.zoom = 4.0  # nobody listens any more
    assert picker.warnings.isHidden()
