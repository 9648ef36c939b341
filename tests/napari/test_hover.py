"""What is under the cursor is read in the status bar, and nothing of a result can be painted over."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.regions import add_region_layer
from napari_her2._napari.session import Session, session_of
from napari_her2._napari.tags import tag_of
from scored import make_field_result, make_image_result, make_pair, make_result, make_slide, with_smooth

if TYPE_CHECKING:
    from napari.layers import Image, Layer

    from napari_her2.inference.result import SlideResult
    from scored import HandSlide


def add(viewer: ViewerModel, slide: HandSlide) -> Image:
    data, options, _ = slide_layer(slide)
    return viewer.add_image(data, **options)


def show(result: SlideResult, *slides: HandSlide) -> tuple[ViewerModel, Session, list[Image]]:
    viewer = ViewerModel()
    session = session_of(viewer)
    layers = [add(viewer, slide) for slide in slides]
    viewer.layers.selection.active = layers[0]
    session.set_result(result, OverlayLook())
    return viewer, session, layers


def status_at(viewer: ViewerModel, y: float, x: float) -> str:
    viewer.mouse_over_canvas = True
    viewer.cursor.position = (-1e6, -1e6)
    viewer.cursor.position = (y, x)
    return viewer.status["coordinates"]


def test_the_status_shows_the_values_of_the_tile_under_the_cursor() -> None:
    slide = make_slide()  # 8 x 12 tiles of 25 µm, attention rising in their order
    viewer, session, (layer,) = show(make_result(slide), slide)
    assert viewer.layers.selection.active is layer
    assert "tile 1: attention percentile: 1," in status_at(viewer, 5, 5)
    assert "230" in status_at(viewer, 5, 5)  # and, before it, the colour of the slide
    assert "tile 96: attention percentile: 100, attention weight: 0.02" in status_at(viewer, 190, 290)
    assert "evidence 3+: 8" in status_at(viewer, 190, 290)
    assert "tile" not in status_at(viewer, 300, 10)
    viewer.layers.selection.active = session.overlays(slide.slide_id).layer("attention")
    assert "tile 13: attention percentile: 13.5" in status_at(viewer, 30, 5)
    viewer.layers.selection.active = viewer.add_image(np.zeros((50, 50)), name="someone else's")
    assert "tile" not in status_at(viewer, 5, 5)


def test_the_status_shows_smoother_maps_that_are_visible() -> None:
    slide = make_slide()
    viewer, session, _ = show(with_smooth(make_result(slide)), slide)
    status = status_at(viewer, 190, 290)
    assert "tile 96: attention percentile: 100, attention weight: 0.02" in status  # the tile itself
    assert status.endswith(" · smooth attention percentile: 50.0")
    overlays = session.overlays(slide.slide_id)
    overlays.show_only("evidence")
    assert status_at(viewer, 190, 290).endswith(" · smooth evidence 2+: 3")
    overlays.set_class("evidence", "3+")
    assert status_at(viewer, 190, 290).endswith(" · smooth evidence 3+: 4")
    overlays.layer("evidence").visible = False
    assert "smooth" not in status_at(viewer, 190, 290)


def test_the_values_follow_a_slide_that_is_moved_and_end_with_its_layer_of_values() -> None:
    slide = make_slide()
    viewer, session, (layer,) = show(make_result(slide), slide)
    layer.translate = (1000, 0)
    assert "tile 1:" in status_at(viewer, 1005, 5)
    assert "tile" not in status_at(viewer, 5, 5)
    viewer.layers.remove(session.overlays(slide.slide_id).layer("tiles"))
    assert "tile" not in status_at(viewer, 1005, 5)


def test_each_slide_of_a_pair_and_each_kind_of_result_is_read() -> None:
    he, ihc = make_slide(), make_slide((500, 400), name="case-1-ihc")
    viewer, _, layers = show(make_pair(he, ihc), he, ihc)
    assert viewer.layers.selection.active is layers[0]
    assert "tile 13:" in status_at(viewer, 30, 5)  # the first of its second row of 12
    viewer.layers.selection.active = layers[1]  # where both lie, the active one is meant
    assert "tile 9:" in status_at(viewer, 30, 5)  # rows of 8
    layers[1].translate = (0, 5000)
    viewer.layers.selection.active = layers[0]
    assert "tile 1: attention percentile" in status_at(viewer, 5, 5005)  # whichever is active
    viewer, _, _ = show(make_field_result(slide := make_slide()), slide)
    assert "tile 2: score of the tile: 1+, probability: 0.7, confidence" in status_at(viewer, 5, 30)
    viewer, _, _ = show(make_image_result(slide := make_slide()), slide)
    assert "Grad-CAM 1+/2+ (ISH unknown): -1" in status_at(viewer, 5, 5)


def test_no_keys_for_painting_are_told_after_scoring() -> None:
    slide = make_slide()
    viewer, _, _ = show(make_result(slide), slide)
    assert "paint" not in viewer.help
    assert "label" not in viewer.help


@pytest.mark.parametrize("role", ["tiles", "top tiles"])
def test_nothing_of_a_result_can_be_painted_or_drawn_in(role: str) -> None:
    slide = make_slide()
    viewer, session, _ = show(make_result(slide), slide)
    layer: Layer = session.overlays(slide.slide_id).layer(role)

    def is_locked() -> bool:
        layer.mode = "paint" if role == "tiles" else "add_rectangle"
        return not layer.editable and str(layer.mode) == "pan_zoom"

    assert is_locked()
    layer.editable = True  # as napari does it when its controls of shapes are made
    assert is_locked()
    viewer.dims.ndisplay = 3
    viewer.dims.ndisplay = 2
    assert is_locked()
    layer.data = layer.data
    assert is_locked()
    layer.visible = False
    layer.visible = True
    viewer.layers.selection.active = layer
    assert is_locked()


def test_the_map_that_was_active_is_so_again_after_scoring_anew() -> None:
    slide = make_slide()
    viewer, session, _ = show(make_result(slide), slide)
    viewer.layers.selection.active = session.overlays(slide.slide_id).layer("evidence")
    session.set_result(make_result(slide), OverlayLook())
    assert tag_of(viewer.layers.selection.active).kind == "evidence"
    assert viewer.layers.selection.active is session.overlays(slide.slide_id).layer("evidence")
    session.set_result(make_field_result(slide), OverlayLook())  # which has no evidence
    assert viewer.layers.selection.active is session.layer_of(slide.slide_id)


def test_what_is_drawn_or_painted_in_is_not_active_after_scoring() -> None:
    slide = make_slide()
    viewer = ViewerModel()
    session = session_of(viewer)
    layer = add(viewer, slide)
    for make in (lambda: add_region_layer(viewer, layer), lambda: viewer.add_labels(np.ones((9, 9), int))):
        viewer.layers.selection.active = make()
        session.set_result(make_result(slide), OverlayLook())
        assert viewer.layers.selection.active is layer


def test_small_values_of_one_tile_among_thousands_are_not_rounded_away() -> None:
    slide = make_slide()
    result = make_result(slide)
    times = {"attention": np.float32(1e-5), "evidence": np.float32(1e-4)}
    maps = tuple(replace(of, values=of.values * times.get(of.kind, 1)) for of in result.maps)
    viewer, _, _ = show(replace(result, slides=(replace(result.slides[0], maps=maps),)), slide)
    text = status_at(viewer, 190, 290)
    assert "attention weight: 2.06e-07" in text  # 96 / 4656 of it
    assert "evidence 3+: 0.0008" in text
