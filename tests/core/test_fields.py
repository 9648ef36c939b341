"""Slides scored field by field: the rule worked out again, the numbers kept, and what is refused."""

from __future__ import annotations

import gc
import json
import os
import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from field_bundles import ARGUMENTS, make_field_bundle
from napari_her2 import open_slide, score_slide
from napari_her2.errors import ModelError, ModelMisfit, SlideError
from napari_her2.explain.gradcam import grad_cam
from napari_her2.export.tables import write_result
from napari_her2.inference import prepared as prepared_room
from napari_her2.inference.device import choose_device
from napari_her2.inference.loaded import loaded_bundle
from napari_her2.inference.prepared import prepared_fields, slide_stains
from napari_her2.inference.tile_scores import TileScorer, unpacked
from napari_her2.methods.catalogue import METHODS
from napari_her2.methods.corr_a_net import trust_shares
from napari_her2.models.bundle import load_bundle, save_bundle
from napari_her2.models.field_model import FieldModel
from napari_her2.models.preprocessing import TilePreparation
from napari_her2.models.weights_file import weights_digest
from napari_her2.slide.macenko import fit_slide, he_transform
from napari_her2.steps import finished
from small_files import write_flat_slide


@pytest.fixture(scope="module")
def field_model(tmp_path_factory):
    return make_field_bundle(tmp_path_factory.mktemp("fields") / "fields.safetensors")


@pytest.fixture(scope="module")
def scored_fields(small_pair, field_model):
    return score_slide(small_pair.he, field_model, device="cpu", cache=False)


def test_the_slide_is_the_confidence_weighted_mean_of_its_tiles(scored_fields):
    table = scored_fields.table
    weights = table.confidence.astype(np.float64)
    weights /= weights.sum()
    expected = weights @ table.probabilities.astype(np.float64)
    assert np.allclose(list(scored_fields.probabilities.values()), expected, atol=1e-6)
    assert np.allclose(table.attention, weights, atol=1e-6)
    assert "weighted by the model's confidence" in scored_fields.rule
    assert np.isclose(sum(scored_fields.trust.values()), 1)


def test_a_model_without_confidence_counts_tiles_alike_and_offers_no_trust(small_pair, tmp_path):
    path = make_field_bundle(tmp_path / "plain.safetensors", arguments={"confidence": False})
    result = score_slide(small_pair.he, path, device="cpu", cache=False)
    expected = result.table.probabilities.astype(np.float64).mean(axis=0)
    assert np.allclose(list(result.probabilities.values()), expected, atol=1e-6)
    assert result.trust == {}
    assert result.table.confidence is None
    kinds = {overlay.kind for overlay in result.maps}
    assert not {"confidence", "attention"} & kinds
    assert "confidence" not in result.rule
    facts = METHODS["corr-a-net"].facts(result)
    assert not any("confidence" in name or "trust" in name for name, _ in facts)
    folder = write_result(result, tmp_path)
    assert "confidence" not in (folder / "tiles.csv").read_text(encoding="utf-8").splitlines()[0]
    assert not json.loads((folder / "result.json").read_text()).get("tiles_by_confidence")


def test_each_tile_says_what_the_model_says_of_it(scored_fields, field_model, small_pair):
    """Tiles cut here one by one, prepared and scored without the stream, the cache or float16."""
    bundle = load_bundle(field_model)
    with open_slide(small_pair.he) as slide:
        transform = slide_stains(slide, bundle.card.mpp).transform
        assert not transform.is_identity
        for at in (0, len(scored_fields.table) // 2):
            y, x = scored_fields.table.origins_px0[at].tolist()
            normalised = np.exp(
                np.log1p(slide.read(0, y, x, 256, 256).astype(np.float64)) @ transform.matrix.T
                + transform.offset
            )
            pixels = (normalised.clip(1, 256) - 1) / 255
            small = pixels.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
            with torch.inference_mode():
                said = bundle.head(torch.from_numpy(small).float().permute(2, 0, 1)[None])
            found = scored_fields.table.probabilities[at]
            assert np.allclose(found, said.probabilities[0], atol=2e-3)
            assert np.isclose(scored_fields.table.confidence[at], said.confidence[0], atol=2e-3)


def test_a_slide_is_the_mean_of_its_tiles_weighted_by_the_confidence_in_each(
    small_pair, field_model, monkeypatch
):
    def by_colour(_, tiles):
        """What a trained network does and one with random weights does not: differ from tile to tile."""
        colours = tiles.mean(dim=(2, 3))
        return torch.cat([colours, colours[:, :1] - colours[:, 1:2], colours[:, 1:2] - 0.7], dim=1) * 12

    monkeypatch.setattr(FieldModel, "tile_logits", by_colour)
    result = score_slide(small_pair.he, field_model, device="cpu", cache=False)
    table = result.table
    assert np.ptp(table.confidence) > 0.2  # or a plain mean would be the same
    weights = table.confidence.astype(np.float64) / table.confidence.sum(dtype=np.float64)
    said = np.array([result.probabilities[name] for name in result.classes])
    assert np.allclose(said, weights @ table.probabilities, atol=1e-5)
    assert np.abs(said - table.probabilities.mean(axis=0)).max() > 1e-3
    assert np.allclose(table.attention, weights, atol=1e-6)


def test_a_temperature_divides_the_logarithms_of_the_slide_not_of_its_tiles(small_pair, tmp_path):
    plain = make_field_bundle(tmp_path / "plain.safetensors")
    warm = make_field_bundle(tmp_path / "warm.safetensors", temperatures={"slide": 2.5})
    before, after = (score_slide(small_pair.he, model, device="cpu") for model in (plain, warm))
    given = np.array([before.probabilities[name] for name in before.classes]) ** (1 / 2.5)
    assert np.allclose([after.probabilities[name] for name in before.classes], given / given.sum(), atol=1e-6)
    assert np.array_equal(before.table.probabilities, after.table.probabilities)


def test_logits_survive_the_store_within_rounding(field_model):
    bundle = load_bundle(field_model)
    encoder = TileScorer(bundle.head, TilePreparation(tile_px=256, out_px=64), numbers=5, cache_salt="")
    tiles = torch.randint(0, 256, (3, 256, 256, 3), dtype=torch.uint8)
    with torch.inference_mode():
        packed = encoder(tiles)
        exact = bundle.head(encoder.prepare(tiles))
    said = unpacked(packed.half().numpy()).float()
    assert torch.allclose(said[:, :-1], exact.logits, atol=1e-5)
    assert torch.allclose(said[:, -1], exact.confidence_logits, atol=1e-5)


def test_scored_again_from_the_cache_it_says_the_same(small_pair, field_model, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_HER2_CACHE", str(tmp_path))
    first = score_slide(small_pair.he, field_model, device="cpu")
    again = score_slide(small_pair.he, field_model, device="cpu")
    assert first.probabilities == again.probabilities
    assert np.array_equal(first.table.confidence, again.table.confidence)


def test_maps_hold_what_the_table_holds(scored_fields):
    rows, cols = scored_fields.table.index.T
    table = scored_fields.table
    assert np.array_equal(scored_fields.map("score").values[rows, cols], table.probabilities.argmax(1))
    assert np.allclose(scored_fields.map("confidence").values[rows, cols], table.confidence, atol=1e-6)
    for number, name in enumerate(scored_fields.classes):
        values = scored_fields.map("probability", name).values
        assert np.allclose(values[rows, cols], table.probabilities[:, number], atol=1e-6)
        assert np.isfinite(values).sum() == len(table)


def test_a_model_that_trusts_nothing_does_not_answer(small_pair, tmp_path):
    model = make_field_bundle(tmp_path / "fields.safetensors", confidence_bias=-4.0)
    result = score_slide(small_pair.he, model, device="cpu", min_confidence=0.0)
    assert result.abstained
    assert "trusts its scores of the tiles too little" in result.label
    assert result.trust["low"] == 1.0


def test_shares_of_trust_count_the_limits_in():
    shares = trust_shares(np.array([1.0, 0.9, 0.89, 0.75, 0.74, 0.0]))
    assert shares == {
        "high": pytest.approx(2 / 6),
        "medium": pytest.approx(2 / 6),
        "low": pytest.approx(2 / 6),
    }
    assert trust_shares(np.array([])) == {"high": 0.0, "medium": 0.0, "low": 0.0}


def test_the_table_of_tiles_holds_probabilities_and_confidence(scored_fields, tmp_path):
    folder = write_result(scored_fields, tmp_path)
    rows = (folder / "tiles.csv").read_text(encoding="utf-8").splitlines()
    names = rows[0].split(",")
    assert names[-5:] == ["probability_0", "probability_1+", "probability_2+", "probability_3+", "confidence"]
    values = np.array(rows[1].split(",")[-5:], float)
    assert np.allclose(values[:4], scored_fields.table.probabilities[0])
    told = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert told["rule"] == scored_fields.rule
    assert set(told["tiles_by_confidence"]) == {"high", "medium", "low"}


def test_a_slide_too_coarse_is_refused_and_glass_is_named(field_model, tmp_path):
    coarse = write_flat_slide(tmp_path / "coarse.svs", mpp=2.0)
    with pytest.raises(ModelMisfit, match="too coarse"):
        score_slide(coarse, field_model, device="cpu")
    with pytest.raises(SlideError, match="No tissue"):
        score_slide(write_flat_slide(tmp_path / "glass.svs"), field_model, device="cpu")


def test_a_finer_slide_is_scored_at_the_models_scale(small_pair, field_model, scored_fields):
    with open_slide(small_pair.he, mpp=0.25) as slide:
        finer = score_slide(slide, field_model, device="cpu")
    assert len(finer.table) < len(scored_fields.table)
    assert np.isfinite(finer.table.probabilities).all()


def test_a_slide_with_nothing_to_normalise_is_scored_as_scanned(field_model, tmp_path):
    """One colour has no two stains to part: said, finite, never a crash."""
    path = write_flat_slide(tmp_path / "flat.svs", colour=(205, 130, 180))
    with open_slide(path) as slide:
        stains = slide_stains(slide, load_bundle(field_model).card.mpp)
    assert stains.transform.is_identity
    assert stains.fallback is not None


def test_what_was_kept_of_fields_before_stays_valid(small_pair, field_model):
    """The key of the cache, worked out again: the weights and how the tiles were prepared."""
    bundle = load_bundle(field_model)
    with open_slide(small_pair.he) as slide:
        prepared = finished(prepared_fields(slide, bundle, choose_device("cpu")))
        transform = he_transform(fit_slide(slide, mpp=0.5))
    told = f"fields 256 {transform.matrix.tolist()} {transform.offset.tolist()}"
    scorer = TileScorer(prepared.head, prepared.preparation, numbers=5, cache_salt=prepared.cache_salt)
    assert scorer.fingerprint() == weights_digest(bundle.head.state_dict(), told)


def test_stains_are_fitted_once_whoever_asks(small_pair, field_model, monkeypatch):
    fitted = []
    monkeypatch.setattr(
        prepared_room, "fit_slide", lambda slide, *, mpp: fitted.append(mpp) or fit_slide(slide, mpp=mpp)
    )
    with open_slide(small_pair.he) as slide:
        score_slide(slide, field_model, device="cpu")
        score_slide(slide, field_model, device="cpu")
        finished(prepared_fields(slide, load_bundle(field_model), choose_device("cpu")))
    assert fitted == [0.5]


def test_a_model_in_use_is_loaded_once_for_a_device(field_model, tmp_path):
    cpu, meta = choose_device("cpu"), replace(choose_device("cpu"), torch_device=torch.device("meta"))
    path = shutil.copy(field_model, tmp_path / "copy.safetensors")
    first = loaded_bundle(path, cpu)
    assert loaded_bundle(str(path), cpu) is first
    assert loaded_bundle(path, meta) is not first
    os.utime(path, ns=(1, 1))
    assert loaded_bundle(path, cpu) is not first


def test_a_model_that_nobody_uses_is_let_go(field_model, tmp_path):
    paths = [shutil.copy(field_model, tmp_path / f"{number}.safetensors") for number in range(2)]
    gone = weakref.ref(loaded_bundle(paths[0], choose_device("cpu")))
    assert gone() is not None  # the last one is kept: explaining follows scoring
    loaded_bundle(paths[1], choose_device("cpu"))
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"predictor": "resnet-9000"}, "no predictor called"),
        ({"channels_from": "IHC"}, "looks at"),
        ({"dim": 7}, "multiple of 4"),
        ({"dilation": 9}, "dilation from 1 to 5"),
        ({"dilation": 2.5}, "architecture takes"),
        ({"scaling": "slide"}, "scales by field or training"),
        ({"depth": 3}, "architecture takes"),
    ],
)
def test_a_card_that_names_what_does_not_exist_is_refused(tmp_path, arguments, words):
    good = make_field_bundle(tmp_path / "fields.safetensors")
    bundle = load_bundle(good)
    card = replace(bundle.card, arguments=ARGUMENTS | arguments)
    with pytest.raises(ModelError, match=words):
        save_bundle(tmp_path / "bad.safetensors", card, None, bundle.head)


def test_an_arm_that_looks_at_the_pixels_has_no_network_ahead(tmp_path, small_pair):
    model = make_field_bundle(tmp_path / "he.safetensors", arguments={"channels_from": "H&E"})
    bundle = load_bundle(model)
    assert bundle.head.network is None
    assert len(score_slide(small_pair.he, model, device="cpu").table)


def test_a_variant_of_the_network_is_loaded_scored_and_explained(tmp_path, small_pair):
    variant = {"dilation": 2, "scaling": "training"}
    bundle = load_bundle(make_field_bundle(tmp_path / "variant.safetensors", arguments=variant))
    network = bundle.head.network
    assert (network.dilation, network.scaling, network.sees_px) == (2, "training", 11)
    assert len(score_slide(small_pair.he, bundle, device="cpu").table)
    fields = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        represented = bundle.head.represent(fields)
        expected = (network.represent(fields) / network.ceiling.view(-1, 1, 1)).clamp(0, 1)
        assert torch.equal(represented, expected)
        maps = grad_cam(bundle.head, fields, 1)
        torch.testing.assert_close(maps, grad_cam(bundle.head.predictor, represented, 1))
    assert bool(maps.isfinite().all())


def test_a_model_without_variants_says_nothing_of_them(field_model):
    """Its card and weights are those of before there were any."""
    bundle = load_bundle(field_model)
    assert bundle.card.arguments.keys() == ARGUMENTS.keys()
    assert (bundle.head.network.dilation, bundle.head.network.scaling) == (1, "field")
