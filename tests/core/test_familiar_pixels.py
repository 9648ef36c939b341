"""What models of pixels and of pairs compare: features ahead of the last layer, the spaces of each stain."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from field_bundles import make_field_bundle
from low_resolution_bundles import make_low_resolution_bundle
from method_bundles import make_patch_bundle
from napari_her2 import open_slide
from napari_her2.inference import familiarity as room
from napari_her2.inference.appearance import LENGTH
from napari_her2.inference.device import choose_device
from napari_her2.inference.doubt import NOTHING_KNOWN
from napari_her2.inference.job import ScoringJob
from napari_her2.inference.options import ScoringOptions
from napari_her2.inference.prepared import slide_stains
from napari_her2.inference.presentation import trust_line
from napari_her2.inference.tile_scores import TileScorer, features_behind, unpacked
from napari_her2.methods.catalogue import method_of
from napari_her2.models.answer_sets import AnswerSets, CalibrationCases
from napari_her2.models.bundle import load_bundle, save_bundle
from napari_her2.models.ensemble import WSMCLEnsemble
from napari_her2.models.familiarity import FEATURES, Familiarity, FeatureSpace
from napari_her2.models.predictors import PREDICTORS, Predictor
from napari_her2.models.preprocessing import TilePreparation
from napari_her2.models.weights_file import weights_digest
from napari_her2.models.wsmcl import WSMCL
from napari_her2.steps import finished
from painted import paint

pytestmark = pytest.mark.usefixtures("features_are_kept")

WIDE = np.exp(np.linspace(-0.2, 0.2, 9))


def near(features, factor=1.0) -> FeatureSpace:
    """A space in which slides lie as far off as this one, or so many times nearer."""
    centre = features.mean(axis=0) + 1  # or a slide of one image would lie at its very centre
    far = np.quantile(np.linalg.norm(features - centre, axis=1), (0.5, 0.9))
    dim = features.shape[1]
    return FeatureSpace(
        mean=centre.astype(np.float32),
        components=np.eye(1, dim, dtype=np.float32),
        scale=np.ones(1, np.float32),
        rest=1.0,
        references=np.zeros((1, 1), np.float32),
        reach=np.ones(1, np.float32),
        tile_limit=1.0,
        slides=(WIDE[:, None] * far / factor).astype(np.float32),
    )


def run(bundle, first, second=None, *, signatures=None):
    job = ScoringJob(
        first, second, bundle, None, choose_device("cpu"), ScoringOptions(), signatures=signatures
    )
    return finished(method_of(bundle.card).score(job))


@pytest.fixture(scope="module")
def he(small_pair):
    with open_slide(small_pair.he) as slide:
        yield slide


@pytest.fixture(scope="module")
def ihc(small_pair):
    with open_slide(small_pair.ihc) as slide:
        yield slide


@pytest.fixture
def _no_appearance(monkeypatch):
    """What pixels look like takes no part: that has tests of its own."""

    def nothing(*_, **__):
        yield from ()

    monkeypatch.setattr(room, "appearance_steps", nothing)


@pytest.mark.parametrize("kind", ["fields", "plain fields", "patches"])
def test_features_of_tiles_come_with_logits_that_stay_bit_for_bit(tmp_path, kind):
    if kind == "patches":
        head, tile_px, numbers = load_bundle(make_patch_bundle(tmp_path / "p.safetensors")).head, 64, 4
    else:
        arguments = {"channels_from": "H&E"} if kind == "plain fields" else {}
        head = load_bundle(make_field_bundle(tmp_path / "f.safetensors", arguments=arguments)).head
        tile_px, numbers = 64, 5
    tiles = torch.randint(0, 256, (4, tile_px, tile_px, 3), dtype=torch.uint8)
    plain, rich = (
        TileScorer(head, TilePreparation(tile_px=tile_px, out_px=64), numbers=numbers, cache_salt="x", **more)
        for more in ({}, {"features": True})
    )
    with torch.inference_mode():
        alone, both = plain(tiles), rich(tiles)
        whole = head(rich.prepare(tiles))
    assert torch.equal(alone, both[:, : 2 * numbers])
    assert (plain.spec.dim, rich.spec.dim) == (2 * numbers, both.shape[1])
    assert plain.fingerprint() != rich.fingerprint()
    kept = both.half().numpy()
    features = features_behind(kept, numbers)
    assert features.shape == (4, head.width)
    last = head.network.head.fc if kind == "patches" else head.predictor.classify
    by_hand = features.astype(np.float64) @ last.weight.double().numpy().T + last.bias.double().numpy()
    expected = (whole if kind == "patches" else whole.logits).double().numpy()
    np.testing.assert_allclose(by_hand, expected, atol=0.02 * np.abs(expected).max())
    np.testing.assert_allclose(unpacked(kept, numbers)[:, :4], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["resnext14-32x4d", "efficientnet-b0", "tinynet-e", "vit-tiny"])
def test_every_family_of_predictors_gives_what_its_last_layer_takes(name):
    assert name in PREDICTORS
    torch.manual_seed(0)
    model = Predictor(architecture=name, channels=3, size_px=64).eval()
    fields = torch.rand(2, 3, 64, 64)
    seen = []
    handle = model.classify.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        output, pooled = model(fields), model.pooled(fields)
        handle.remove()
        assert torch.equal(pooled, seen[0])
        assert pooled.shape == (2, model.features)
        assert torch.equal(output.logits, model.from_pooled(pooled).logits)


@pytest.mark.usefixtures("_no_appearance")
def test_fields_are_compared_by_the_features_of_their_predictor(he, tmp_path):
    bundle = load_bundle(make_field_bundle(tmp_path / "fields.safetensors"))
    last = bundle.head.predictor.backbone.bn2
    last.weight.mul_(1e5)  # what random weights make of pixels is next to nothing
    bundle.head.predictor.classify.weight.div_(1e5)
    bundle.head.predictor.confide[0].weight.div_(1e5)
    found = []
    plain, collected = run(bundle, he), run(bundle, he, signatures=found)
    (signature,) = found
    assert plain.probabilities == collected.probabilities
    assert np.array_equal(plain.table.confidence, collected.table.confidence)
    y, x = collected.table.origins_px0[0].tolist()
    transform = slide_stains(he, bundle.card.mpp).transform
    prepare = TilePreparation(tile_px=256, out_px=64, matrix=transform.matrix, offset=transform.offset)
    tile = torch.from_numpy(he.read(0, y, x, 256, 256))[None]
    with torch.inference_mode():
        expected = bundle.head.tile_features(prepare(tile))[0].numpy()
    np.testing.assert_allclose(signature.features[0], expected, atol=5e-3 * np.abs(expected).max())
    for factor, verdict in ((1, "familiar"), (30, "unlike")):
        space = near(signature.features, factor)
        result = run(replace(bundle, familiarity=Familiarity({("H&E", FEATURES): space})), he)
        assert result.doubt.verdict == verdict
        assert result.probabilities == plain.probabilities
        assert np.array_equal(
            result.map("unfamiliar").at(result.table.index), space.distances(signature.features)
        )
        assert result.trust == plain.trust


@pytest.mark.usefixtures("_no_appearance")
def test_images_are_compared_by_the_mean_of_their_views(tmp_path):
    bundle = load_bundle(make_low_resolution_bundle(tmp_path / "low.safetensors"))
    with open_slide(paint(tmp_path / "ihc.svs")) as slide:
        found = []
        plain = run(bundle, slide, signatures=found)
        (signature,) = found
        (thumbnail,) = plain.thumbnails
        each = []
        for mirrored in (thumbnail.rgb, thumbnail.rgb[:, ::-1]):
            for turns in range(4):
                image = np.rot90(mirrored, turns).astype(np.float32).transpose(2, 0, 1) / 255
                with torch.inference_mode():
                    maps = bundle.head.features(torch.from_numpy(image.copy())[None])
                    each.append(
                        bundle.head.network.head.norm(maps.mean(dim=(2, 3), keepdim=True))[0, :, 0, 0]
                    )
        np.testing.assert_allclose(signature.features[0], torch.stack(each).mean(dim=0), atol=1e-4)
        assert (signature.stain, len(signature.features)) == ("IHC", 1)
        for factor, verdict in ((1, "familiar"), (30, "unlike")):
            space = near(signature.features, factor)
            result = run(replace(bundle, familiarity=Familiarity({("IHC", FEATURES): space})), slide)
            assert (result.doubt.verdict, result.probabilities) == (verdict, plain.probabilities)
            # One image has no place that is less familiar than another.
            assert "unfamiliar" not in {of.kind for of in result.overlays}


ARGUMENTS = {"he_features": 1024, "ihc_features": 1024, "width": 16, "heads": 2, "landmarks": 8}
ARGUMENTS |= {"classes": 4, "k": 20}


@pytest.fixture(scope="module")
def pair_bundle(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("pair")
    shutil.copy(tiny_model, folder / tiny_model.name)
    single = load_bundle(tiny_model)
    torch.manual_seed(5)
    digest = weights_digest(single.encoder.backbone.state_dict())
    card = replace(
        single.card,
        name="pair",
        method="wsmcl",
        architecture="WSMCL",
        arguments=ARGUMENTS,
        stain="H&E+IHC",
        encoder=replace(single.card.encoder, weights=f"sha256:{digest}"),
    )
    save_bundle(folder / "pair.safetensors", card, single.encoder, WSMCL(**ARGUMENTS))
    return load_bundle(folder / "pair.safetensors")


def test_the_stranger_slide_of_a_pair_speaks_and_what_is_not_known_is_not_familiar(
    he, ihc, pair_bundle, monkeypatch
):
    found = []
    run(pair_bundle, he, ihc, signatures=found)
    assert [signature.stain for signature in found] == ["H&E", "IHC"]
    assert all(signature.appearance.shape[1] == LENGTH for signature in found)
    of = {signature.stain: signature.features for signature in found}
    monkeypatch.setattr(room, "appearance_steps", None)

    def scored(**factors):
        spaces = {
            (stain, FEATURES): near(of[stain], factor)
            for stain, factor in (("H&E", factors.get("he")), ("IHC", factors.get("ihc")))
            if factor is not None
        }
        return run(replace(pair_bundle, familiarity=Familiarity(spaces)), he, ihc)

    both, strange, half = scored(he=1, ihc=1), scored(he=1, ihc=30), scored(he=1)
    assert both.doubt.verdict == "familiar"
    assert "both slides look like what the model learnt from" in trust_line(both)
    verdicts = [slide.familiarity.verdict for slide in strange.slides]
    assert (verdicts, strange.doubt.verdict) == (["familiar", "unlike"], "unlike")
    assert strange.doubt.withheld
    assert "the IHC slide is unlike what the model learnt from" in trust_line(strange)
    assert [shown_unasked(slide) for slide in strange.slides] == [False, True]
    assert half.slides[1].familiarity is NOTHING_KNOWN
    assert half.doubt.verdict == "not known"
    assert "whether the IHC slide looks like what the model learnt from is not known" in trust_line(half)


def shown_unasked(scored):
    return next(of for of in scored.maps if of.kind == "unfamiliar").info.visible


def test_each_head_has_its_own_sets_and_its_own_members(he, ihc, pair_bundle):
    torch.manual_seed(2)
    members = [WSMCL(**ARGUMENTS) for _ in range(2)]
    labels = np.repeat(np.arange(4), 20)
    wide, narrow = (CalibrationCases(np.full(80, value, np.float32), labels) for value in (1.0, 0.0))
    bundle = replace(
        pair_bundle,
        head=WSMCLEnsemble(members).eval(),
        answer_sets=AnswerSets({"fusion": wide, "IHC": narrow}),
    )
    together, alone, other = run(bundle, he, ihc), run(bundle, ihc), run(bundle, he)
    assert together.doubt.answer.classes == together.classes
    assert together.label.startswith("indeterminate: none of the scores can be left out")
    assert alone.doubt.answer.classes == (alone.score,)
    assert other.doubt.answer is None
    for result in (together, alone, other):
        assert result.doubt.spread.models == 2
    with torch.inference_mode():
        embedded = []
        run(pair_bundle, ihc, signatures=embedded)
        bag = torch.from_numpy(embedded[0].features)
        each = torch.stack(
            [torch.softmax(member.eval()(None, bag).logits.double(), -1) for member in members]
        )
    spread = [alone.doubt.spread.sd[name] for name in alone.classes]
    np.testing.assert_allclose(spread, each.numpy().std(axis=0, ddof=1), atol=1e-5)
