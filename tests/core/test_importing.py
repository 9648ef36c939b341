"""Checkpoints in the layouts of published code: imported, they answer as the originals do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import published_heads as published
from importing_checkpoints import imported, saved, seeded, spec, terms
from napari_her2.errors import ModelError
from napari_her2.models.architectures import ARCHITECTURES
from napari_her2.models.bundle import HEAD_PREFIX, load_bundle
from napari_her2.models.bundle_card import read_card
from napari_her2.models.card import PAIR
from napari_her2.models.encoders import build_encoder, save_encoder
from napari_her2.models.importing.importer import import_checkpoint, inspect_checkpoint
from napari_her2.models.weights_file import read_weights, weights_digest

BAGS = (1, 7, 300)


def head_of(path, dtype: torch.dtype) -> nn.Module:
    """The head of a bundle, whether or not its encoder is at hand."""
    card = read_card(path)
    head = ARCHITECTURES[card.architecture].build(card)
    tensors = read_weights(path).tensors
    head.load_state_dict(
        {
            key.removeprefix(HEAD_PREFIX): value
            for key, value in tensors.items()
            if key.startswith(HEAD_PREFIX)
        }
    )
    return head.to(dtype).eval()


def bag(tiles: int, features: int, dtype: torch.dtype, seed=0) -> torch.Tensor:
    return torch.randn(tiles, features, generator=torch.Generator().manual_seed(seed)).to(dtype)


BAG_KINDS = {
    "abmil-plain-sigmoid": ("abmil", 800, 2, lambda: published.AttentionDeepMIL()),
    "abmil-gated-sigmoid": ("abmil", 800, 2, lambda: published.AttentionDeepMIL(gated=True)),
    "abmil-gated-four": (
        "abmil", 1024, 4, lambda: published.AttentionDeepMIL(features=1024, gated=True, outputs=4)
    ),
    "attention-mil": ("attention-mil", 1024, 4, lambda: published.PlainAttentionMIL()),
    "clam-sb": ("clam", 1024, 4, lambda: published.PublishedCLAM()),
    "clam-sb-no-dropout": ("clam", 1024, 4, lambda: published.PublishedCLAM(dropout=False)),
    "clam-sb-big": ("clam", 1024, 3, lambda: published.PublishedCLAM(hidden=384, outputs=3)),
    "clam-sb-plain": ("clam", 384, 4, lambda: published.PublishedCLAM(features=384, gated=False)),
    "clam-sb-plain-no-dropout": (
        "clam", 384, 4, lambda: published.PublishedCLAM(features=384, gated=False, dropout=False)
    ),
    "clam-mb": ("clam", 1536, 4, lambda: published.PublishedCLAM(features=1536, multi=True)),
    "clam-mb-two": ("clam", 1024, 2, lambda: published.PublishedCLAM(multi=True, outputs=2, dropout=False)),
    "transmil": ("transmil", 1024, 4, lambda: published.PublishedTransMIL()),
    "transmil-narrow": ("transmil", 96, 4, lambda: published.PublishedTransMIL(features=96, width=64)),
    "dsmil": ("dsmil", 512, 4, lambda: published.PublishedDSMIL()),
    "dsmil-flat": ("dsmil", 512, 3, lambda: published.PublishedDSMIL(flat=True, outputs=3)),
    "dsmil-values": ("dsmil", 256, 4, lambda: published.PublishedDSMIL(features=256, passing=True)),
    "dsmil-sigmoid": ("dsmil", 512, 2, lambda: published.PublishedDSMIL(outputs=1)),
}  # fmt: skip


def logits_of(model: nn.Module, given: torch.Tensor) -> torch.Tensor:
    found = model(given)
    found = found[0] if isinstance(found, tuple) else found
    return torch.cat([torch.zeros_like(found), found]) if len(found) == 1 else found


@pytest.mark.parametrize("layout", BAG_KINDS)
def test_logits_are_those_of_the_original(layout, tmp_path):
    kind, features, classes, make = BAG_KINDS[layout]
    original = seeded(make)
    path = saved(tmp_path, original)
    out = imported(tmp_path, path, kind, terms(kind, features, classes))
    for dtype, apart in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        ours, theirs = head_of(out, dtype), original.to(dtype)
        with torch.inference_mode():
            for tiles in BAGS[-1:] if layout == "transmil" else BAGS:
                given = bag(tiles, features, dtype)
                expected = logits_of(theirs, given)
                assert float((ours(given).logits - expected).abs().max()) < apart
    assert expected.std() > 1e-3  # else any logits would do


def test_instance_classifiers_of_clam_are_those_of_the_original(tmp_path):
    original = seeded(lambda: published.PublishedCLAM(multi=True))
    out = imported(tmp_path, saved(tmp_path, original), "clam", terms("clam", 1024))
    given = bag(20, 1024, torch.float64)
    with torch.inference_mode():
        found = head_of(out, torch.float64)(given).instances
        assert torch.allclose(found, original.double().instances(given), atol=1e-12)


@pytest.mark.parametrize(
    ("width", "bags"),
    [(64, ((9, 4), (33, 31), (100, 128))), (512, ((300, 256),))],
    ids=["narrow", "published"],
)
def test_all_heads_of_wsmcl_are_those_of_the_original(width, bags, tmp_path):
    original = seeded(lambda: published.PublishedWSMCL(width=width))
    out = imported(tmp_path, saved(tmp_path, original), "wsmcl", terms("wsmcl", width))
    assert read_card(out).arguments["faithful"] is True
    assert read_card(out).stain == PAIR
    for dtype, apart in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        ours, theirs = head_of(out, dtype), original.to(dtype)
        for sizes in bags:
            he, ihc = (bag(tiles, width, dtype, seed) for seed, tiles in enumerate(sizes))
            with torch.inference_mode():
                both, of_he, of_ihc, received = theirs(he, ihc)
                found = ours(he, ihc)
            for one, expected in ((found.fused, both), (found.he.logits, of_he), (found.ihc.logits, of_ihc)):
                assert float((one - expected).abs().max()) < apart
            assert float((found.he.attention - received).abs().max()) < apart
    with torch.inference_mode():  # alone, either slide answers by its own head
        assert torch.equal(ours(he).logits, found.he.logits)


def test_wsmcl_without_faithful_is_another_model(tmp_path):
    """As cards had it before: what the published padding does is then left out."""
    original = seeded(lambda: published.PublishedWSMCL(width=64))
    out = imported(tmp_path, saved(tmp_path, original), "wsmcl", terms("wsmcl", 64))
    card = read_card(out)
    plain = {name: value for name, value in card.arguments.items() if name != "faithful"}
    head = ARCHITECTURES["WSMCL"].build(replace(card, arguments=plain))
    head.load_state_dict(head_of(out, torch.float32).state_dict())
    given = bag(9, 64, torch.float32)
    with torch.inference_mode():
        apart = (head.eval()(given).logits - original(given, given)[1]).abs().max()
    assert float(apart) > 1e-4


@pytest.mark.parametrize(
    ("architecture", "beside", "arguments"),
    [
        ("resnext50_32x4d", False, {}),
        ("tinynet_e", False, {}),
        ("tinynet_e", True, {}),
        ("vit_tiny_patch16_224", False, {"img_size": 64}),
    ],
)
def test_predictors_answer_as_the_original(architecture, beside, arguments, tmp_path):
    original = seeded(lambda: published.LightningPredictor(architecture, beside=beside, **arguments))
    fields = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():  # untrained, they give logits that hardly differ
        last = original.classifier if beside else original.model.get_classifier()
        last.weight /= (original(fields) - last.bias).std()
    path = saved(tmp_path, original, wrap=lambda state: {"state_dict": state, "epoch": 3})
    found = inspect_checkpoint(path, "corr-a-net-predictor")
    fixed = "vit" in architecture
    assert found.asked == {"bgr": False} | ({} if fixed else {"field_px": 256})
    given = terms("corr-a-net-predictor", None, tile_px=256, arguments={} if fixed else {"field_px": 64})
    out = tmp_path / "m.safetensors"
    card = import_checkpoint(found, given, out)
    assert (card.arguments["field_px"], card.arguments["confidence"]) == (64, False)
    bundle = load_bundle(out)
    with torch.inference_mode():
        output = bundle.head(fields)
        expected = original(fields)
        assert float((output.logits - expected).abs().max()) < 1e-4
        in_double = bundle.head.double()(fields.double()).logits
        assert float((in_double - original.double()(fields.double())).abs().max()) < 1e-6
    assert output.confidence is None
    assert expected.std() > 0.1


def test_a_predictor_of_blue_green_red_is_turned_round(tmp_path):
    original = seeded(lambda: published.LightningPredictor("tinynet_e"))
    found = inspect_checkpoint(saved(tmp_path, original), "corr-a-net-predictor")
    given = terms("corr-a-net-predictor", None, tile_px=64, arguments={"field_px": 64, "bgr": True})
    import_checkpoint(found, given, tmp_path / "m.safetensors")
    fields = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    bundle = load_bundle(tmp_path / "m.safetensors")
    assert "bgr" not in bundle.card.arguments
    with torch.inference_mode():
        assert torch.allclose(bundle.head(fields).logits, original(fields.flip(1)), atol=1e-6)


@pytest.mark.parametrize("variant", ["atto", "tiny"])
def test_a_convnext_of_timm_answers_as_the_original(variant, tmp_path):
    import timm

    original = seeded(lambda: timm.create_model(f"convnext_{variant}", pretrained=False, num_classes=3))
    path = saved(tmp_path, original, wrap=lambda state: {"model": state})
    given = terms(
        "low-resolution", None, classes=("0", "Low", "High"), stain="IHC", tile_px=64,
        arguments={"mode": "fixed", "whiten": True},
    )  # fmt: skip
    out = imported(tmp_path, path, "low-resolution", given)
    bundle = load_bundle(out)
    assert bundle.card.arguments == {
        "classes": 3, "variant": variant, "size_px": 64, "mode": "fixed", "whiten": True
    }  # fmt: skip
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        expected = original((images - mean) / std)
        assert float((bundle.head(images) - expected).abs().max()) < 1e-5


WRAPPERS = {
    "parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "lightning": lambda state: {"state_dict": {f"model.{name}": v for name, v in state.items()}, "epoch": 7},
    "both": lambda state: {"state_dict": {f"module.model.{name}": v for name, v in state.items()}},
    "trunk": lambda state: {
        name.replace("attention_net.", "attention_net.module."): value for name, value in state.items()
    },
    "loss": lambda state: state | {"instance_loss_fn.labels": torch.tensor([0, 1])},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_are_taken_off(wrapper, tmp_path):
    original = seeded(published.PublishedCLAM)
    path = saved(tmp_path, original, wrap=WRAPPERS[wrapper])
    out = imported(tmp_path, path, "clam", terms("clam", 1024))
    given = bag(30, 1024, torch.float32)
    with torch.inference_mode():
        assert torch.allclose(head_of(out, torch.float32)(given).logits, original(given), atol=1e-6)


def test_the_card_says_what_is_not_known(tmp_path):
    path = saved(tmp_path, seeded(published.PublishedCLAM))
    found = inspect_checkpoint(path, "clam")
    card = import_checkpoint(found, terms("clam", 1024), tmp_path / "m.safetensors")
    assert card == read_card(tmp_path / "m.safetensors")
    assert card.training_data == f"unknown: imported from theirs.pt (CLAM, SHA-256 {found.sha256})"
    assert len(found.sha256) == 64
    assert card.metrics == {}
    assert (card.familiarity, card.answer_sets, card.precision) == (None, None, None)
    assert "Research use only" in card.notice
    assert card.encoder == spec(1024)
    facts = dict(found.facts)
    assert facts["kind of CLAM"] == "one branch (SB)"
    assert facts["attention"] == "gated, 256 units"


def test_a_bundle_with_its_encoder_beside_it_opens(tmp_path):
    encoder = build_encoder("alexnet", normalisation="imagenet", seed=3)
    digest = f"sha256:{weights_digest(encoder.backbone.state_dict())}"
    save_encoder(tmp_path / "my-attention-mil.encoder.safetensors", encoder)
    path = saved(tmp_path, seeded(published.PlainAttentionMIL))
    given = terms("attention-mil", 1024, encoder=replace(encoder.spec, weights=digest))
    out = imported(tmp_path, path, "attention-mil", given)
    bundle = load_bundle(out)
    assert bundle.encoder is not None
    assert bundle.familiarity is None


def test_without_its_encoder_a_bundle_asks_for_it_by_name(tmp_path):
    path = saved(tmp_path, seeded(published.PublishedCLAM))
    out = imported(tmp_path, path, "clam", terms("clam", 1024))
    with pytest.raises(ModelError, match="needs the weights of timm:resnet18"):
        load_bundle(out)
