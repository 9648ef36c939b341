"""Grad-CAM as a layer: on its place to the edge, clear where nothing was computed, called what it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image, Layer
from shapely.geometry import Polygon

from napari_her2._napari.cam_layers import bounds_px0, cam_layer, cam_of, inside, show_cam, viewed_px0
from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.session import session_of
from napari_her2._napari.tags import tag_of
from napari_her2.errors import JobFailed
from napari_her2.explain.region_cam import CamMap
from scored import make_field_result, make_slide


def make_cam(values=None, *, origin=(40.0, 60.0), pixel=(16.5, 16.0), **options) -> CamMap:
    values = np.arange(12, dtype=np.float32).reshape(3, 4) if values is None else values
    told = {
        "class_name": "3+",
        "layer_name": "backbone.bn2",
        "damaged_px0": np.empty((0, 2), np.int64),
    } | options
    return CamMap(values, origin, pixel, **told)


def with_slide(**options) -> tuple[ViewerModel, Image]:
    viewer = ViewerModel()
    data, arguments, _ = slide_layer(make_slide(**options))
    return viewer, viewer.add_image(data, **arguments)


@settings(max_examples=20, deadline=None)
@given(
    mpp=st.tuples(st.floats(0.1, 2), st.floats(0.1, 2)),
    origin=st.tuples(st.floats(0, 300), st.floats(0, 500)),
    pixel=st.tuples(st.floats(1, 40), st.floats(1, 40)),
    angle=st.floats(-180, 180),
)
def test_the_map_lies_exactly_where_it_was_computed(mpp, origin, pixel, angle) -> None:
    """Also over a slide that was moved and turned."""
    data, options, kind = slide_layer(make_slide(mpp=mpp))
    slide = Layer.create(data, options | {"rotate": angle, "translate": (30, -20)}, kind)
    layer = cam_layer(make_cam(origin=origin, pixel=pixel), slide, 0.5)
    for corner in ((0, 0), (3, 4), (1, 2)):
        world = layer.data_to_world(np.array(corner) - 0.5)
        expected = np.array(origin) + np.array(corner) * pixel
        # napari counts from the centre of the first pixel
        np.testing.assert_allclose(np.array(slide.world_to_data(world)) + 0.5, expected, atol=1e-6)


def test_it_is_called_what_it_is_and_shown_on_its_own_scale() -> None:
    _, slide = with_slide()
    cam = make_cam()
    layer = cam_layer(cam, slide, 0.4)
    assert layer.name == "Grad-CAM 3+ (backbone.bn2): regions the model used · case-1"
    assert "positive" not in layer.name
    assert tuple(layer.contrast_limits) == cam.contrast_limits
    assert layer.opacity == 0.4
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]


def test_nothing_is_painted_where_nothing_was_computed() -> None:
    _, slide = with_slide()
    values = np.full((3, 4), np.nan, np.float32)
    values[1, 1] = 2
    layer = cam_layer(make_cam(values), slide, 1.0)
    assert np.isnan(layer.data[0, 0])
    assert layer.colormap.map(np.array([np.nan]))[0, 3] == 0
    # All zero, as for a class that nothing speaks for: limits are still a range.
    low, high = cam_layer(make_cam(np.zeros((3, 4), np.float32)), slide, 1.0).contrast_limits
    assert low < high


def test_a_new_map_takes_the_place_of_the_old_one_and_follows_its_slide() -> None:
    viewer, slide = with_slide()
    session = session_of(viewer)
    result = make_field_result(make_slide())
    session.set_result(result, OverlayLook())
    show_cam(viewer, make_cam(), slide, 0.5)
    show_cam(viewer, make_cam(class_name="0"), slide, 0.5)
    found = [layer for layer in viewer.layers if "Grad-CAM" in layer.name]
    assert len(found) == 1
    assert "Grad-CAM 0 (" in found[0].name
    roles = [tag_of(layer).kind for layer in viewer.layers if layer is not slide]
    assert roles.index("score") < roles.index("region Grad-CAM") < roles.index("top tiles")
    assert viewer.layers.selection.active is slide
    before = np.array(found[0].data_to_world((0, 0)))
    slide.translate = (100, 50)
    np.testing.assert_allclose(np.array(found[0].data_to_world((0, 0))) - before, (100, 50))


def test_it_goes_with_its_slide_even_where_nothing_was_scored() -> None:
    viewer, slide = with_slide()
    session_of(viewer)
    show_cam(viewer, make_cam(), slide, 0.5)
    assert cam_of(viewer, "id of case-1") is not None
    viewer.layers.remove(slide)
    assert not viewer.layers


def test_outside_the_drawn_regions_the_map_is_clear() -> None:
    outline = Polygon([(60, 40), (92, 40), (92, 73), (60, 73)])  # (x, y): two by two pixels of the map
    assert bounds_px0([outline]) == (40, 60, 33, 32)
    kept = np.isfinite(inside(make_cam(), [outline]).values)
    np.testing.assert_array_equal(kept, [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    # A bow tie, as it is easily drawn, is repaired and not refused.
    bow = Polygon([(60, 40), (124, 89.5), (124, 40), (60, 89.5)])
    assert np.isfinite(inside(make_cam(), [bow]).values).any()


def test_what_is_in_view_is_told_in_pixels_of_the_slide() -> None:
    viewer, slide = with_slide(mpp=(0.5, 0.25))
    viewer.canvas.size = (100, 200)
    viewer.scene.camera.zoom = 4.0  # canvas pixels per µm: 25 µm x 50 µm in view
    viewer.scene.camera.center = (0, *slide.data_to_world((200 - 0.5, 300 - 0.5)))
    np.testing.assert_allclose(viewed_px0(viewer, slide), (175, 200, 50, 200), atol=1e-6)
    viewer.scene.camera.center = (0, -0.25, -0.125)  # the corner of the slide
    np.testing.assert_allclose(viewed_px0(viewer, slide), (0, 0, 25, 100), atol=1e-6)
    viewer.scene.camera.center = (0, -500.0, 0.0)
    assert viewed_px0(viewer, slide) is None


def test_a_slide_without_a_size_is_refused() -> None:
    _, slide = with_slide(mpp=None)
    with pytest.raises(JobFailed, match="µm/px"):
        cam_layer(make_cam(), slide, 0.5)
