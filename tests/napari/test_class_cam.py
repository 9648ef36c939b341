"""Grad-CAM that belongs to a result, the image that the model saw, and what is said of a place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Layer
from placed import drawn

from napari_her2._napari.cam_layers import cam_of, show_cam
from napari_her2._napari.layers import OverlayLook, result_layers, slide_layer
from napari_her2._napari.overlays import OverlaySet
from napari_her2._napari.placement import look_at
from napari_her2._napari.seen import remove_seen, seen_of, show_seen
from napari_her2._napari.tags import tag_of
from napari_her2._napari.tile import TileLookup, read_tile
from napari_her2.desk.own_score import ManualScore, category_beside
from napari_her2.explain.image_cam import SIGNED_CAM
from napari_her2.explain.maps import limits_of
from napari_her2.explain.region_cam import CamMap
from scored import HandSlide, make_field_result, make_image_result, make_result, make_slide

LOW = "1+/2+ (ISH unknown)"


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


def add(viewer: ViewerModel, slide: HandSlide) -> Image:
    data, options, _ = slide_layer(slide)
    return viewer.add_image(data, **options)


def test_grad_cam_of_the_predicted_class_is_shown_and_what_is_below_zero_is_clear() -> None:
    result = make_image_result()
    layers = [Layer.create(*data) for data in result_layers(result, OverlayLook())]
    assert [tag_of(layer).kind for layer in layers] == ["signed Grad-CAM", "tiles"]
    layer = layers[0]
    assert layer.visible
    assert layer.name == f"Grad-CAM {LOW}: regions the model used · case-1"
    index = result.table.index
    np.testing.assert_allclose(layer.data[index[:, 0], index[:, 1]], np.linspace(-1, 2, len(index)))
    low, high = layer.contrast_limits
    assert low == 0
    clear = layer.colormap.map(np.clip((np.array([-1.0, -0.1, 0.0]) - low) / (high - low), 0, 1))
    np.testing.assert_array_equal(clear[:, 3], 0)


def test_limits_are_those_of_what_is_above_zero() -> None:
    values = np.concatenate([np.full(500, -9.0), np.arange(1, 202), [np.nan]]).astype(np.float32)
    assert limits_of(values, "above zero") == (0.0, 200.0)
    assert limits_of(np.array([-3.0, 0.0, np.nan], np.float32), "above zero") == (0.0, 1.0)


def test_grad_cam_covers_exactly_its_tiles() -> None:
    slide = make_slide((400, 600), mpp=(0.25, 0.4))
    result = make_image_result(slide)
    image = Layer.create(*slide_layer(slide))
    layer = Layer.create(*drawn(result, "signed Grad-CAM"))
    corner = image.world_to_data(layer.data_to_world((1 - 0.5, 2 - 0.5)))
    np.testing.assert_allclose(corner, np.array([1 * 40 / 0.25, 2 * 40 / 0.4]) - 0.5, atol=1e-6)


def test_other_methods_have_none_and_a_result_without_signs_shows_what_it_has() -> None:
    assert drawn(make_result(), "signed Grad-CAM") is None
    assert drawn(make_field_result(), "signed Grad-CAM") is None
    result = make_image_result()
    positive = tuple(replace(of, info=SIGNED_CAM) for of in result.maps if of.kind == "Grad-CAM")
    bare = replace(result, slides=(replace(result.slides[0], maps=positive),))
    assert np.nanmin(drawn(bare, "signed Grad-CAM")[0]) == 0


def test_another_class_replaces_the_map_and_leaves_grad_cam_of_a_part_alone(viewer: ViewerModel) -> None:
    slide = make_slide()
    layer = add(viewer, slide)
    shown = OverlaySet(viewer, layer, make_image_result(slide), OverlayLook())
    computed = CamMap(
        np.full((4, 6), 7.0, np.float32),
        (0.0, 0.0),
        (50.0, 50.0),
        "3+",
        "stage 4",
        np.empty((0, 4), np.int64),
    )
    show_cam(viewer, computed, layer, 0.6)
    shown.set_class("signed Grad-CAM", "High")
    own = shown.layer("signed Grad-CAM")
    assert own.name.startswith("Grad-CAM High")
    np.testing.assert_allclose(own.data[0, 0], 0.5)
    assert own.contrast_limits[1] == pytest.approx(float(limits_of(own.data, "above zero")[1]))
    np.testing.assert_array_equal(cam_of(viewer, slide.slide_id).data, 7.0)
    show_cam(viewer, computed, layer, 0.6)
    assert shown.layer("signed Grad-CAM") is own


def test_the_status_bar_tells_grad_cam_of_each_class() -> None:
    image, options, kind = drawn(make_image_result(), "tiles")
    layer = Layer.create(image, options, kind)
    status = layer.get_status(layer.data_to_world((0, 0)), world=True)["value"]
    assert f"Grad-CAM {LOW}: -1, " in status
    assert "Grad-CAM High (3+): 0.5" in status


def test_a_place_is_not_said_to_have_been_scored() -> None:
    lookup = TileLookup(make_image_result())
    assert lookup.short_words(0) == f"Grad-CAM here: 0 +0.5, {LOW} -1, High (3+) +0.5"
    words = lookup.words(0)
    assert words.startswith("The model scored the whole slide at once, not this place.")
    assert "logits, against the mean of its image" in words
    assert "attention" not in words


def test_the_image_that_the_model_saw_lies_in_its_place_below_the_maps(viewer: ViewerModel) -> None:
    slide = make_slide((400, 600), mpp=(0.5, 0.5))
    layer = add(viewer, slide)
    layer.translate = (300.0, -20.0)
    result = make_image_result(slide, images=2)
    OverlaySet(viewer, layer, result, OverlayLook())
    active = viewer.layers.selection.active
    seen = show_seen(viewer, layer, result, 1)
    assert viewer.layers.index(seen) == viewer.layers.index(layer) + 1
    assert viewer.layers.selection.active is active
    assert seen.name.startswith("what the model saw (2 of 2)")
    corner = np.array(layer.world_to_data(seen.data_to_world((-0.5, -0.5)))) + 0.5
    np.testing.assert_allclose(corner, (-120, 620), atol=1e-6)
    corner = np.array(layer.world_to_data(seen.data_to_world((63.5, 63.5)))) + 0.5
    np.testing.assert_allclose(corner, (520, 1260), atol=1e-6)
    show_seen(viewer, layer, result, 0)
    assert sum(tag_of(item) == tag_of(seen) for item in viewer.layers) == 1
    remove_seen(viewer, slide.slide_id)
    assert seen_of(viewer, slide.slide_id) is None


def test_the_view_moves_to_a_place_of_a_slide_and_never_further_away(viewer: ViewerModel) -> None:
    layer = add(viewer, make_slide())
    layer.translate = (300.0, -20.0)
    viewer.scene.camera.zoom = 4.0
    look_at(viewer, layer, (100.5, 200.5), zoom=2.0)
    np.testing.assert_allclose(viewer.scene.camera.center[1:], (350.0, 80.0))
    assert viewer.scene.camera.zoom == 4
    look_at(viewer, layer, (0.5, 0.5), zoom=8.0)
    assert viewer.scene.camera.zoom == 8


def test_a_large_place_is_not_read_at_full_resolution() -> None:
    slide = make_slide((1600, 2400))
    slide.image[800:, 1200:] = (10, 20, 30)
    slide.level_shapes = ((1600, 2400), (400, 600), (100, 150))
    slide.level_downsamples = ((1.0, 1.0), (4.0, 4.0), (16.0, 16.0))
    asked = []

    def read(level: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        asked.append((level, y, x, height, width))
        return np.zeros((height, width, 3), np.uint8)

    slide.read = read
    result = make_image_result(slide)
    side = int(result.grid.tile_px0[0])
    scale = 40  # as of a tile of 3,200 px
    large = replace(result.grid, tile_px=result.grid.tile_px * scale, slide_shape_px0=(64_000, 96_000))
    table = replace(result.table, origins_px0=result.table.origins_px0 * scale)
    large = replace(result, slides=(replace(result.slides[0], grid=large, table=table),))
    view = read_tile(slide, large, 1)
    assert side * scale == 3200
    assert asked == [(1, -400, 400, 1600, 1600)]
    np.testing.assert_allclose(view.frame, (0.25, 0.25, 0.75, 0.75))


@pytest.mark.parametrize(
    ("manual", "predicted", "category"),
    [
        (ManualScore(), "Low", ""),
        (ManualScore(ish="negative"), "Low", "With ISH negative: 1+ or 2+ would be HER2-low."),
        (ManualScore("2+", "negative"), "Low", "HER2-low (2+, ISH negative)"),
        (ManualScore("2+", "positive"), "0", "HER2-positive (2+, ISH positive)"),
        (ManualScore("2+"), "Low", "equivocal: ISH required"),
        (
            ManualScore("3+", "negative"),
            "Low",
            "HER2-positive. ISH negative does not agree with a score of 3+: look at IHC and ISH again.",
        ),
        (ManualScore(ish="positive"), "", ""),
    ],
)
def test_the_own_score_decides_the_category_and_ish_alone_only_says_what_would_follow(
    manual: ManualScore, predicted: str, category: str
) -> None:
    result = replace(make_image_result(), score=predicted or "Low", abstained=not predicted)
    assert category_beside(manual, result) == category
    # What is written down rests on the entries alone.
    assert manual.to_json()["category"] == manual.category()
