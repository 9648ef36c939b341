"""The two slides of a case in the real window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_her2._napari.curtain import Curtain
from napari_her2._napari.sample_data import PhantomCase, phantom_layers
from napari_her2._napari.session import session_of
from napari_her2._napari.tags import tag_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytestqt.qtbot import QtBot

    from napari import Viewer

CASE = PhantomCase("small", "3+", seed=5, size_px=1536, mpp=0.5)


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Viewer], phantom: None) -> Viewer:
    viewer = make_napari_viewer(show=True)
    for data, options, _ in phantom_layers(CASE):
        viewer.add_image(data, **options)
    return viewer


def shot(viewer: Viewer) -> Any:
    viewer.reset_view()
    return viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)


def test_the_slider_fades_one_slide_into_the_other(viewer: Viewer) -> None:
    he, ihc = viewer.layers
    session = session_of(viewer)
    ids = [tag_of(layer).slide_id for layer in (he, ihc)]
    pairing = session.pair(*ids)
    pairing.set_arrangement("stacked")
    pictures = {}
    for fade in (0.0, 0.5, 1.0):
        pairing.set_fade(fade)
        pictures[fade] = shot(viewer)
    he.visible = False
    np.testing.assert_allclose(pictures[1.0], shot(viewer), atol=2)  # nothing shines through
    he.visible, ihc.visible = True, False
    np.testing.assert_allclose(pictures[0.0], shot(viewer), atol=2)
    between = (pictures[0.0] + pictures[1.0]) / 2
    assert np.abs(pictures[0.5] - between).mean() < 3
    assert np.abs(pictures[0.0] - pictures[1.0]).mean() > 5


def test_the_curtain_shows_one_slide_left_and_the_other_right(viewer: Viewer) -> None:
    he, ihc = viewer.layers
    session = session_of(viewer)
    pairing = session.pair(*[tag_of(layer).slide_id for layer in (he, ihc)])
    pairing.set_arrangement("stacked")
    curtain = Curtain(viewer, pairing)
    curtain.move_to(float(he.data_to_world((0, 768))[-1]))
    both = shot(viewer)
    # With the line, and without the curtain.
    curtain.layer.visible = False
    left = shot(viewer)
    pairing.set_fade(1.0)
    right = shot(viewer)
    columns = np.flatnonzero(np.abs(both - left).mean(axis=(0, 2)) > 1)
    line = int(columns[0])  # where the IHC slide begins
    centre = viewer.scene.camera.center[-1]
    expected = both.shape[1] / 2 + (curtain.source.line - centre) * viewer.scene.camera.zoom
    assert abs(line - expected) < 6
    np.testing.assert_allclose(both[:, : line - 2], left[:, : line - 2], atol=3)
    np.testing.assert_allclose(both[:, line + 4 :], right[:, line + 4 :], atol=3)
    assert np.abs(left - right).mean() > 5


@pytest.mark.slow
def test_a_case_is_scored_from_the_dock(viewer: Viewer, qtbot: QtBot, random_pair_model: str) -> None:
    _, dock = viewer.window.add_plugin_dock_widget("napari-her2", "HER2 Scoring")
    qtbot.waitUntil(lambda: dock.whole and not dock.look_job.running, timeout=300_000)
    dock.models.combo.setCurrentText(random_pair_model)
    dock.slides.combo.setCurrentIndex(0)
    assert dock.case.picker.combo.currentText() == "small_HER2"
    with qtbot.waitSignal(dock.score_job.running_changed, timeout=600_000, check_params_cb=lambda on: not on):
        dock.progress.start.click()
    qtbot.waitUntil(lambda: dock.result.whole)
    assert dock.message.text.text() == ""
    result = dock.session.result(dock.slides.slide_id)
    assert result.head == "fusion"
    assert dock.result.card.head.text() == "from both slides"
    for scored in result.slides:

        def roles(slide_id: str = scored.slide_id) -> set[str | None]:
            own = [tag_of(layer) for layer in viewer.layers if tag_of(layer).slide_id == slide_id]
            return {getattr(tag, "kind", None) for tag in own}

        # They come one a turn of the event loop.
        qtbot.waitUntil(lambda: {"attention", "tissue", "top tiles", "tiles"} <= roles(), timeout=300_000)
        assert "evidence" not in roles()
    gallery = dock.result.tiles.gallery
    qtbot.waitUntil(lambda: len(gallery.strips[3].unread) == 0, timeout=300_000)
    with qtbot.waitSignal(dock.result.tiles.tile_read, timeout=300_000):
        gallery.lists[3].itemClicked.emit(gallery.lists[3].item(0))
    assert dock.result.tiles.inspector.picture.isVisible()
