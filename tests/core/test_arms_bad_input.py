"""Slides that are not what they should be, offered to each way of scoring IHC that is compared."""

from __future__ import annotations

import numpy as np
import pytest

from low_resolution_bundles import make_low_resolution_bundle
from method_bundles import make_mil_bundle, make_patch_bundle
from napari_her2 import score_slide
from napari_her2.errors import ModelMisfit, SlideError
from napari_her2.models.bundle import load_bundle
from painted import PINK, paint


@pytest.fixture(scope="module", params=["low-resolution", "patches", "transmil"])
def arm(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    if request.param == "low-resolution":
        return load_bundle(make_low_resolution_bundle(path))
    if request.param == "patches":
        return load_bundle(make_patch_bundle(path, tile_px=64, mpp=1.0))
    return load_bundle(make_mil_bundle(path, "transmil", stain="IHC"))


def score(slide, arm, **options):
    return score_slide(slide, arm, device="cpu", cache=False, **options)


def test_pure_glass_is_told(arm, tmp_path):
    with pytest.raises(SlideError, match="No tissue was found on glass"):
        score(paint(tmp_path / "glass.svs", tissue=(0, 0, 0, 0)), arm)


def test_a_slide_fifty_times_longer_than_wide_is_scored(arm, tmp_path):
    path = paint(tmp_path / "long.svs", shape=(12800, 256), tissue=(0, 0, 12800, 256))
    found = score(path, arm, min_confidence=0.0)
    assert len(found.table) > 100 or found.thumbnails
    assert sum(found.probabilities.values()) == pytest.approx(1)
    for tile_map in found.maps:
        assert tile_map.values.shape == found.grid.shape
        assert tile_map.values.shape[0] > 40 * tile_map.values.shape[1]


def test_a_single_tiny_fragment_is_not_answered(arm, tmp_path):
    path = paint(tmp_path / "tiny.svs", tissue=(500, 500, 760, 760))
    found = score(path, arm, min_confidence=0.0)
    assert found.abstained
    assert found.label.startswith("indeterminate: only")
    assert "tissue" in found.label


def test_fluorescence_is_refused(arm, tmp_path):
    path = paint(tmp_path / "dark.svs", colours=((20, 200, 60), (30, 40, 180)), glass=4)
    with pytest.raises(ModelMisfit, match=r"looks like fluorescence \(dark background\)"):
        score(path, arm)


def test_a_picture_without_colour_is_refused(arm, tmp_path):
    path = paint(tmp_path / "grey.svs", colours=((150, 150, 150), (90, 90, 90)))
    with pytest.raises(ModelMisfit, match="grey has no colour, so no stain can be told"):
        score(path, arm)


def test_h_and_e_is_refused_and_scored_with_a_warning_when_told_to(arm, tmp_path):
    path = paint(tmp_path / "he.svs", colours=(PINK, (120, 90, 170)))
    with pytest.raises(ModelMisfit, match=rf"looks like H&E, but the model {arm.card.name} was made for IHC"):
        score(path, arm)
    found = score(path, arm, override_fit=True)
    assert found.task.endswith("it looks like H&E: then this is no IHC score)")
    assert any("Scored all the same: The slide looks like H&E" in text for text in found.warnings)
    assert np.isfinite(list(found.probabilities.values())).all()
