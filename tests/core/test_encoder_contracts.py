"""Encoders by name: their contracts, and that the installed libraries build them as they are published."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from napari_her2.errors import ModelError
from napari_her2.models.backbones import build_backbone, measured
from napari_her2.models.card import POOLINGS
from napari_her2.models.encoder_contracts import ENCODERS, alias_of, contract_of, with_pooling
from napari_her2.models.encoders import build_encoder, encoder_from_spec
from napari_her2.models.known_encoders import spec_of
from napari_her2.models.token_pooling import prefix_tokens

OF_TIMM = [name for name, contract in ENCODERS.items() if contract.built_by == "timm"]
OF_TRANSFORMERS = [
    name
    for name, contract in ENCODERS.items()
    if contract.built_by == "transformers" and not contract.remote_code
]
needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="the extra transformers is not installed"
)
# Widths and counts of parameters as their publishers and other toolkits have them, not as we do.
WIDTHS = {
    "uni": 1024, "uni2-h": 1536, "virchow": 2560, "virchow2": 2560, "gigapath": 1536, "h-optimus-0": 1536,
    "h-optimus-1": 1536, "h0-mini": 768, "kaiko-vits8": 384, "kaiko-vits16": 384, "kaiko-vitb8": 768,
    "kaiko-vitb16": 768, "kaiko-vitl14": 1024, "lunit-dino-s8": 384, "lunit-dino-s16": 384, "gpfm": 1024,
    "resnet50": 2048, "phikon": 768, "phikon-v2": 1024, "midnight-12k": 3072, "isight": 1024,
}  # fmt: skip
MILLIONS = {
    "uni": 303.4,
    "uni2-h": 681,
    "virchow2": 631,
    "gigapath": 1135,
    "h-optimus-0": 1135,
    "h0-mini": 86,
}
TENSORS = {"uni2-h": 343, "virchow2": 455, "h-optimus-0": 567, "phikon-v2": 439, "midnight-12k": 727}


def built_on_meta(name):
    contract = contract_of(name)
    spec = spec_of(contract)
    with torch.device("meta"):
        backbone, _ = build_backbone(spec.name, spec.tile_px, arguments=spec.arguments)
        return contract, backbone, measured(backbone, spec)


def check_as_published(name):
    contract, backbone, spec = built_on_meta(name)
    assert spec.dim == contract.dim == WIDTHS[name]
    assert prefix_tokens(backbone) == contract.prefix_tokens
    count = sum(parameter.numel() for parameter in backbone.parameters())
    assert count / 1e6 == pytest.approx(MILLIONS.get(name, count / 1e6), rel=0.005)
    assert len(backbone.state_dict()) == TENSORS.get(name, len(backbone.state_dict()))


@pytest.mark.parametrize("name", OF_TIMM)
def test_timm_builds_every_known_encoder_at_its_width(name):
    check_as_published(name)


@needs_transformers
@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_transformers_builds_every_known_encoder_at_its_width(name):
    check_as_published(name)


def test_every_contract_can_be_a_card_or_says_why_not():
    for contract in ENCODERS.values():
        if contract.built_by == "elsewhere" or contract.remote_code:
            with pytest.raises(ModelError, match=re.escape(contract.title)):
                spec_of(contract)
            continue
        spec = spec_of(contract, "a" * 64, hub="somebody/something@main")
        assert (spec.dim, spec.tile_px, spec.pooling) == (contract.dim, contract.tile_px, contract.pooling)
        assert contract.mpp_range[0] <= contract.mpp <= contract.mpp_range[1]
        assert contract.pooling in POOLINGS
        assert re.fullmatch(r"|[0-9a-f]{40}", contract.revision)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("UNI", "uni"), ("uni_v1", "uni"), ("MahmoodLab/UNI", "uni"), ("hf-hub:MahmoodLab/uni", "uni"),
        ("uni_v2", "uni2-h"), ("hoptimus0", "h-optimus-0"), ("H-optimus-1", "h-optimus-1"),
        ("conch_v1", "conch"), ("conch_v15", "conchv1.5"), ("conch1_5", "conchv1.5"),
        ("midnight12k", "midnight-12k"),
        ("phikonv2", "phikon-v2"), ("phikon_v2", "phikon-v2"), ("prov-gigapath", "gigapath"),
        ("lunit-vits8", "lunit-dino-s8"), ("kaiko-vitl14", "kaiko-vitl14"), ("Virchow2", "virchow2"),
        ("hibou_l", "hibou-l"), ("resnet50_trunc", "resnet50-trunc"), ("h0mini", "h0-mini"), ("musk", ""),
    ],
)  # fmt: skip
def test_names_of_other_programs_are_known(written, name):
    assert alias_of(written) == name


def test_a_network_of_timm_is_told_where_its_weights_are_named():
    with pytest.raises(ModelError, match="no weights are kept by name: give their file where it is used"):
        contract_of("timm:vit_tiny_patch16_224")


def test_what_has_no_page_is_not_promised_a_fetch():
    from napari_her2.commands.encoders import contract_rows

    assert dict(contract_rows(contract_of("resnet50-trunc"), None))["revision"] == "none"
    assert "fetched first" in dict(contract_rows(contract_of("gpfm"), None))["revision"]


def test_a_name_that_is_nearly_one_is_answered_with_those_that_are_near():
    with pytest.raises(ModelError, match="virchow2"):
        contract_of("vircow2")


def test_pooling_can_be_another_one_of_the_same_tokens():
    assert with_pooling(contract_of("h0-mini"), "class+mean").dim == 1536
    assert with_pooling(contract_of("virchow2"), "class").dim == 1280
    assert spec_of(with_pooling(contract_of("virchow2"), "class")).pooling == "class"
    with pytest.raises(ModelError, match="pooled"):
        with_pooling(contract_of("resnet50"), "class+mean")


@pytest.mark.parametrize(
    ("name", "words"),
    [("conch", "features there"), ("hibou-b", "code"), ("resnet50-trunc", "features there")],
)
def test_what_is_not_built_here_says_what_can_be_done(name, words):
    with pytest.raises(ModelError, match=words):
        build_encoder(name)


@needs_transformers
def test_remote_code_is_run_only_where_a_person_insists_and_never_from_a_card(monkeypatch):
    import transformers

    asked = []

    def from_pretrained(hub, **options):
        asked.append((hub, options))
        sizes = {"hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 224}
        return transformers.Dinov2Model(transformers.Dinov2Config(**sizes))

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", from_pretrained)
    monkeypatch.setattr("napari_her2.models.encoder_fetch.latest_commit", lambda contract: "c" * 40)
    with pytest.raises(ModelError, match="--trust-remote-code"):
        build_encoder("hibou-b", weights="pretrained")
    assert asked == []
    encoder = build_encoder("hibou-b", weights="pretrained", trust_remote_code=True)
    ((hub, options),) = asked
    assert hub == "histai/hibou-b"
    assert (options["trust_remote_code"], options["revision"], options["code_revision"]) == (
        True,
        "c" * 40,
        "c" * 40,
    )
    assert (encoder.spec.dim, encoder.spec.hub) == (768, f"histai/hibou-b@{'c' * 40}")
    with pytest.raises(ModelError, match="not built here"):
        encoder_from_spec(encoder.spec, {}, "a card")


def test_a_network_that_a_library_builds_otherwise_is_refused(monkeypatch):
    wrong = dataclasses.replace(contract_of("kaiko-vits16"), dim=385)
    monkeypatch.setattr("napari_her2.models.encoders.contract_of", lambda name: wrong)
    with pytest.raises(ModelError, match="385 features"):
        build_encoder("kaiko-vits16")


def test_the_table_is_read_without_pytorch():
    code = "import sys, napari_her2.models.encoder_contracts, napari_her2.models.encoder_folder;"
    code += "assert not {'torch', 'timm', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
