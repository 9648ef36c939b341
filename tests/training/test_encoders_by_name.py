"""From weights of an encoder that is known by name to a model, reopened elsewhere and without any network."""

from __future__ import annotations

import csv
import shutil
import socket
from dataclasses import replace
from types import MappingProxyType

import h5py
import numpy as np
import pytest
import tifffile
import timm
import torch
from safetensors.torch import save_file
from timm.layers import SwiGLUPacked
from torch import nn
from torchvision.transforms import InterpolationMode, v2
from typer.testing import CliRunner

import napari_her2_training
from napari_her2 import load_model, open_slide, score_slide
from napari_her2.cli import app
from napari_her2.errors import JobFailed, ModelError
from napari_her2.models import encoder_contracts
from napari_her2.models.encoder_contracts import ENCODERS
from napari_her2.models.encoder_folder import add_encoder, installed
from napari_her2.models.encoders import build_encoder
from napari_her2.steps import finished
from napari_her2_training.attention_mil.config import AttentionConfig
from napari_her2_training.encoder_choice import scale_warning, with_encoder
from napari_her2_training.mil.config import MILConfig

TINY = {"img_size": 96, "embed_dim": 32, "depth": 1, "num_heads": 2, "init_values": 1e-5}
SWIGLU = {"mlp_ratio": 5.3375, "mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
# Of the known ones, as small as a test needs them; what makes each of them special stays.
SMALL = {
    "uni": {"arguments": TINY},
    "uni2-h": {"arguments": {**TINY, **SWIGLU, "reg_tokens": 8, "no_embed_class": True}},
    "virchow2": {"arguments": {**TINY, **SWIGLU, "reg_tokens": 4, "global_pool": ""}, "dim": 64},
    "gigapath": {"arguments": TINY, "tile_px": 128, "resized_px": 128},
    "h0-mini": {"arguments": {**TINY, **SWIGLU, "reg_tokens": 4, "global_pool": ""}, "tile_px": 112},
}
CONFIG = """
[model]
name = "tiny"
training_data = "synthetic tissue (phantom)"
[doubt]
familiarity = false
sets = false
[data]
validation = 0.5
[encoder]
name = "{name}"
weights = "{weights}"
[bags]
size = 4
batch_size = 4
train_batches = 2
validation_batches = 1
[head]
epochs = 1
[compute]
device = "cpu"
"""


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setenv("NAPARI_HER2_ENCODERS", str(tmp_path / "encoders"))
    facts = {"architecture": "vit_tiny_patch16_224", "dim": 32, "tile_px": 96, "input_px": 96, "revision": ""}
    made = {name: replace(ENCODERS[name], **{**facts, **own}) for name, own in SMALL.items()}
    monkeypatch.setattr(encoder_contracts, "ENCODERS", MappingProxyType({**ENCODERS, **made}))
    return made


@pytest.fixture(scope="module")
def cohort(cohort_of, tmp_path_factory):
    return cohort_of(8, tmp_path_factory.mktemp("cohort"))


def trained(config, cohort, out):
    return finished(napari_her2_training.run("attention-mil", config, cohort, out))


def original(contract, seed=7):
    """The network as its publisher would build it, without our table."""
    layers = {"SwiGLUPacked": SwiGLUPacked, "SiLU": nn.SiLU}
    arguments = {key: layers.get(value, value) for key, value in contract.arguments.items()}
    torch.manual_seed(seed)
    return timm.create_model(contract.architecture, num_classes=0, **arguments).eval()


def as_published(name, contract, tiles):
    """Features by the recipes of the publishers: pictures through torchvision, tokens by hand."""
    steps = [v2.ToPILImage()]
    if name == "gigapath":
        steps += [v2.Resize(128, interpolation=InterpolationMode.BICUBIC), v2.CenterCrop(96)]
    elif contract.tile_px != 96:
        steps += [v2.Resize(96, interpolation=InterpolationMode.BICUBIC, antialias=True)]
    steps += [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    steps += [v2.Normalize(contract.mean, contract.std)]
    with torch.inference_mode():
        output = original(contract)(torch.stack([v2.Compose(steps)(tile) for tile in tiles]))
    if name == "virchow2":
        return torch.cat([output[:, 0], output[:, 5:].mean(1)], dim=-1)
    return output[:, 0] if output.ndim == 3 else output


@pytest.mark.parametrize("name", ["virchow2", "gigapath", "h0-mini"])
def test_a_model_opens_again_elsewhere_without_network_and_scores(small, cohort, tmp_path, monkeypatch, name):
    contract = small[name]
    save_file(original(contract).state_dict(), tmp_path / "weights.safetensors")
    kept = add_encoder(tmp_path / "weights.safetensors", name)
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG.format(name=name, weights="installed"))
    path = trained(config, cohort, tmp_path / "out")
    other = tmp_path / "elsewhere"
    other.mkdir()
    moved = shutil.copy(path, other / "model.safetensors")
    assert moved.stat().st_size < 200_000  # without its encoder

    def refuse(*_, **__):
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    bundle = load_model(moved)
    spec = bundle.card.encoder
    assert (spec.contract, spec.weights) == (name, f"sha256:{kept.digest}")
    assert (bundle.card.tile_px, bundle.card.mpp) == (contract.tile_px, contract.mpp)
    side = contract.tile_px
    tiles = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    smooth = tiles.reshape(2, side // 16, 16, side // 16, 16, 3).mean((2, 4)).astype(np.uint8)
    tiles = smooth.repeat(16, 1).repeat(16, 2)
    # Pictures are rounded to whole grey levels while they are resized, tensors are not.
    torch.testing.assert_close(
        bundle.encoder(torch.from_numpy(tiles)), as_published(name, contract, tiles), atol=0.02, rtol=0.02
    )
    first = next(csv.DictReader(cohort.read_text().splitlines()))
    with open_slide(cohort.parent / first["he"]) as slide:
        result = score_slide(slide, bundle, device="cpu")
    assert sum(result.probabilities.values()) == pytest.approx(1)
    monkeypatch.setenv("NAPARI_HER2_ENCODERS", str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match=f"needs the encoder {name} .*encoders fetch {name}"):
        load_model(moved)


def test_embed_takes_an_installed_encoder_by_its_name(small, cohort, tmp_path):
    save_file(original(small["uni"]).state_dict(), tmp_path / "weights.safetensors")
    kept = add_encoder(tmp_path / "weights.safetensors", "uni")
    slide = cohort.parent / next(csv.DictReader(cohort.read_text().splitlines()))["he"]
    out = tmp_path / "features"
    arguments = ["embed", str(slide), "--encoder", "uni_v1", "--out", str(out), "--device", "cpu"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    (path,) = out.glob("*.h5")
    with h5py.File(path) as file:
        features, coords, facts = file["features"][:], file["coords"][:], dict(file["features"].attrs)
        facts |= dict(file.attrs)
    assert features.shape == (len(coords), 32)
    assert facts["encoder"] == "uni"
    assert any(kept.digest in str(value) for value in facts.values())
    y, x = coords[0][::-1]
    tile = tifffile.imread(slide)[y : y + 96, x : x + 96]
    np.testing.assert_allclose(features[0], as_published("uni", small["uni"], tile[None])[0], atol=0.02)
    shutil.rmtree(tmp_path / "encoders")
    refused = CliRunner().invoke(app, [*arguments[:-3], str(tmp_path / "none"), "--device", "cpu"])
    assert refused.exit_code != 0


def test_weights_of_a_file_are_kept_where_their_models_find_them(small, cohort, tmp_path):
    torch.save(original(small["uni"]).state_dict(), tmp_path / "mine.bin")
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG.format(name="uni_v1", weights=tmp_path / "mine.bin"))
    path = trained(config, cohort, tmp_path / "out")
    assert [found.name for found in installed()] == [f"uni-{installed()[0].digest[:8]}"]
    assert load_model(path).card.encoder.weights == f"sha256:{installed()[0].digest}"


def test_random_weights_stay_in_the_bundle(small, cohort, tmp_path):
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG.format(name="virchow2", weights="random"))
    path = trained(config, cohort, tmp_path / "out")
    assert load_model(path).card.encoder.weights == "bundled"
    assert installed() == []


def test_other_weights_under_the_name_are_told_apart(small, cohort, tmp_path):
    for seed in (7, 8):
        save_file(original(small["uni"], seed).state_dict(), tmp_path / f"{seed}.safetensors")
    add_encoder(tmp_path / "7.safetensors", "uni")
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG.format(name="uni", weights="installed"))
    path = trained(config, cohort, tmp_path / "out")
    add_encoder(tmp_path / "8.safetensors", "uni", force=True)
    with pytest.raises(ModelError, match="learnt with other weights of uni"):
        load_model(path)


def test_resizing_is_that_of_pictures_and_differentiable(small):
    tiles = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    encoder = build_encoder("uni", tile_px=224)
    bicubic = v2.Resize(96, interpolation=InterpolationMode.BICUBIC, antialias=True)
    resize = v2.Compose([v2.ToPILImage(), bicubic, v2.PILToTensor()])
    expected = (resize(tiles[0]).float() - encoder.shift[0]) * encoder.gain[0]
    found = encoder.normalise(torch.from_numpy(tiles).permute(0, 3, 1, 2))[0]
    levels = (found - expected).abs() / encoder.gain.max()
    # Pictures are rounded and clipped between rows and columns, which shows in noise as here.
    assert float(levels.mean()) < 0.5
    assert float(levels.max()) < 5
    from napari_her2.models.token_pooling import to_input

    pixels = torch.rand(1, 3, 128, 128, requires_grad=True)
    to_input(pixels * 255, 96, 128).sum().backward()
    assert pixels.grad[0, :, 16:-16, 16:-16].ne(0).all()
    assert pixels.grad[0, :, :16].eq(0).all()  # cut off


MODEL = {"name": "x", "training_data": "y"}


def test_tile_size_and_scale_are_left_to_the_encoder():
    config = AttentionConfig.parse({"model": MODEL, "encoder": {"name": "MahmoodLab/UNI2-h"}})
    assert (config.encoder.name, config.data.tile_px, config.data.mpp) == ("uni2-h", 224, 0.5)
    config = AttentionConfig.parse(
        {"model": MODEL, "encoder": {"name": "gigapath"}, "data": {"tile_px": 0, "mpp": 0.25}}
    )
    assert (config.data.tile_px, config.data.mpp) == (256, 0.25)
    config = MILConfig.parse({"model": MODEL, "encoder": {"name": "virchow2"}, "tiles": {"mpp": 0}})
    assert (config.tiles.tile_px, config.tiles.mpp) == (224, 0.5)
    plain = AttentionConfig.parse({"model": MODEL})
    assert (plain.encoder.name, plain.data.tile_px) == ("alexnet", 96)
    timm_one = {"encoder": {"name": "timm:vit_tiny_patch16_224"}, "data": {"tile_px": 224}}
    assert AttentionConfig.parse({"model": MODEL, **timm_one}).data.tile_px == 224
    with pytest.raises(JobFailed, match="nothing is known of"):
        AttentionConfig.parse({"model": MODEL, **timm_one, "data": {"tile_px": 0}})


def test_another_encoder_takes_the_place_of_that_of_a_configuration():
    values = {"model": MODEL, "encoder": {"name": "alexnet"}, "data": {"tile_px": 96, "mpp": 1.0, "folds": 5}}
    config = AttentionConfig.parse(with_encoder(values, "uni", ""))
    assert (config.encoder.name, config.encoder.weights) == ("uni", "installed")
    assert (config.data.tile_px, config.data.mpp, config.data.folds) == (224, 0.5, 5)


def test_another_scale_than_the_encoder_learnt_from_is_told():
    assert "0.4 to 0.6" in scale_warning("uni", 1.0)
    assert (
        scale_warning("virchow2", 1.0) == scale_warning("alexnet", 1.0) == scale_warning("timm:x", 9.0) == ""
    )
