"""Maps of a model that scores each tile: colours, words, and what is shown at first."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from napari.layers import Layer
from placed import drawn

from napari_her2._napari.layers import OverlayLook, result_layers, slide_layer
from napari_her2._napari.tags import tag_of
from napari_her2._napari.tile import TileLookup
from napari_her2.explain.class_colours import score_colours
from scored import make_field_result, make_result, make_slide

# Linear RGB as it is seen without red, without green cones (Machado et al. 2009, full severity).
BLINDNESS = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "none": np.eye(3),
}


def layer_of(result, kind):
    data = drawn(result, kind)
    return None if data is None else Layer.create(*data)


def test_the_score_map_paints_each_class_in_its_colour_and_glass_in_none() -> None:
    result = make_field_result()
    layer = layer_of(result, "score")
    values = layer.data.copy()
    colours = score_colours(4)
    low, high = layer.contrast_limits
    painted = layer.colormap.map((np.arange(4.0) - low) / (high - low))
    np.testing.assert_allclose(painted, colours, atol=1e-6)
    assert layer.colormap.map(np.array([np.nan]))[0, 3] == 0
    rows, cols = result.table.index.T
    np.testing.assert_array_equal(values[rows, cols], np.arange(len(result.table)) % 4)


@pytest.mark.parametrize("kind", BLINDNESS)
def test_classes_are_told_apart_without_red_or_green_cones(kind: str) -> None:
    rgb = score_colours(4)[:, :3].astype(np.float64)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(BLINDNESS[kind]).T, 0, 1)
    cone = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
    lab = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
    oklab = np.cbrt(seen @ cone.T) @ lab.T
    for first, second in combinations(range(4), 2):
        assert np.linalg.norm(oklab[first] - oklab[second]) > 0.15


def test_the_score_is_shown_first_and_the_other_maps_on_request() -> None:
    result = make_field_result()
    layers = [Layer.create(*data) for data in result_layers(result, OverlayLook())]
    roles = {tag_of(layer).kind: layer for layer in layers}
    assert list(roles) == ["attention", "confidence", "score", "top tiles", "tiles"]
    assert roles["score"].visible
    assert not roles["top tiles"].visible
    assert not roles["attention"].visible
    assert not roles["confidence"].visible
    assert roles["attention"].name == "weight in the score · case-1"
    assert roles["confidence"].name == "confidence (learnt) · case-1"
    assert roles["confidence"].contrast_limits == [0, 1]
    assert roles["top tiles"].name.endswith("most weighted tiles · case-1")
    assert not any("positive" in layer.name for layer in layers)


def test_both_maps_cover_exactly_their_tiles() -> None:
    slide = make_slide((400, 600), mpp=(0.25, 0.4))
    result = make_field_result(slide, tile_px=40)
    image = Layer.create(*slide_layer(slide))
    for role in ("score", "confidence"):
        layer = layer_of(result, role)
        row, col = result.table.index[-1]
        corner = layer.data_to_world((row - 0.5, col - 0.5))
        at = np.array([row * 40 * 0.5 / 0.25, col * 40 * 0.5 / 0.4])
        np.testing.assert_allclose(image.world_to_data(corner), at - 0.5, atol=1e-6)


def test_the_status_bar_tells_class_probability_and_confidence() -> None:
    result = make_field_result()
    image, options, kind = drawn(result, "tiles")
    layer = Layer.create(image, options, kind)
    status = layer.get_status(layer.data_to_world((0, 2)), world=True)["value"]
    assert "score of the tile: 2+" in status
    assert "probability: 0.7" in status
    assert "confidence (learnt): 0.511" in status
    assert "attention" not in status


def test_a_tile_is_described_by_its_score() -> None:
    lookup = TileLookup(make_field_result())
    assert lookup.short_words(3) == "3+, probability 70%, learnt confidence 0.52"
    assert "0 10%, 1+ 10%, 2+ 10%, 3+ 70%" in lookup.words(3)
    assert "weight in the score: rank" in lookup.words(3)
    assert "attention" not in lookup.words(3)


def test_other_methods_have_neither_map() -> None:
    result = make_result()
    assert layer_of(result, "score") is None
    assert layer_of(result, "confidence") is None
    assert drawn(result, "attention")[1]["visible"]
    # Without confidence there is no score by tile either.
    field = make_field_result()
    bare = replace(field, slides=(replace(result.slides[0]),))
    assert layer_of(bare, "score") is None
