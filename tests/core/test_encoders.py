"""Encoders against torchvision's and timm's own ways to the same features."""

from __future__ import annotations

import socket
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms import v2

from napari_her2.errors import ModelError
from napari_her2.models import backbones
from napari_her2.models.encoders import build_encoder, save_encoder
from napari_her2.models.normalisations import NORMALISATIONS


@pytest.fixture
def tiles():
    return np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def alexnet():
    torch.manual_seed(11)
    return torchvision.models.alexnet(weights=None).eval()


@pytest.fixture
def alexnet_state(alexnet):
    """As torchvision saves it, with the classifier; only its large layers are left out, for speed."""
    return {key: value for key, value in alexnet.state_dict().items() if value.numel() < 5_000_000}


def transformed(tiles, mean, std):
    """Tiles as torchvision prepares them."""
    steps = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    return torch.stack([steps(tile) for tile in tiles])


def test_alexnet_has_the_size_of_the_paper():
    encoder = build_encoder("alexnet")
    assert sum(p.numel() for p in encoder.parameters()) == 2_469_696
    assert (encoder.spec.dim, encoder.spec.tile_px, encoder.spec.weights) == (1024, 96, "random")


@pytest.mark.parametrize("normalisation", ["none", "imagenet", "pcam", "ihc"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_alexnet_gives_what_torchvision_gives(tiles, alexnet, alexnet_state, tmp_path, normalisation, prefix):
    path = tmp_path / "alexnet.safetensors"
    save_file({prefix + key: value for key, value in alexnet_state.items()}, path)
    encoder = build_encoder("alexnet", weights=path, normalisation=normalisation)
    chosen = NORMALISATIONS[normalisation]
    with torch.inference_mode():
        expected = alexnet.features(transformed(tiles, chosen.mean, chosen.std)).flatten(1)
        found = encoder(torch.from_numpy(tiles))
    assert found.shape == (3, 1024)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_both_axis_orders_and_layouts_give_the_same(tiles):
    encoder = build_encoder("alexnet")
    rows_last = torch.from_numpy(tiles)
    planes = rows_last.permute(0, 3, 1, 2).contiguous()
    expected = encoder(rows_last)
    torch.testing.assert_close(encoder(planes), expected)
    encoder.to(memory_format=torch.channels_last)
    torch.testing.assert_close(encoder(rows_last), expected, atol=1e-5, rtol=1e-5)
    assert encoder.normalise(rows_last.permute(0, 3, 1, 2)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("name", "arguments"), [("test_resnet", {}), ("test_vit", {"img_size": 96})])
def test_timm_gives_what_timm_gives(tmp_path, name, arguments):
    torch.manual_seed(5)
    # With its classifier, as it is published: the encoder has to leave that out.
    original = timm.create_model(name, pretrained=False, **arguments).eval()
    path = tmp_path / "weights.safetensors"
    save_file(original.state_dict(), path)
    encoder = build_encoder(f"timm:{name}", weights=path, arguments=arguments, tile_px=96)
    data = timm.data.resolve_model_data_config(original)
    assert (encoder.spec.mean, encoder.spec.std) == (tuple(data["mean"]), tuple(data["std"]))
    tiles = np.random.default_rng(1).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    with torch.inference_mode():
        images = transformed(tiles, data["mean"], data["std"])
        expected = original.forward_head(original.forward_features(images), pre_logits=True)
        found = encoder(torch.from_numpy(tiles))
    assert encoder.spec.dim == original.num_features == found.shape[1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_timm_tells_the_size_of_its_tiles():
    assert (
        build_encoder("timm:test_resnet").spec.tile_px
        == timm.create_model("test_resnet").default_cfg["input_size"][1]
    )


def test_random_weights_follow_the_seed_and_leave_the_global_one_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    one, same, other = (build_encoder("alexnet", seed=seed).fingerprint() for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert torch.rand(1) == expected


def test_fingerprint_tells_normalisations_apart_and_ignores_the_layout():
    plain, imagenet = build_encoder("alexnet"), build_encoder("alexnet", normalisation="imagenet")
    before = plain.fingerprint()
    assert before != imagenet.fingerprint()
    assert plain.to(memory_format=torch.channels_last).fingerprint() == before


def test_encoder_is_frozen_until_told_otherwise(tiles):
    encoder = build_encoder("timm:test_resnet", tile_px=96)
    encoder.train()
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(module.training for module in encoder.modules())
    encoder.unfreeze()
    assert all(p.requires_grad for p in encoder.parameters())
    encoder(torch.from_numpy(tiles)).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    encoder.freeze()
    assert not encoder.train().training


@pytest.mark.parametrize("tile_px", [94, 113, 224])
def test_alexnet_refuses_tiles_that_do_not_give_1024_features(tile_px):
    with pytest.raises(ModelError, match="95 to 112"):
        build_encoder("alexnet", tile_px=tile_px)


@pytest.mark.parametrize("tile_px", [95, 112])
def test_alexnet_gives_1024_features_at_the_ends_of_its_range(tile_px):
    encoder = build_encoder("alexnet", tile_px=tile_px)
    assert encoder(torch.zeros(1, tile_px, tile_px, 3, dtype=torch.uint8)).shape == (1, 1024)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 97, 97, 3, dtype=torch.uint8),
        torch.zeros(1, 96, 96, 4, dtype=torch.uint8),
        torch.zeros(1, 96, 96, 3),
        torch.zeros(96, 96, 3, dtype=torch.uint8),
    ],
)
def test_tiles_that_do_not_fit_are_refused(images):
    with pytest.raises(ModelError, match="encoder"):
        build_encoder("alexnet")(images)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("alexnett", {}, "no encoder called"),
        ("timm:", {}, "no encoder called"),
        ("timm:resnet_18", {}, "resnet18"),
        ("timm:hf-hub:someone/model", {}, "network"),
        ("timm:local-dir:/tmp/model", {}, "network"),
        ("timm:resnet10t", {"arguments": {"checkpoint_path": "model.pth"}}, "not allowed"),
        ("timm:resnet10t", {"arguments": {"pretrained_cfg": "x"}}, "not allowed"),
        ("timm:vit_tiny_patch16_224", {"arguments": {"embed_dim": 10**9}}, "not allowed"),
        ("timm:vit_tiny_patch16_224", {"tile_px": 96}, "96 px"),
        ("alexnet", {"arguments": {"depth": 2}}, "no arguments"),
        ("alexnet", {"normalisation": "cifar"}, "imagenet"),
        ("alexnet", {"weights": "imagenet"}, "pretrained"),
    ],
)
def test_what_cannot_be_built_is_refused(name, options, message):
    with pytest.raises(ModelError, match=message):
        build_encoder(name, **options)


def test_nothing_touches_the_network_unless_pretrained_weights_are_asked_for(monkeypatch, tmp_path):
    calls = []

    def refuse(*args, **_):
        calls.append(args)
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    build_encoder("alexnet")
    build_encoder("timm:test_resnet")
    assert calls == []
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"alexnet could not be downloaded.*\.safetensors"):
        build_encoder("alexnet", weights="pretrained")
    assert calls


def test_pretrained_timm_that_cannot_be_had_says_what_to_do(monkeypatch):
    def offline(*_, **options):
        assert options["pretrained"]
        raise OSError("offline")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ModelError, match=r"resnet10t could not be downloaded \(offline\).*\.safetensors"):
        build_encoder("timm:resnet10t", weights="pretrained")


def test_pretrained_alexnet_takes_the_normalisation_of_imagenet(monkeypatch, alexnet_state):
    monkeypatch.setattr(backbones, "fetch", lambda download, name: alexnet_state)
    spec = build_encoder("alexnet", weights="pretrained").spec
    assert spec.mean == (0.485, 0.456, 0.406)
    assert spec.std == (0.229, 0.224, 0.225)
    assert spec.weights.startswith("sha256:")


def spoiled(state, how):
    state = {key: value.clone() for key, value in state.items()}
    if how == "missing":
        del state["features.0.bias"]
    elif how == "unexpected":
        state["features.99.bias"] = torch.zeros(1)
    elif how == "shape":
        state["features.0.bias"] = torch.zeros(3)
    else:
        state["features.0.bias"][0] = torch.nan
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [("missing", "is missing"), ("unexpected", "no place"), ("shape", "shape"), ("nan", "not numbers")],
)
def test_foreign_weights_are_refused(alexnet_state, tmp_path, how, message):
    path = tmp_path / "weights.safetensors"
    save_file(spoiled(alexnet_state, how), path)
    with pytest.raises(ModelError, match=message):
        build_encoder("alexnet", weights=path)


def test_a_checkpoint_with_tensors_alone_is_taken_and_one_with_code_refused(alexnet_state, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": alexnet_state}, path)
    encoder = build_encoder("alexnet", weights=path)
    assert torch.equal(encoder.backbone.features[0].weight, alexnet_state["features.0.weight"])
    torch.save({"state_dict": alexnet_state, "loss": nn.MSELoss()}, path)
    with pytest.raises(ModelError, match=r"more than tensors \(torch\.nn\..*MSELoss"):
        build_encoder("alexnet", weights=path)


def test_normalisation_travels_with_the_weights(tmp_path):
    path = tmp_path / "encoder.safetensors"
    encoder = build_encoder("alexnet", normalisation="pcam", seed=3)
    save_encoder(path, encoder)
    again = build_encoder("alexnet", weights=path)
    assert again.spec.mean == (1.0294, 0.5995, 1.3757)
    assert again.fingerprint() == encoder.fingerprint()
    assert build_encoder("alexnet", weights=path, normalisation="ihc").spec.std == (0.5338, 0.6164, 0.6477)


def test_weights_that_state_nothing_are_taken_for_those_of_imagenet(alexnet_state, tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_file(alexnet_state, path)
    assert build_encoder("alexnet", weights=path).spec.mean == (0.485, 0.456, 0.406)
    assert build_encoder("alexnet").spec.mean == (0, 0, 0)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"encoder": "timm:resnet18"}, "timm:resnet18"),
        ({"mean": "[0, 0, 0]", "std": "x"}, "normalisation"),
        ({"mean": "[0, 0, 0]", "std": "[1, 1, 0]"}, "std"),
        ({"mean": "[0, 0]", "std": "[1, 1, 1]"}, "mean"),
        ({"mean": "{}", "std": "[NaN, 1, 1]"}, "mean"),
    ],
)
def test_weights_that_state_nonsense_are_refused(alexnet_state, tmp_path, stated, message):
    path = tmp_path / "encoder.safetensors"
    save_file(alexnet_state, path, stated)
    with pytest.raises(ModelError, match=message):
        build_encoder("alexnet", weights=path)


def test_a_model_of_the_hub_is_known_by_its_network_afterwards(monkeypatch, tmp_path):
    real, stated = timm.create_model, {"img_size": 96, "embed_dim": 32, "depth": 1, "num_heads": 2}

    def create(name, pretrained=False, **options):
        hub = name.startswith("hf-hub:")
        return real("vit_tiny_patch16_224" if hub else name, **(stated if hub else {}), **options)

    monkeypatch.setattr(timm, "create_model", create)
    config = ({}, "vit_tiny_patch16_224", {**stated, "in_chans": 3})
    monkeypatch.setattr(timm.models, "load_model_config_from_hf", lambda hub: config)
    encoder = build_encoder("timm:hf-hub:someone/model", weights="pretrained", tile_px=96)
    spec = encoder.spec
    assert (spec.name, spec.arguments, spec.hub) == ("timm:vit_tiny_patch16_224", stated, "someone/model")
    path = tmp_path / "weights.safetensors"
    save_encoder(path, encoder)
    again = build_encoder(spec.name, weights=path, arguments=spec.arguments, tile_px=96)
    assert again.spec.weights == spec.weights
    monkeypatch.setattr(timm.models, "load_model_config_from_hf", lambda hub: (*config[:2], {"depth": 2}))
    with pytest.raises(ModelError, match="could not be opened again"):
        build_encoder("timm:hf-hub:someone/model", weights="pretrained", tile_px=96)


@pytest.mark.parametrize("tile_px", [95, 96, 112])
def test_what_is_known_of_alexnet_without_a_tile_is_what_a_tile_gives(tile_px: int) -> None:
    backbone, spec = backbones.build_backbone("alexnet", tile_px, arguments={})
    with torch.inference_mode():
        (features,) = backbone(torch.zeros(1, 3, tile_px, tile_px))
    assert backbones.measured(backbone, replace(spec, dim=1)).dim == len(features)
    # Where tiles are brought to another size, nothing is known beforehand.
    with torch.inference_mode():
        (wider,) = backbone(torch.zeros(1, 3, 224, 224))
    assert backbones.measured(backbone, replace(spec, input_px=224)).dim == len(wider) > len(features)
