"""Both slides of a case looked at together: a cross on the other one, and a curtain between them."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_her2._napari.curtain import Curtain
from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.linked_cursor import LinkedCursor
from napari_her2._napari.session import session_of
from napari_her2.registration.affine import Alignment
from scored import make_pair, make_result, make_slide

if TYPE_CHECKING:
    from napari_her2._napari.pairing import Pairing

MOVED = Alignment.identity().turned(25, (50, 60)).shifted((30, -12))


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def pairing(viewer: ViewerModel) -> Pairing:
    slides = make_slide(), make_slide((500, 400), name="case-1-ihc")
    for slide in slides:
        data, options, _ = slide_layer(slide)
        viewer.add_image(data, **options)
    made = session_of(viewer).pair(*(slide.slide_id for slide in slides))
    made.set_alignment(MOVED)
    return made


def test_the_cross_follows_the_alignment_both_ways(viewer: ViewerModel, pairing: Pairing) -> None:
    he, ihc = pairing.layers
    cursor = LinkedCursor(viewer, pairing)
    on_ihc_um = np.array([[110.0, 70.0]])
    on_he = he.data_to_world(MOVED.apply(on_ihc_um)[0] / 0.5)
    on_ihc = ihc.data_to_world(on_ihc_um[0] / 0.5)
    event = SimpleNamespace(position=on_he)
    for callback in viewer.mouse_move_callbacks:
        callback(viewer, event)
    np.testing.assert_allclose(cursor.layer.data, [on_ihc], atol=1e-6)
    cursor.follow((0.0, *on_ihc))  # with an axis before, as napari has it for stacks
    np.testing.assert_allclose(cursor.layer.data, [on_he], atol=1e-6)
    cursor.follow((-1e6, -1e6))
    assert len(cursor.layer.data) == 0


def test_stacked_there_is_no_second_place(viewer: ViewerModel, pairing: Pairing) -> None:
    cursor = LinkedCursor(viewer, pairing)
    before = len(viewer.layers), len(viewer.mouse_move_callbacks)
    pairing.set_arrangement("stacked")
    cursor.follow((10.0, 10.0))
    assert len(cursor.layer.data) == 0
    cursor.stop()
    assert (len(viewer.layers), len(viewer.mouse_move_callbacks)) == (before[0] - 1, before[1] - 1)


def alpha_at(curtain: Curtain, ihc: object, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Opacity of the pixels of a level, and where napari says that each of them lies, x in the window."""
    cut = np.asarray(curtain.layer.data[level])
    height, width = cut.shape[:2]
    down = ihc.data[0].shape[0] / height
    y, x = np.indices((height, width))
    points = np.stack([y, x], axis=-1).reshape(-1, 2) * down + (down - 1) / 2
    worlds = np.array([ihc.data_to_world(point)[-1] for point in points[:: max(1, len(points) // 400)]])
    return cut[..., 3].reshape(-1)[:: max(1, len(points) // 400)], worlds


def test_the_curtain_cuts_along_the_line_of_the_window(viewer: ViewerModel, pairing: Pairing) -> None:
    curtain = Curtain(viewer, pairing)
    _, ihc = pairing.layers
    middle = float(np.mean([ihc.data_to_world(corner)[-1] for corner in ((0, 0), (499, 399))]))
    for line in (middle, middle - 30):
        curtain.move_to(line)
        for level in range(len(curtain.layer.data)):
            alpha, x = alpha_at(curtain, ihc, level)
            np.testing.assert_array_equal(alpha, np.where(x >= line, 255, 0))
            assert 0 < (alpha > 0).mean() < 1
        assert curtain.mark.data[0, 0, 1] == line
    pixels = np.asarray(curtain.layer.data[0])[..., :3]
    np.testing.assert_array_equal(pixels, np.asarray(ihc.data[0]))
    np.testing.assert_allclose(curtain.layer.affine.affine_matrix, ihc.affine.affine_matrix)


def test_the_curtain_cuts_the_maps_of_both_slides_too(viewer: ViewerModel, pairing: Pairing) -> None:
    session = session_of(viewer)
    he, ihc = (session.slide_of(slide_id) for slide_id in pairing.ids)
    session.set_result(make_pair(he, ihc), OverlayLook())
    sets = [session.overlays(slide_id) for slide_id in pairing.ids]
    maps = [overlays.layer("attention") for overlays in sets]
    for layer in maps:
        layer.visible = True
    whole = [layer.data.copy() for layer in maps]
    curtain = Curtain(viewer, pairing)
    assert maps[1].opacity > 0  # the slide itself is faded out
    worlds = [
        np.array(
            [
                [layer.data_to_world((row, col))[-1] for col in range(layer.data.shape[1])]
                for row in range(layer.data.shape[0])
            ]
        )
        for layer in maps
    ]
    for line in (float(np.median(worlds[0])), float(np.median(worlds[1])) - 30):
        curtain.move_to(line)
        for layer, before, x, left in zip(maps, whole, worlds, (True, False), strict=True):
            clear = (x >= line) if left else (x < line)
            assert 0 < clear.mean() < 1
            np.testing.assert_array_equal(layer.data, np.where(clear, np.nan, before))
    newer = maps[0].data = whole[0] * 2  # an answer that follows a region meanwhile
    curtain.move_to(line)
    curtain.stop()
    np.testing.assert_array_equal(maps[0].data, newer)
    np.testing.assert_array_equal(maps[1].data, whole[1])


def test_maps_that_come_or_change_behind_the_curtain_are_cut_at_once(
    viewer: ViewerModel, pairing: Pairing
) -> None:
    session = session_of(viewer)
    result = make_result(session.slide_of(pairing.ids[0]))
    curtain = Curtain(viewer, pairing)
    session.set_result(result, OverlayLook())  # scored while the curtain is drawn
    overlays = session.overlays(pairing.ids[0])
    attention, evidence = (overlays.layer(kind) for kind in ("attention", "evidence"))

    def beyond(layer: object) -> np.ndarray:
        cols = range(layer.data.shape[1])
        return np.array([layer.data_to_world((0, col))[-1] for col in cols]) >= curtain.source.line

    curtain.move_to(float(np.median([attention.data_to_world((0, col))[-1] for col in (0, 1, 2)])))
    for layer in (attention, evidence):
        layer.visible = True
        assert 0 < beyond(layer).mean() < 1
        assert np.isnan(layer.data[:, beyond(layer)]).all()
        assert np.isfinite(layer.data[:, ~beyond(layer)]).any()
    overlays.set_class("evidence", "3+")
    assert np.isnan(evidence.data[:, beyond(evidence)]).all()
    attention.scale = np.asarray(attention.scale) / 2  # as of a smoother map
    assert np.isfinite(attention.data[:, ~beyond(attention)]).any()
    assert np.isnan(attention.data[:, beyond(attention)]).all()
    curtain.stop()
    drawn = {of.class_name: of.values for of in result.slides[0].maps if of.kind == "evidence"}
    np.testing.assert_array_equal(evidence.data, drawn["3+"])
    attention.visible = False
    attention.visible = True
    assert np.isfinite(attention.data).sum() == np.isfinite(result.slides[0].maps[0].values).sum()


def test_the_curtain_hangs_over_the_slides_wherever_the_window_looks(
    viewer: ViewerModel, pairing: Pairing
) -> None:
    pairing.set_arrangement("stacked")
    corners = [[0, 0], [0, 1e9], [1e9, 0], [1e9, 1e9]]
    ends = [
        layer.data_to_world(np.minimum(corner, layer.data[0].shape[:2]))[-1]
        for layer in pairing.layers
        for corner in corners
    ]
    low, high = min(ends), max(ends)
    viewer.scene.camera.center = (0, 0, high + 500)  # where the IHC slide was, side by side
    curtain = Curtain(viewer, pairing)
    assert curtain.source.line == pytest.approx((low + high) / 2, abs=1)
    curtain.stop()
    viewer.scene.camera.center = (0, 0, low + 20)
    assert Curtain(viewer, pairing).source.line == low + 20


def test_the_curtain_is_dragged_and_moved_by_keys(viewer: ViewerModel, pairing: Pairing) -> None:
    curtain = Curtain(viewer, pairing)
    start = curtain.source.line
    on_drag = viewer.mouse_drag_callbacks[-1]
    event = SimpleNamespace(position=(0.0, start), type="mouse_press")
    drag = on_drag(viewer, event)
    next(drag)
    assert not viewer.scene.camera.mouse_pan
    event.type, event.position = "mouse_move", (0.0, start + 12)
    next(drag)
    assert curtain.source.line == start + 12
    event.type = "mouse_release"
    with pytest.raises(StopIteration):
        next(drag)
    assert viewer.scene.camera.mouse_pan
    far = SimpleNamespace(position=(0.0, start + 1e5), type="mouse_press")
    with pytest.raises(StopIteration):  # the view is panned there
        next(on_drag(viewer, far))
    curtain.step(-1)
    assert curtain.source.line < start + 12


def test_the_curtain_leaves_everything_as_it_was(viewer: ViewerModel, pairing: Pairing) -> None:
    pairing.set_fade(0.7)
    before, callbacks = list(viewer.layers), list(viewer.mouse_drag_callbacks)
    curtain = Curtain(viewer, pairing)
    assert pairing.shown == 0.0  # seen through the curtain alone
    curtain.stop()
    assert list(viewer.layers) == before
    assert pairing.fade == 0.7
    assert list(viewer.mouse_drag_callbacks) == callbacks


def test_moving_the_curtain_takes_no_longer_than_a_frame(viewer: ViewerModel, pairing: Pairing) -> None:
    curtain = Curtain(viewer, pairing)
    took = []
    for step in range(5):
        began = time.process_time()
        curtain.move_to(curtain.source.line + step)
        took.append(time.process_time() - began)
    assert min(took) < 0.05
