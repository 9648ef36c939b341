from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Layer
from placed import drawn, with_tissue

from napari_her2._napari.layers import OverlayLook, beside, result_layers, slide_layer
from napari_her2._napari.tags import METADATA_KEY, OverlayTag, SlideTag, tag_of
from napari_her2._napari.tile import TileLookup
from napari_her2.explain.colours import attention_colours, evidence_colours
from napari_her2.explain.maps import limits_of
from scored import make_field_result, make_result, make_slide, without_attention


def test_a_slide_is_a_pyramid_in_micrometres() -> None:
    slide = make_slide(mpp=(0.25, 0.26))
    data, options, kind = slide_layer(slide)
    assert kind == "image"
    assert [level.shape for level in data] == [(400, 600, 3), (200, 300, 3)]
    layer = Layer.create(data, options, kind)
    assert layer.rgb
    assert layer.multiscale
    np.testing.assert_allclose(layer.scale, (0.25, 0.26))
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
    assert layer.axis_labels == ("y", "x")
    tag = tag_of(layer)
    assert isinstance(tag, SlideTag)
    assert tag.slide is slide


def test_a_slide_that_states_no_size_is_shown_in_pixels() -> None:
    data, options, kind = slide_layer(make_slide(mpp=None))
    layer = Layer.create(data, options, kind)
    np.testing.assert_allclose(layer.scale, (1, 1))
    assert [str(unit) for unit in layer.units] == ["pixel", "pixel"]


def test_the_second_slide_lies_behind_the_right_edge_of_the_first() -> None:
    he, ihc = make_slide((400, 600)), make_slide((400, 600), name="ihc")
    _, options, _ = beside(slide_layer(ihc), he)
    assert options["translate"][0] == 0
    assert options["translate"][1] > 600 * 0.5


def test_duplicating_a_layer_does_not_copy_the_open_slide() -> None:
    slide = make_slide()
    tag = SlideTag(slide, "id")
    assert copy.deepcopy({METADATA_KEY: tag})[METADATA_KEY].slide is slide


@settings(max_examples=30, deadline=None)
@given(
    mpp=st.tuples(st.floats(0.1, 2.0), st.floats(0.1, 2.0)),
    tile_px=st.integers(20, 60),
)
def test_every_map_covers_exactly_its_tiles(mpp: tuple[float, float], tile_px: int) -> None:
    slide = make_slide((900, 1000), mpp=mpp)
    result = make_result(slide, tile_px=tile_px)
    if not len(result.table):
        return
    data, options, kind = drawn(result, "attention")
    layer = Layer.create(data, options, kind)
    slide_image = Layer.create(*slide_layer(slide))
    # The upper left corner of map pixel (0, 0) is the upper left corner of the slide.
    np.testing.assert_allclose(
        layer.data_to_world((-0.5, -0.5)), slide_image.data_to_world((-0.5, -0.5)), atol=1e-9
    )
    row, col = result.table.index[-1]
    corner_um = np.array(layer.data_to_world((row - 0.5, col - 0.5)))
    np.testing.assert_allclose(
        corner_um + np.array(mpp) / 2, (row * tile_px * 0.5, col * tile_px * 0.5), atol=1e-6
    )


def test_attention_is_shown_as_percentiles_unless_asked_otherwise() -> None:
    result = make_result()
    values, options, _ = drawn(result, "attention")
    assert options["contrast_limits"] == (0.0, 1.0)
    # Attention rises in the order of the tiles: 8 x 12 of them.
    np.testing.assert_allclose(values.ravel(), np.arange(1, 97) / 96, rtol=1e-6)
    raw, options, _ = drawn(result, "attention", OverlayLook(scales={"attention": "raw"}))
    np.testing.assert_allclose(np.nansum(raw), 1, rtol=1e-5)
    low, high = options["contrast_limits"]
    assert raw.min() < low < high < raw.max()


def test_attention_is_called_what_it_is() -> None:
    _, options, _ = drawn(make_result(), "attention")
    assert options["name"] == "attention (regions the model used) · case-1"
    assert "positive" not in options["name"]


def test_evidence_is_centred_on_zero_and_shows_the_chosen_score() -> None:
    result = make_result()
    predicted, options, _ = drawn(result, "evidence")
    low, high = options["contrast_limits"]
    assert low == -high
    assert options["name"].startswith("evidence for 2+")
    chosen, options, _ = drawn(result, "evidence", OverlayLook({"evidence": "0"}))
    assert options["name"].startswith("evidence for 0")
    np.testing.assert_allclose(predicted, chosen * 3, rtol=1e-5)


def test_colours_are_clear_where_there_is_nothing_to_say() -> None:
    attention, evidence = attention_colours(), evidence_colours()
    assert attention[0, 3] == 0
    assert attention[-1, 3] == 1
    assert evidence[len(evidence) // 2, 3] == 0
    assert evidence[0, 3] == evidence[-1, 3] == 1
    assert (np.diff(attention[:, 3]) >= 0).all()


def test_tissue_mask_pixels_lie_over_the_slide_pixels_they_stand_for() -> None:
    slide = make_slide((400, 600), mpp=(0.25, 0.5))
    layer = Layer.create(*drawn(with_tissue(make_result(slide)), "tissue"))
    image = Layer.create(*slide_layer(slide))
    for pixel in ((0, 0), (10, 20)):
        corner = np.array(layer.data_to_world(np.array(pixel) - 0.5))
        np.testing.assert_allclose(image.world_to_data(corner), np.array(pixel) * 8 - 0.5, atol=1e-9)


def test_top_tiles_are_framed_on_the_grid_and_are_few() -> None:
    result = make_result()
    frames, options, kind = drawn(result, "top tiles", OverlayLook(top_tiles=12))
    assert kind == "shapes"
    assert len(frames) == 12
    # The last tile has the most attention: row 7, column 11.
    np.testing.assert_allclose(frames[0].mean(axis=0), (7, 11))
    layer = Layer.create(frames, options, kind)
    np.testing.assert_allclose(layer.data_to_world(frames[0][0]), (7 * 25 - 0.25, 11 * 25 - 0.25))
    large = make_result(make_slide((2000, 2000)), tile_px=20)
    many, _, _ = drawn(large, "top tiles", OverlayLook(top_tiles=10_000))
    assert len(many) == 200


def test_hover_values_are_those_of_the_tile() -> None:
    result = make_result(corrupt=3)
    image, options, kind = drawn(result, "tiles")
    layer = Layer.create(image, options, kind)
    assert image[0, 2] == 0
    number = image[0, 3]
    features = options["features"]
    assert features["evidence 3+"][number] == pytest.approx(result.table.evidence[0, 3], abs=0.01)
    status = layer.get_status(layer.data_to_world((0, 3)), world=True)["value"]
    assert "attention percentile: 1.1" in status


def test_damaged_tiles_are_drawn_and_counted() -> None:
    image, options, _ = drawn(make_result(corrupt=3), "corrupt")
    assert np.nansum(image) == 3
    assert "3 damaged tiles" in options["name"]
    assert drawn(make_result(), "corrupt") is None


def test_all_layers_of_a_result_are_in_micrometres_and_tagged() -> None:
    slide = make_slide()
    result = make_result(slide, corrupt=2)
    layers = [Layer.create(*data) for data in result_layers(with_tissue(result), OverlayLook())]
    assert [tag_of(layer).kind for layer in layers] == [
        "tissue",
        "evidence",
        "attention",
        "corrupt",
        "top tiles",
        "tiles",
    ]
    for layer in layers:
        assert isinstance(tag_of(layer), OverlayTag)
        assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
        assert layer.name.endswith(" · case-1")


@pytest.mark.parametrize("rule", ["percentile", "symmetric", "above zero", "from zero"])
@pytest.mark.parametrize("values", [[], [np.nan], [0.0, 0.0], [3.0], [-1.0, np.nan]])
def test_limits_are_always_a_range(values: list[float], rule: str) -> None:
    low, high = limits_of(np.array([values], np.float32), rule)
    assert low < high


@pytest.mark.parametrize("make", [make_result, make_field_result])
def test_without_attention_nothing_is_ranked_and_no_layer_invented(make) -> None:
    result = without_attention(make())
    roles = {tag_of(Layer.create(*data)).kind for data in result_layers(result, OverlayLook())}
    assert roles == ({"tiles", "score"} if make is make_field_result else {"tiles"})
    assert drawn(result, "top tiles") is None
    assert not [
        name for name in drawn(result, "tiles")[1]["features"] if "attention" in name or "weight" in name
    ]


@pytest.mark.parametrize("make", [make_result, make_field_result])
def test_without_attention_tiles_follow_each_other_on_the_slide(make) -> None:
    result = without_attention(make())
    lookup = TileLookup(result)
    assert (lookup.first, lookup.ranked(3), lookup.rank_words(0)) == (None, [], "")
    assert [lookup.neighbour(4, step) for step in (-1, 1)] == [3, 5]
    assert lookup.neighbour(0, -1) == 0
    row, col = result.table.index[5]
    assert f"Row {row}, column {col}" in lookup.words(5)
    told = lookup.words(5) + lookup.short_words(5)
    assert not [word for word in ("attention", "weight", "rank", "confidence") if word in told]
