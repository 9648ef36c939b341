"""Networks with fused layers: the same features, whatever a batch holds, and the network left as it was."""

from __future__ import annotations

import platform
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from napari_her2.inference import encoder_way
from napari_her2.inference.device import Device
from napari_her2.inference.encode import EncoderRunner
from napari_her2.inference.encoder_way import Way, agreement
from napari_her2.models.encoders import build_encoder
from napari_her2.models.inference_graph import FUSED, for_inference, has_graph

CPU = Device(torch.device("cpu"), "cpu (test)", "test")
SMALL_VIT = {"depth": 2, "embed_dim": 64, "num_heads": 2}

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available(),
    reason="layers are fused by oneDNN on x86 alone",
)


def tiles(count: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, side, side, 3), np.uint8)


def with_statistics(network: nn.Module) -> None:
    """Give batch norms something to fold: fresh ones do nothing."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.running_mean, -0.2), (module.bias, -0.2), (module.running_var, 0.7)):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * 0.4 + low)
            module.weight.data.copy_(torch.rand(module.weight.shape, generator=generator) * 0.4 + 0.7)


@pytest.fixture(scope="module", params=["timm:resnet18", "timm:resnet50d"])
def residual(request):
    encoder = build_encoder(request.param, tile_px=64)
    with_statistics(encoder.backbone)
    return encoder


@pytest.fixture(scope="module")
def transformer():
    return build_encoder("timm:vit_tiny_patch16_224", tile_px=64, arguments={"img_size": 64, **SMALL_VIT})


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_residual_network_gives_the_same_features(residual, dtype):
    graph = for_inference(residual, torch.device("cpu"), dtype)
    images = torch.from_numpy(tiles(3))
    before = {name: tensor.clone() for name, tensor in residual.backbone.state_dict().items()}
    with torch.inference_mode():
        exact = residual(images)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
            found = graph(images).float()
    assert found.shape == exact.shape
    cosine, relative = agreement(exact, found)
    assert cosine > 0.9999
    assert relative < (1e-4 if dtype is None else 0.03)
    after = residual.backbone.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_transformer_gains_in_bfloat16_alone(transformer):
    cpu = torch.device("cpu")
    assert not has_graph(transformer, cpu, None)
    graph = for_inference(transformer, cpu, torch.bfloat16)
    images = torch.from_numpy(tiles(5))
    with torch.inference_mode():
        exact = transformer(images)
        with torch.autocast("cpu", torch.bfloat16):
            found, plain = graph(images).float(), transformer(images).float()
    assert agreement(exact, found)[0] > 0.9999
    # The GELU is in float32 inside the layer: no worse than layer by layer.
    assert agreement(exact, found)[1] <= 1.2 * agreement(exact, plain)[1]
    with torch.no_grad():
        assert isinstance(transformer.backbone.blocks[0].mlp.fc1, nn.Linear)


def test_networks_that_gain_nothing_and_other_devices_have_none(residual):
    assert not has_graph(build_encoder("alexnet"), torch.device("cpu"), None)
    assert not has_graph(build_encoder("alexnet"), torch.device("cpu"), torch.bfloat16)
    assert not has_graph(residual, torch.device("cuda"), torch.bfloat16)
    assert not has_graph(residual, torch.device("cpu"), torch.float16)
    assert not has_graph(nn.Identity(), torch.device("cpu"), None)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_features_do_not_depend_on_where_a_batch_ends(residual, dtype):
    runner = EncoderRunner(residual, replace(CPU, autocast_dtype=dtype))
    assert runner.graph == FUSED
    assert FUSED in runner.note
    assert runner.precision in runner.note
    images = tiles(11)
    whole = runner.run(images)
    parts = [runner.run(images[start:stop]) for start, stop in ((0, 1), (1, 8), (8, 11))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(runner.run(images[::-1].copy())[::-1], whole)


def test_a_graph_that_does_not_agree_is_not_used(residual, monkeypatch):
    def another(encoder, device, dtype):
        graph = for_inference(encoder, device, dtype)
        return replace(graph, backbone=nn.Sequential(graph.backbone, nn.Hardtanh(0, 0.01)))

    monkeypatch.setattr(encoder_way, "_compared", {})
    monkeypatch.setattr(encoder_way, "for_inference", another)
    runner = EncoderRunner(residual, CPU)
    assert runner.graph == ""
    assert runner.note == ""


def test_a_network_that_cannot_be_rewritten_is_computed_as_it_is(residual, monkeypatch):
    def broken(*_):
        raise AttributeError("no such function")

    monkeypatch.setattr(encoder_way, "_compared", {})
    monkeypatch.setattr(encoder_way, "for_inference", broken)
    runner = EncoderRunner(residual, CPU)
    assert (runner.graph, runner.precision) == ("", "float32")
    with torch.inference_mode():
        expected = residual(torch.from_numpy(tiles(2))).half().numpy()
    np.testing.assert_array_equal(runner.run(tiles(2)), expected)


def test_the_way_of_computing_is_part_of_the_cache_key_and_of_the_device_line(residual):
    from types import SimpleNamespace

    from napari_her2.inference.embed import _cache_key
    from napari_her2.slide.grid import TileGrid

    slide = SimpleNamespace(fingerprint="slide", backend="reader")
    grid = TileGrid((640, 640), (0.5, 0.5), tile_px=64, mpp=0.5)
    fused, plain = EncoderRunner(residual, CPU), EncoderRunner(residual, CPU)
    plain._way = Way()
    keys = [_cache_key(slide, grid, "encoder", runner) for runner in (fused, plain)]
    assert [key.precision for key in keys] == [f"cpu float32 {FUSED}", "cpu float32"]
    assert keys[0].digest != keys[1].digest
    assert CPU.line("float32", FUSED) == f"cpu (test); features in float32, {FUSED}"
