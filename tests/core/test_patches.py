"""Slides scored patch by patch: each patch and both rules worked out again, and what is not claimed."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from method_bundles import CLASSES, make_patch_bundle
from napari_her2 import open_slide, score_slide
from napari_her2.errors import ModelError
from napari_her2.export.tables import write_result
from napari_her2.inference.device import choose_device
from napari_her2.inference.job import ScoringJob
from napari_her2.inference.options import ScoringOptions
from napari_her2.inference.tile_scores import packed, unpacked
from napari_her2.methods.catalogue import METHODS
from napari_her2.methods.patches import fused, least_patches, split_vote
from napari_her2.models.architectures import ARCHITECTURES
from napari_her2.models.bundle import load_bundle
from napari_her2.models.patch_classifier import PatchConvNeXt
from napari_her2.models.weights_file import weights_digest
from napari_her2.steps import finished


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patches")
    return {
        fusion: make_patch_bundle(folder / f"{fusion}.safetensors", fusion=fusion)
        for fusion in ("mean", "vote")
    }


def scorer_of(bundle):
    job = ScoringJob(None, None, bundle, None, choose_device("cpu"), ScoringOptions())
    return finished(METHODS["patches"].encoder(job))[0]


@pytest.fixture(scope="module")
def results(models, small_pair):
    return {
        fusion: score_slide(small_pair.ihc, model, device="cpu", cache=False)
        for fusion, model in models.items()
    }


def test_each_patch_is_scored_as_the_network_alone_scores_its_pixels(results, models, small_pair):
    network = load_bundle(models["mean"]).head.network.eval()
    table = results["mean"].table
    picked = (0, len(table) // 2, len(table) - 1)
    with open_slide(small_pair.ihc) as slide:
        fields = [slide.read(0, *table.origins_px0[at].tolist(), 128, 128) for at in picked]
    # 64 px at 1 µm/px are 128 px of a slide at 0.5 µm/px, averaged two by two.
    small = np.stack(fields).reshape(len(picked), 64, 2, 64, 2, 3).mean(axis=(2, 4)).round() / 255
    pixels = (small - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    with torch.inference_mode():
        logits = network(torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2))
    expected = torch.softmax(logits, dim=1).numpy()
    assert np.allclose(table.probabilities[list(picked)], expected, atol=5e-3)
    assert np.ptp(table.probabilities, axis=0).max() > 0.05  # else any order of the patches would pass


def test_the_mean_rule_is_the_mean_and_the_vote_counts_heads(results):
    patches = results["mean"].table.probabilities.astype(np.float64)
    mean = patches.sum(axis=0) / len(patches)
    votes = np.bincount(patches.argmax(axis=1), minlength=4) / len(patches)
    assert np.allclose(list(results["mean"].probabilities.values()), mean, atol=1e-6)
    assert np.allclose(list(results["vote"].probabilities.values()), votes, atol=1e-9)
    assert results["mean"].rule == "mean of the probabilities of all patches"
    assert "majority vote" in results["vote"].rule
    assert results["mean"].score == CLASSES[mean.argmax()]


def test_no_attention_and_no_confidence_are_invented(results, tmp_path):
    result = results["mean"]
    assert (result.table.attention, result.table.confidence, result.table.evidence) == (None, None, None)
    assert {tile_map.kind for tile_map in result.maps} == {"score", "probability", "tissue", "corrupt"}
    assert (result.uncertainty, dict(result.trust)) == (None, {})
    folder = write_result(result, tmp_path)
    with (folder / "tiles.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert not [name for name in rows[0] if "attention" in name or name == "confidence"]
    assert [float(rows[3][f"probability_{name}"]) for name in CLASSES] == pytest.approx(
        result.table.probabilities[3].tolist(), abs=1e-6
    )
    told = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert told["rule"] == result.rule
    assert told["tiles"] == len(rows)


def test_score_map_names_the_class_of_each_patch(results):
    result = results["mean"]
    rows, cols = result.table.index.T
    values = result.map("score").values
    assert np.array_equal(values[rows, cols], result.table.probabilities.argmax(axis=1))
    assert np.isfinite(values).sum() == len(result.table)


def test_both_rules_share_what_is_kept_of_the_patches(models):
    mean, vote = (load_bundle(models[fusion]) for fusion in ("mean", "vote"))
    assert scorer_of(mean).fingerprint() == scorer_of(vote).fingerprint()
    other = PatchConvNeXt(variant="atto", tile_px=96)
    other.load_state_dict(mean.head.state_dict())
    larger = replace(mean, head=other, card=replace(mean.card, tile_px=96))
    assert scorer_of(larger).fingerprint() != scorer_of(mean).fingerprint()


def test_what_was_kept_of_patches_before_stays_valid(models):
    """The key of the cache, worked out again: the weights and how the tiles were prepared."""
    bundle = load_bundle(models["mean"])
    assert scorer_of(bundle).fingerprint() == weights_digest(bundle.head.state_dict(), "patches 64")


def test_cached_patches_give_the_same_numbers(models, small_pair, results):
    first = score_slide(small_pair.ihc, models["vote"], device="cpu")
    again = score_slide(small_pair.ihc, models["mean"], device="cpu")
    assert np.array_equal(first.table.probabilities, again.table.probabilities)
    assert np.allclose(again.table.probabilities, results["mean"].table.probabilities, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(2, 5)), elements=st.floats(-8, 8)))
def test_rules_against_plain_counting(logits):
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    tensor = torch.from_numpy(chances)
    counts = [sum(int(row.argmax() == name) for row in chances) for name in range(chances.shape[1])]
    assert fused(tensor, "vote").numpy() == pytest.approx(np.array(counts) / len(chances))
    assert fused(tensor, "mean").numpy() == pytest.approx([np.mean(column) for column in chances.T])
    classes = tuple("abcde"[: len(counts)])
    tied = [name for name, count in zip(classes, counts, strict=True) if count == max(counts)]
    said = split_vote(fused(tensor, "vote"), classes)
    assert said == ("" if len(tied) == 1 else f"the patches are split evenly between {' and '.join(tied)}")


def test_a_split_vote_is_not_answered(models, small_pair, monkeypatch):
    monkeypatch.setattr(
        "napari_her2.methods.patches.fused",
        lambda *_: torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64),
    )
    result = score_slide(small_pair.ihc, models["vote"], device="cpu", cache=False, min_confidence=0.3)
    assert result.abstained
    assert result.label == "indeterminate: the patches are split evenly between 0 and 1+"


@pytest.mark.parametrize(
    ("tile_px", "mpp", "least"), [(512, 1.0, 1), (96, 0.5, 100), (64, 1.0, 57), (256, 1.0, 4)]
)
def test_the_least_number_of_patches_covers_the_same_tissue(tile_px, mpp, least, tmp_path):
    path = make_patch_bundle(tmp_path / "m.safetensors", tile_px=tile_px, mpp=mpp)
    assert least_patches(load_bundle(path).card) == least


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-1000, 1000, width=32)))
def test_numbers_survive_the_store(numbers):
    kept = unpacked(packed(torch.from_numpy(numbers)).half().numpy()).numpy()
    assert np.allclose(kept, numbers, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tile_px": 100}, "multiple of 32 px, not 100 px"),
        ({"fusion": "median"}, "joined by mean or vote, not by 'median'"),
        ({"variant": "huge"}, "no ConvNeXt called 'huge'"),
    ],
)
def test_patches_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ModelError, match=words):
        PatchConvNeXt(**({"variant": "atto", "classes": 2} | arguments))


def test_a_card_with_another_size_than_its_head_is_refused(models):
    card = replace(load_bundle(models["mean"]).card, tile_px=96)
    with pytest.raises(ModelError, match="images of 64 px, its card says 96 px"):
        ARCHITECTURES["PatchConvNeXt"].build(card)
