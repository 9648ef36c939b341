"""Scoring: numbers worked out again by hand, and the rules of what is said and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import shapely

from napari_her2 import open_slide, score_slide, score_steps
from napari_her2.errors import JobFailed, ModelError, SlideError
from napari_her2.inference.class_words import class_label
from napari_her2.inference.presentation import doubted_label
from napari_her2.inference.regions import Region, read_regions, tiles_inside
from napari_her2.inference.result import AnswerLimits
from napari_her2.slide.grid import TileGrid
from small_files import make_bundle, write_flat_slide

CLASSES = ("0", "1+", "2+", "3+")


def test_probabilities_follow_from_the_exported_evidence(scored, tiny_bundle):
    bias = tiny_bundle.head.classifier.bias.detach().numpy().astype(np.float64)
    logits = scored.table.evidence.astype(np.float64).mean(0) + bias
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()
    assert np.allclose([scored.probabilities[name] for name in CLASSES], expected, atol=1e-4)
    assert scored.score == CLASSES[int(expected.argmax())]
    assert scored.confidence == max(scored.probabilities.values())
    assert np.isclose(scored.table.attention.sum(dtype=np.float64), 1, atol=1e-5)


def test_maps_hold_the_table_and_nothing_else(scored):
    rows, cols = scored.table.index.T
    for position, name in enumerate(CLASSES):
        values = scored.map("evidence", name).values
        assert np.array_equal(values[rows, cols], scored.table.evidence[:, position])
        assert np.isfinite(values).sum() == len(scored.table)
    assert np.array_equal(scored.map("attention").values[rows, cols], scored.table.attention)
    assert (scored.map("tissue").values[rows, cols] >= 0.5 - 1e-5).all()
    assert not np.isfinite(scored.map("corrupt").values).any()
    assert np.array_equal(scored.table.origins_px0, scored.table.index * 96)


def test_where_it_came_from_travels_with_the_result(scored, tiny_bundle, he_slide):
    assert scored.model_sha256 == tiny_bundle.sha256
    assert scored.task == "H&E-based prediction of the HER2 IHC score"
    assert scored.device.startswith("cpu (")
    assert set(scored.seconds) == {"tissue", "embed", "model"}
    assert "Research use only" in scored.notice
    assert scored.uncertainty is not None
    assert (scored.uncertainty.draws, scored.uncertainty.bag_size) == (20, 100)
    assert 0.1 < scored.tissue_mm2 < (1536 * 0.5 / 1000) ** 2
    assert scored.slide == he_slide.stem


def test_damage_is_counted_drawn_and_told(damaged_slide, tiny_model, scored):
    result = score_slide(damaged_slide, tiny_model, device="cpu", cache=False)
    assert len(result.corrupt) > 0
    left_out = {tuple(place) for place in result.corrupt.tolist()}
    whole = {tuple(place) for place in scored.table.index.tolist()}
    found = {tuple(place) for place in result.table.index.tolist()}
    assert not found & left_out
    # The colour of the glass is taken from what can be read, so a tile at the edge of the tissue may differ.
    assert len(found ^ (whole - left_out)) <= 3
    rows, cols = result.corrupt.T
    assert (result.map("corrupt").values[rows, cols] == 1).all()
    assert np.isnan(result.map("attention").values[rows, cols]).all()
    assert any(f"{len(result.corrupt)} of" in text and "damaged" in text for text in result.warnings)


def test_a_region_limits_the_tiles_to_those_with_their_centre_inside(he_slide, tiny_model, scored, tmp_path):
    half = shapely.box(0, 0, 1536, 700)  # between the centres of the 7th and the 8th row of tiles: 624, 720
    result = score_slide(he_slide, tiny_model, regions=[half], device="cpu")
    kept = scored.table.index[scored.table.index[:, 0] <= 6]
    assert np.array_equal(result.table.index, kept)
    assert result.regions == "1 drawn region"
    assert result.tissue_mm2 < scored.tissue_mm2
    path = tmp_path / "half.geojson"
    path.write_text(json.dumps({"type": "Feature", "geometry": shapely.geometry.mapping(half)}))
    from_file = score_slide(he_slide, tiny_model, regions=path, device="cpu")
    assert from_file.probabilities == result.probabilities
    assert from_file.regions == "half.geojson"


def test_tiles_in_excluded_regions_are_not_scored(he_slide, tiny_model, scored):
    whole = shapely.box(0, 0, 1536, 1536)
    dcis = Region(shapely.box(0, 0, 1536, 96 * 8), "duct", "dcis")
    result = score_slide(he_slide, tiny_model, regions=[whole, dcis], device="cpu")
    assert np.array_equal(result.table.index, scored.table.index[scored.table.index[:, 0] >= 8])
    assert result.regions == "1 drawn region, without 1 excluded region (DCIS)"
    rest = score_slide(he_slide, tiny_model, regions=[dcis], device="cpu")
    assert rest.probabilities == result.probabilities
    assert rest.regions == "all but 1 excluded region (DCIS)"


def test_no_tile_in_the_regions_is_said(he_slide, tiny_model):
    with pytest.raises(JobFailed, match="inside the regions"):
        score_slide(he_slide, tiny_model, regions=[shapely.box(1e6, 1e6, 2e6, 2e6)], device="cpu")


def test_regions_that_cross_themselves_and_have_holes_are_taken():
    grid = TileGrid((1000, 1000), (0.5, 0.5), 100, 0.5)
    hole = shapely.Polygon(shapely.box(0, 0, 1000, 1000).exterior, [shapely.box(300, 300, 700, 700).exterior])
    assert tiles_inside([hole], grid).sum() == 100 - 16
    bow_tie = shapely.Polygon([(0, 0), (1000, 1000), (1000, 0), (0, 1000)])
    assert 30 < tiles_inside([bow_tie], grid).sum() < 60


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "[1, 2]",
        '{"type": "FeatureCollection"}',
        '{"type": "Polygon", "coordinates": "x"}',
        "3",
    ],
)
def test_files_that_are_no_regions_are_refused_in_words(tmp_path, content):
    (tmp_path / "r.geojson").write_text(content)
    with pytest.raises(JobFailed, match=r"r\.geojson"):
        read_regions(tmp_path / "r.geojson")


def test_points_alone_are_no_region(tmp_path):
    (tmp_path / "r.geojson").write_text('{"type": "Point", "coordinates": [1, 2]}')
    with pytest.raises(JobFailed, match="no polygon"):
        read_regions(tmp_path / "r.geojson")


def test_the_wrong_stain_is_refused_or_carried_as_a_warning(small_pair, tiny_model):
    with pytest.raises(ModelError, match="IHC"):
        score_slide(small_pair.ihc, tiny_model, device="cpu")
    result = score_slide(small_pair.ihc, tiny_model, device="cpu", override_fit=True)
    assert any("IHC" in text for text in result.warnings)


def test_a_slide_too_coarse_for_the_model_is_refused(he_slide, tiny_model):
    with open_slide(he_slide, mpp=2.0) as slide, pytest.raises(ModelError, match="µm/px"):
        score_slide(slide, tiny_model, device="cpu")


def test_an_ihc_slide_beside_is_refused_where_it_has_no_use(small_pair, tiny_model):
    with pytest.raises(ModelError, match="leave the IHC slide out"):
        score_slide(small_pair.he, tiny_model, ihc=small_pair.ihc, device="cpu")


def test_bare_glass_has_no_score(tmp_path, tiny_model):
    path = write_flat_slide(tmp_path / "glass.svs", (244, 243, 245))
    with pytest.raises(SlideError, match="No tissue"):
        score_slide(path, tiny_model, device="cpu")


def test_too_few_tiles_are_indeterminate(he_slide, tiny_model):
    result = score_slide(he_slide, tiny_model, regions=[shapely.box(500, 500, 1000, 1000)], device="cpu")
    assert 0 < len(result.table) < 100
    assert result.abstained
    assert result.label.startswith(f"indeterminate: only {len(result.table)} tiles")
    assert result.uncertainty is None


def test_an_unsure_answer_is_indeterminate(he_slide, tiny_model):
    result = score_slide(he_slide, tiny_model, device="cpu", min_confidence=1.0)
    assert result.abstained
    assert result.label == "indeterminate: no class reaches a probability of 100%"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("0", "0 (negative)"),
        ("1+", "1+ (negative)"),
        ("2+", "2+ (equivocal, ISH required)"),
        ("3+", "3+ (positive)"),
        ("Low", "1+/2+ (ISH unknown)"),
        ("tumour", "tumour"),
    ],
)
def test_classes_are_worded_as_the_criteria_have_it(scored, name, label):
    assert class_label(name) == label
    rest = "another"
    result = replace(
        scored, classes=(name, rest), probabilities={name: 0.9, rest: 0.1}, score=name, class_scores={}
    )
    assert doubted_label(result) == (label, "")
    many = replace(result, limits=AnswerLimits(min_tiles=len(scored.table) + 1))
    assert "tiles of tissue" in doubted_label(many)[1]
    unsure = replace(result, probabilities={name: 0.49, rest: 0.48})
    assert "50%" in doubted_label(unsure)[1]


def test_cancelling_before_the_end_closes_a_slide_that_was_opened_here(he_slide, tiny_model):
    steps = score_steps(he_slide, tiny_model, device="cpu")
    for step in steps:
        if step.stage.startswith("Embedding"):
            break
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)


def test_a_notice_of_the_model_never_replaces_ours(he_slide, tmp_path):
    model = make_bundle(tmp_path / "own.safetensors", notice="Fit for everything.")
    result = score_slide(he_slide, model, device="cpu", regions=[shapely.box(500, 500, 800, 800)])
    assert result.notice.startswith("Research use only. Not for diagnosis or treatment decisions.")
