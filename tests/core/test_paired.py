"""A case scored from both slides and from either: which head speaks, and which slides are no pair."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_her2 import open_slide, score_slide, score_steps
from napari_her2.errors import ModelError, ModelMisfit, SlideError
from napari_her2.export.tables import write_result
from napari_her2.inference.case_table import other_case
from napari_her2.inference.device import choose_device
from napari_her2.inference.embed import embed_steps
from napari_her2.models.bundle import load_bundle, read_card, save_bundle
from napari_her2.models.registry import add_model, load_model
from napari_her2.models.weights_file import weights_digest
from napari_her2.models.wsmcl import WSMCL
from napari_her2.phantom import make_pair
from napari_her2.steps import finished
from small_files import make_bundle, write_flat_slide

ARGUMENTS = {
    "he_features": 1024,
    "ihc_features": 1024,
    "width": 16,
    "heads": 2,
    "landmarks": 8,
    "classes": 4,
    "k": 20,
}


@pytest.fixture(scope="module")
def pair_model(tmp_path_factory, tiny_model):
    """WSMCL with random weights over the encoder of the single-slide model, in a folder of its own."""
    folder = tmp_path_factory.mktemp("pair-model")
    shutil.copy(tiny_model, folder / tiny_model.name)
    single = load_bundle(tiny_model)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        head = WSMCL(**ARGUMENTS)
    digest = weights_digest(single.encoder.backbone.state_dict())
    card = replace(
        single.card,
        name="pair",
        method="wsmcl",
        architecture="WSMCL",
        arguments=ARGUMENTS,
        stain="H&E+IHC",
        task="HER2 score from the H&E and IHC slides of a case",
        encoder=replace(single.card.encoder, weights=f"sha256:{digest}"),
    )
    save_bundle(folder / "pair.safetensors", card, single.encoder, head)
    return folder / "pair.safetensors"


@pytest.fixture(scope="module")
def both(small_pair, pair_model):
    return score_slide(small_pair.he, pair_model, small_pair.ihc, device="cpu", cache=False)


def test_each_head_has_its_own_temperature(small_pair, pair_model, both):
    bundle = load_bundle(pair_model)
    temperatures = {"fusion": 2.0, "H&E": 0.5, "IHC": 4.0}
    warm = replace(bundle, card=replace(bundle.card, temperatures=temperatures))
    result = score_slide(small_pair.he, warm, small_pair.ihc, device="cpu", cache=False)
    for head, temperature in temperatures.items():
        before, after = (np.array(list(of.heads[head].values())) for of in (both, result))
        expected = before ** (1 / temperature)
        assert np.allclose(after, expected / expected.sum(), atol=1e-5)
        assert np.abs(after - before).max() > 1e-3
    assert result.probabilities == result.heads["fusion"]


def features_of(path, bundle):
    with open_slide(path) as slide:
        grid = slide.tile_grid(96, 0.5)
        keep = slide.tissue("auto").keep(grid, 0.5)
        steps = embed_steps(slide, bundle.encoder, grid, keep, choose_device("cpu"), cache=False)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return torch.from_numpy(end.value.features).float()


def test_each_head_says_what_the_model_says_of_the_features(both, small_pair, pair_model):
    bundle = load_bundle(pair_model)
    he, ihc = features_of(small_pair.he, bundle), features_of(small_pair.ihc, bundle)
    with torch.inference_mode():
        expected = bundle.head(he, ihc)
    for head, logits in (
        ("fusion", expected.fused),
        ("H&E", expected.he.logits),
        ("IHC", expected.ihc.logits),
    ):
        wanted = torch.softmax(logits, -1).tolist()
        assert list(both.heads[head].values()) == pytest.approx(wanted, abs=1e-5)
    assert both.head == "fusion"
    assert both.probabilities == both.heads["fusion"]
    assert both.agree == expected.agree
    for slide, branch in zip(both.slides, (expected.he, expected.ihc), strict=True):
        assert np.allclose(slide.table.attention, branch.attention, atol=1e-6)
        assert slide.compared == 20


def test_either_slide_alone_is_answered_by_its_own_head(both, small_pair, pair_model):
    for path, head in ((small_pair.he, "H&E"), (small_pair.ihc, "IHC")):
        alone = score_slide(path, pair_model, device="cpu")
        assert alone.head == head
        assert set(alone.heads) == {head}
        assert list(alone.probabilities.values()) == pytest.approx(list(both.heads[head].values()), abs=1e-5)
        assert alone.slides[0].stain == head
        assert any(f"Only the {head} slide was given" in line for line in alone.warnings)
        assert alone.agree is None
    assert "H&E-based prediction" in score_slide(small_pair.he, pair_model, device="cpu").task


def test_the_paired_slide_has_maps_of_its_own(both, small_pair):
    with open_slide(small_pair.ihc) as slide:
        seen = both.seen_from(slide.slide_id)
        assert seen.slide == slide.name
        assert seen.grid.slide_shape_px0 == slide.shape
    assert seen.probabilities == both.probabilities
    for result in (both, seen):
        rows, cols = result.table.index.T
        assert np.array_equal(result.map("attention").values[rows, cols], result.table.attention)
        assert result.table.evidence is None
        assert not any(tile_map.kind == "evidence" for tile_map in result.maps)
    with pytest.raises(KeyError):
        both.seen_from("another slide")


def test_what_the_user_says_of_the_stain_goes_before_the_colours(small_pair, pair_model):
    told = score_slide(small_pair.ihc, pair_model, device="cpu", stain="H&E")
    assert told.head == "H&E"
    assert any("Scored all the same" in line and "looks like IHC" in line for line in told.warnings)


def test_slides_the_wrong_way_round_are_refused_in_words(small_pair, pair_model):
    with pytest.raises(ModelMisfit, match="swapped"):
        score_slide(small_pair.ihc, pair_model, small_pair.he, device="cpu")


def test_two_he_slides_are_no_pair_unless_the_user_insists(small_pair, pair_model, tmp_path):
    copy = tmp_path / "second_HE.svs"
    shutil.copy(small_pair.he, copy)
    with copy.open("ab") as file:
        file.write(b"another scan")
    with pytest.raises(ModelMisfit, match=r"second_HE looks like H&E, but it was given as IHC"):
        score_slide(small_pair.he, pair_model, copy, device="cpu")
    result = score_slide(small_pair.he, pair_model, copy, device="cpu", override_fit=True)
    assert result.head == "fusion"
    assert any("looks like H&E" in line for line in result.warnings)


def test_the_same_file_twice_is_no_pair(small_pair, pair_model):
    with pytest.raises(ModelError, match="as the H&E and as the IHC slide"):
        score_slide(small_pair.he, pair_model, small_pair.he, device="cpu", override_fit=True)


def test_slides_that_a_manifest_gives_to_two_cases_are_refused(small_pair, pair_model, tmp_path):
    for path, name in ((small_pair.he, "a_HE.svs"), (small_pair.ihc, "b_HER2.svs")):
        shutil.copy(path, tmp_path / name)
    rows = ["case_id,he,ihc,score", "A,a_HE.svs,a_HER2.svs,0", "B,b_HE.svs,b_HER2.svs,3+"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    with pytest.raises(ModelMisfit, match=r"a_HE\.svs belongs to case A and b_HER2\.svs to case B"):
        score_slide(tmp_path / "a_HE.svs", pair_model, tmp_path / "b_HER2.svs", device="cpu")
    result = score_slide(
        tmp_path / "a_HE.svs", pair_model, tmp_path / "b_HER2.svs", device="cpu", override_fit=True
    )
    assert any("belongs to case A" in line for line in result.warnings)


@pytest.mark.parametrize(
    "content", ["", "a,b\n1,2\n", "case_id,he\nA,x.svs\n", "\0\0", "case_id,he,ihc\nA,x.svs,y.svs"]
)
def test_a_manifest_that_does_not_tell_cases_apart_stops_nobody(tmp_path, content):
    (tmp_path / "manifest.csv").write_text(content)
    assert other_case(tmp_path / "x.svs", tmp_path / "y.svs") is None


def test_a_paired_slide_without_tissue_is_named(small_pair, pair_model, tmp_path):
    glass = write_flat_slide(tmp_path / "glass.svs")
    with pytest.raises(SlideError, match="No tissue was found on glass"):
        score_slide(small_pair.he, pair_model, glass, device="cpu")


def test_a_paired_slide_with_little_tissue_is_scored_but_not_answered(small_pair, pair_model, tmp_path):
    with open_slide(small_pair.ihc) as slide:
        grid = slide.tile_grid(96, 0.5)
        row, col = np.argwhere(slide.tissue("auto").keep(grid, 0.99))[0]
        pixels = slide.read(0, int(row) * 96 - 96, int(col) * 96 - 96, 600, 600)
    little = write_flat_slide(tmp_path / "little.svs", shape=(600, 600))
    import tifffile

    description = "Aperio Image Library v1.0\n600x600 (256x256)|AppMag = 20|MPP = 0.5"
    tifffile.imwrite(
        little, pixels, tile=(256, 256), photometric="rgb", description=description, metadata=None
    )
    result = score_slide(small_pair.he, pair_model, little, device="cpu", override_fit=True)
    assert result.abstained
    assert "tiles of tissue on little" in result.label
    assert result.slides[1].compared == min(20, len(result.slides[1].table) // 2)


def test_a_model_for_one_slide_takes_no_pair(small_pair, tiny_model):
    with pytest.raises(ModelError, match="leave the IHC slide out"):
        score_slide(small_pair.he, tiny_model, small_pair.ihc, device="cpu")


def test_the_files_hold_both_slides(both, tmp_path):
    folder = write_result(both, tmp_path)
    told = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert told["head"] == "fusion"
    assert [part["stain"] for part in told["slides"]] == ["H&E", "IHC"]
    assert set(told["heads"]) == {"fusion", "H&E", "IHC"}
    for place, slide in ((folder, both.slides[0]), (folder / "IHC", both.slides[1])):
        rows = (place / "tiles.csv").read_text(encoding="utf-8").splitlines()
        assert len(rows) == len(slide.table) + 1
        assert "evidence" not in rows[0]
        with np.load(place / "maps.npz") as maps:
            assert np.isfinite(maps["attention"]).sum() == len(slide.table)
        names = {
            item["properties"]["classification"]["name"]
            for item in json.loads((place / "regions.geojson").read_text(encoding="utf-8"))["features"]
        }
        assert "Used by the model (attention)" in names
        assert not any("Evidence" in name for name in names)
    write_result(both, tmp_path)  # an older result of the case is replaced


def test_closing_the_steps_stops_the_scoring(small_pair, pair_model):
    steps = score_steps(small_pair.he, pair_model, small_pair.ihc, device="cpu", cache=False, batch_size=16)
    stages = [next(steps).stage for _ in range(6)]
    steps.close()
    assert "Embedding tiles (H&E)" in stages
    with pytest.raises(StopIteration):
        next(steps)


def test_progress_names_the_slide_that_is_embedded(small_pair, pair_model):
    steps = score_steps(small_pair.he, pair_model, small_pair.ihc, device="cpu")
    stages = list(dict.fromkeys(step.stage for step in steps))
    assert stages[-3:] == ["Embedding tiles (H&E)", "Embedding tiles (IHC)", "Scoring"]


def test_a_shared_encoder_is_found_in_the_bundle_that_holds_it(pair_model, tiny_model):
    bundle, single = load_bundle(pair_model), load_bundle(tiny_model)
    for key, value in single.encoder.backbone.state_dict().items():
        assert torch.equal(value, bundle.encoder.backbone.state_dict()[key])
    assert bundle.encoder.fingerprint() == single.encoder.fingerprint()  # and the cache serves both
    assert pair_model.stat().st_size < 0.1 * tiny_model.stat().st_size


def test_another_encoder_beside_it_is_not_taken(pair_model, tmp_path):
    shutil.copy(pair_model, tmp_path)
    other = make_bundle(tmp_path / "other.safetensors")
    damaged = bytearray(other.read_bytes())
    damaged[-1000] ^= 0xFF  # one number of the encoder
    other.write_bytes(damaged)
    with pytest.raises(ModelError, match="needs the weights of alexnet"):
        load_bundle(tmp_path / pair_model.name)


def test_a_model_that_shares_an_encoder_is_installed_with_it(pair_model, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_HER2_MODELS", str(tmp_path / "models"))
    add_model(pair_model)
    assert load_model("pair").encoder.fingerprint() == load_bundle(pair_model).encoder.fingerprint()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stain": "H&E"}, "contradicts itself"),
        ({"arguments": ARGUMENTS | {"ihc_features": 512}}, "contradicts itself"),
        ({"arguments": ARGUMENTS | {"k": 0}}, "whole number"),
        ({"arguments": {key: ARGUMENTS[key] for key in ARGUMENTS if key != "k"}}, "but the card gives"),
        ({"method": "attention-mil"}, "is the method"),
    ],
)
def test_a_card_that_does_not_fit_the_model_is_refused(pair_model, tmp_path, changes, words):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    card = replace(read_card(pair_model), **changes)
    with safe_open(pair_model, "pt") as file:
        metadata = dict(file.metadata())
    metadata["napari_her2"] = card.to_json()
    save_file(load_file(pair_model), tmp_path / "changed.safetensors", metadata)
    with pytest.raises(ModelError, match=words):
        load_bundle(tmp_path / "changed.safetensors")


def test_further_slides_of_a_case_lie_in_the_bag_of_their_stain(both, small_pair, pair_model, tmp_path):
    more = make_pair(tmp_path, "more", score="0", seed=8, size_px=768, mpp=0.5)
    steps = score_steps(
        small_pair.he, pair_model, small_pair.ihc, further=[(more.he, "H&E", None)], device="cpu", cache=False
    )
    result = finished(steps)
    bundle = load_bundle(pair_model)
    he, ihc, other = (features_of(path, bundle) for path in (small_pair.he, small_pair.ihc, more.he))
    with torch.inference_mode():
        expected = bundle.head(torch.cat([he, other]), ihc)
        alone = bundle.head(other)
    wanted = torch.softmax(expected.fused.double(), -1).tolist()
    assert list(result.probabilities.values()) == pytest.approx(wanted, abs=1e-5)
    assert [scored.stain for scored in result.slides] == ["H&E", "IHC", "H&E"]
    attention = np.concatenate([result.slides[at].table.attention for at in (0, 2)])
    assert np.allclose(attention, expected.he.attention, atol=1e-6)
    wanted = torch.softmax(alone.logits.double(), -1).tolist()
    assert list(result.slides[2].alone.values()) == pytest.approx(wanted, abs=1e-5)
    assert not result.slides[1].alone
    assert not both.slides[0].alone
