"""Bundles of every bag method: written, read, and applied to a slide as the head alone is to its features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from method_bundles import CLASSES, MIL, make_mil_bundle
from napari_her2 import open_slide, score_slide
from napari_her2.errors import ModelError
from napari_her2.models.abmil import ABMIL
from napari_her2.models.architectures import ARCHITECTURES
from napari_her2.models.bags import tile_uncertainty
from napari_her2.models.bundle import load_bundle

WITH_EVIDENCE = {"abmil", "abmil-plain", "clam-sb", "clam-mb", "dsmil"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mil")
    return {kind: make_mil_bundle(folder / f"{kind}.safetensors", kind) for kind in MIL}


@pytest.fixture(scope="module")
def features_by_precision(models, scored, he_slide):
    """Features of the tiles that are scored, read and encoded without stream and cache, by grid place."""
    encoder = load_bundle(models["abmil"]).encoder
    rows = scored.table.origins_px0.tolist()
    with open_slide(he_slide) as slide, torch.inference_mode():
        tiles = torch.from_numpy(np.stack([slide.read(0, y, x, 96, 96) for y, x in rows]))
        found = {}
        for name, low in (("float32", False), ("bfloat16", True)):
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                found[name] = torch.cat([encoder(part) for part in tiles.split(64)]).half().float()
    return found


@pytest.fixture
def features(features_by_precision, precision):
    return features_by_precision[precision]


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cache(cache_folder, monkeypatch):
    """One cache for the whole file: the encoder is the same, and runs once."""
    monkeypatch.setenv("NAPARI_HER2_CACHE", str(cache_folder))


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("kind", MIL)
def test_a_bundle_scores_a_slide_as_its_head_scores_the_features(
    kind, models, features, he_slide, scored, precision
):
    bundle = load_bundle(models[kind])
    assert (bundle.card.architecture, bundle.card.method) == (MIL[kind][0], kind.split("-")[0])
    result = score_slide(he_slide, bundle, device="cpu")
    with torch.inference_mode():
        expected = bundle.head(features)
    assert result.precision == precision
    assert np.array_equal(result.table.index, scored.table.index)
    assert list(result.probabilities.values()) == pytest.approx(expected.probabilities.tolist(), abs=2e-3)
    assert np.allclose(
        result.table.attention, expected.attention, atol=2e-3 * float(expected.attention.max())
    )
    assert np.ptp(result.table.attention) > 0.01 * result.table.attention.max()  # else any order would do
    assert result.table.attention.sum(dtype=np.float64) == pytest.approx(1, abs=1e-5)
    kinds = {tile_map.kind for tile_map in result.maps}
    assert kinds == {"attention", "tissue", "corrupt"} | ({"evidence"} if kind in WITH_EVIDENCE else set())
    assert "Regions the model used, not regions that are HER2-positive" in result.map("attention").description
    assert (result.uncertainty.draws, result.uncertainty.bag_size) == (20, 100)
    assert np.isfinite(result.uncertainty.sd).all()
    if kind in WITH_EVIDENCE:
        mean = result.table.evidence.astype(np.float64).mean(axis=0)
        bias = bundle.head.bias if kind == "dsmil" else bundle.head.classifier.bias
        logits = mean + bias.detach().numpy()
        chances = np.exp(logits) / np.exp(logits).sum()
        assert list(result.probabilities.values()) == pytest.approx(chances.tolist(), abs=1e-4)


@pytest.mark.parametrize("kind", MIL)
def test_a_bundle_gives_back_the_weights_it_was_given(kind, models, tmp_path):
    again = make_mil_bundle(tmp_path / "again.safetensors", kind)
    first, second = load_bundle(models[kind]), load_bundle(again)
    assert first.sha256 == second.sha256
    for name, tensor in first.head.state_dict().items():
        assert torch.equal(tensor, second.head.state_dict()[name])


@pytest.mark.parametrize("kind", MIL)
@pytest.mark.parametrize("tiles", [2, 5, 130])
def test_spread_over_draws_works_for_bags_of_any_size(kind, tiles, models):
    head = load_bundle(models[kind]).head
    bag = torch.randn(tiles, 1024, generator=torch.Generator().manual_seed(tiles))
    spread = tile_uncertainty(head, head.tiles(bag), draws=3, bag_size=max(1, tiles - 1))
    assert spread.mean.sum() == pytest.approx(1, abs=1e-5)
    assert np.isfinite(spread.sd).all()
    assert tile_uncertainty(head, head.tiles(bag), bag_size=tiles + 1) is None


@pytest.mark.parametrize("kind", MIL)
def test_a_draw_of_all_tiles_says_what_the_slide_says(kind, models):
    # TransMIL looks at the order of tiles: a draw that shuffles them is another slide.
    head = load_bundle(models[kind]).head
    bag = torch.randn(30, 1024, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = torch.softmax(head(bag).logits, dim=-1).numpy()
    spread = tile_uncertainty(head, head.tiles(bag), draws=3, bag_size=30)
    np.testing.assert_allclose(spread.mean, whole, atol=1e-6)
    np.testing.assert_allclose(spread.sd, 0, atol=1e-6)


def test_attention_by_class_is_that_of_the_answer(models, features):
    output = load_bundle(models["clam-mb"]).head(features)
    answer = int(output.logits.argmax())
    own = torch.softmax(output.branch_scores[:, answer], dim=0)
    assert torch.allclose(output.attention, own, atol=1e-7)
    others = [torch.softmax(output.branch_scores[:, c], dim=0) for c in range(4) if c != answer]
    assert all(not torch.allclose(own, other, rtol=1e-3, atol=0) for other in others)


def test_a_card_says_how_many_parameters_abmil_has():
    head = ARCHITECTURES["ABMIL"].make(features=1024, width=512, hidden=256, classes=4, gated=True)
    assert isinstance(head, ABMIL)
    assert sum(parameter.numel() for parameter in head.parameters()) == 789_765


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("transmil", {"attention": "sparse"}, "not 'sparse'"),
        ("transmil", {"heads": 3}, "heads"),
        ("abmil", {"gated": 1}, "gated .true or false."),
        ("clam-sb", {"width": 0}, "width .whole number"),
        ("dsmil", {"features": 512}, "its head takes 512 features"),
        ("abmil", {"classes": 3}, "gives 3 classes"),
    ],
)
def test_cards_that_make_no_sense_are_refused(kind, changes, words, models):
    card = load_bundle(models[kind]).card
    assert card.classes == CLASSES
    with pytest.raises(ModelError, match=words):
        ARCHITECTURES[card.architecture].build(replace(card, arguments={**card.arguments, **changes}))
