"""Bundles: what is saved comes back, and nothing else is let in."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_her2.errors import ModelError
from napari_her2.models.attention_mil import AttentionMIL
from napari_her2.models.bundle import ModelBundle, load_bundle, read_card, save_bundle
from napari_her2.models.card import ModelCard
from napari_her2.models.encoders import build_encoder
from napari_her2.models.weights_file import weights_digest

ENCODER = build_encoder("alexnet", normalisation="imagenet", seed=4)


def make_head(classes=4):
    with torch.random.fork_rng():
        torch.manual_seed(9)
        return AttentionMIL(1024, 16, classes)


def make_card(**changes):
    values = {
        "name": "tiny",
        "version": "1",
        "method": "attention-mil",
        "architecture": "AttentionMIL",
        "arguments": {"features": 1024, "hidden": 16, "classes": 4},
        "encoder": ENCODER.spec,
        "stain": "H&E",
        "tile_px": 96,
        "mpp": 0.5,
        "classes": ("0", "1+", "2+", "3+"),
        "task": "H&E-based prediction of the HER2 IHC score",
        "training_data": "none",
        "licence": "BSD-3-Clause",
        "intended_use": "tests",
        "guideline": "ASCO/CAP 2018",
    }
    return ModelCard(**(values | changes))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "tiny.safetensors"
    save_bundle(path, make_card(), ENCODER, make_head())
    return path


@pytest.fixture
def parts(saved):
    """Metadata and tensors, to be spoiled and written by the library itself."""
    with safe_open(saved, "pt") as file:
        return dict(file.metadata()), load_file(saved)


def rewritten(tmp_path, metadata, tensors):
    path = tmp_path / "spoiled.safetensors"
    save_file(tensors, path, metadata)
    return path


def test_bundle_comes_back(saved):
    bundle = load_bundle(saved)
    assert isinstance(bundle, ModelBundle)
    assert bundle.card == replace(make_card(), encoder=replace(ENCODER.spec, weights="bundled"))
    assert bundle.path == saved
    assert bundle.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert read_card(saved) == bundle.card
    bag = torch.rand(20, 1024, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(bundle.head(bag).logits, make_head()(bag).logits, rtol=0, atol=0)
    assert not bundle.head.training
    assert not any(p.requires_grad for p in (*bundle.head.parameters(), *bundle.encoder.parameters()))
    for (name, stored), original in zip(
        bundle.encoder.backbone.state_dict().items(), ENCODER.backbone.state_dict().values(), strict=True
    ):
        assert stored.dtype == torch.float32, name
        torch.testing.assert_close(stored, original.half().float(), rtol=0, atol=0)


def test_bundle_is_read_by_the_safetensors_library(saved):
    with safe_open(saved, "pt") as file:
        assert json.loads(file.metadata()["napari_her2"])["name"] == "tiny"
        assert file.metadata()["format"] == "1"
        assert all(key.startswith(("encoder.", "head.")) for key in file.keys())  # noqa: SIM118
        assert file.get_tensor("encoder.features.0.weight").dtype == torch.float16
        assert file.get_tensor("head.classifier.bias").dtype == torch.float32


def test_same_model_gives_the_same_bytes_and_leaves_nothing_beside_it(saved, tmp_path):
    path = tmp_path / "again.safetensors"
    save_bundle(path, make_card(), ENCODER, make_head())
    assert path.read_bytes() == saved.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["again.safetensors"]


def test_encoder_can_be_kept_in_full_precision(tmp_path):
    path = tmp_path / "full.safetensors"
    save_bundle(path, make_card(), ENCODER, make_head(), encoder_dtype=torch.float32)
    digest = weights_digest(load_bundle(path).encoder.backbone.state_dict())
    assert digest == weights_digest(ENCODER.backbone.state_dict())


def test_weights_beyond_float16_and_counters_survive(tmp_path):
    encoder = build_encoder("timm:resnet10t", tile_px=96)
    encoder.backbone.bn1.running_var.fill_(1e6)
    encoder.backbone.bn1.num_batches_tracked.fill_(2**40)
    arguments = {"features": 512, "hidden": 16, "classes": 4}
    path = tmp_path / "timm.safetensors"
    save_bundle(path, make_card(encoder=encoder.spec, arguments=arguments), encoder, AttentionMIL(512, 16, 4))
    loaded = load_bundle(path).encoder.backbone
    assert (loaded.bn1.running_var == 1e6).all()
    assert loaded.bn1.num_batches_tracked == 2**40


def test_write_that_fails_leaves_what_was_there(saved, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"the one before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ModelError, match=r"could not be written \(No space left on device\)"):
        save_bundle(path, make_card(), ENCODER, make_head())
    assert path.read_bytes() == b"the one before"
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    path = tmp_path / "model.safetensors"
    diverged = make_head()
    diverged.classifier.bias.data[0] = torch.nan
    other = replace(ENCODER.spec, mean=(0.0, 0.0, 0.0))
    for card, head, message in [
        (make_card(), diverged, "not numbers"),
        (make_card(), make_head(classes=3), "do not fit the model"),
        (make_card(encoder=other), make_head(), "another encoder"),
        (
            make_card(encoder=replace(ENCODER.spec, weights=f"sha256:{'0' * 64}")),
            make_head(),
            "other encoder weights",
        ),
        (make_card(classes=("0", "1")), make_head(), "contradicts itself"),
    ]:
        with pytest.raises(ModelError, match=message):
            save_bundle(path, card, ENCODER, head)
    with pytest.raises(ModelError, match=r"saved as \.safetensors"):
        save_bundle(tmp_path / "model.pth", make_card(), ENCODER, make_head())
    assert list(tmp_path.iterdir()) == []


def separate(tmp_path, weights):
    digest = weights_digest(ENCODER.backbone.state_dict())
    encoder = replace(ENCODER.spec, weights=f"sha256:{digest}")
    path = tmp_path / "model.safetensors"
    save_bundle(path, make_card(encoder=encoder), ENCODER, make_head())
    if weights is not None:
        save_file(weights, tmp_path / "model.encoder.safetensors")
    return path


def test_separate_encoder_weights_are_found_beside_the_bundle(tmp_path):
    path = separate(tmp_path, ENCODER.backbone.state_dict())
    assert path.stat().st_size < 200_000
    assert load_bundle(path).encoder.fingerprint() == ENCODER.fingerprint()


def test_separate_encoder_weights_that_are_missing_are_asked_for(tmp_path):
    with pytest.raises(ModelError, match=r"needs the weights of alexnet.*model\.encoder\.safetensors"):
        load_bundle(separate(tmp_path, None))


def test_other_encoder_weights_than_those_of_training_are_refused(tmp_path):
    other = build_encoder("alexnet", seed=5).backbone.state_dict()
    with pytest.raises(ModelError, match="other weights of alexnet"):
        load_bundle(separate(tmp_path, other))


def test_changed_file_is_refused(saved):
    good = hashlib.sha256(saved.read_bytes()).hexdigest()
    assert load_bundle(saved, expected_sha256=good).sha256 == good
    with pytest.raises(ModelError, match="not the file that was installed"):
        load_bundle(saved, expected_sha256="0" * 64)


def old_torch_save(state):
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def new_torch_save(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def plain_zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\x08", "not a safetensors"),
        (b"some text that is long enough", "not a safetensors"),
        (new_torch_save({"a": torch.zeros(1)}), "pickle.*never loads"),
        (old_torch_save({"a": torch.zeros(1)}), "pickle.*never loads"),
        (pickle.dumps({"a": 1}), "pickle.*never loads"),
        (plain_zip(), "pickle.*never loads"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc", "Git LFS"),
        ((2**63).to_bytes(8, "little") + b"{}", "not a safetensors"),
        ((50).to_bytes(8, "little") + b"{}", "cut off"),
        ((2).to_bytes(8, "little") + b"[]", "not a safetensors"),
        ((2).to_bytes(8, "little") + b"{{", "not a safetensors"),
        ((2).to_bytes(8, "little") + b"\xff\xfe", "not a safetensors"),
        ((2).to_bytes(8, "little") + b"{}", "no model card"),
        ((22).to_bytes(8, "little") + b'{"__metadata__":[1,2]}', "not a safetensors"),
    ],
)
def test_what_is_no_bundle_is_refused_as_what_it_is(tmp_path, data, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    for read in (load_bundle, read_card):
        with pytest.raises(ModelError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_path_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"There is no file .*missing"):
        load_bundle(tmp_path / "missing.safetensors")
    with pytest.raises(ModelError, match="could not be read"):
        read_card(tmp_path)


@pytest.mark.parametrize("share", [0.0001, 0.1, 0.5, 0.9, 0.99999])
def test_truncated_bundle_is_refused(saved, tmp_path, share):
    data = saved.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=r"cut"):
        load_bundle(path)


def test_foreign_safetensors_is_refused(tmp_path):
    path = rewritten(tmp_path, {"format": "pt"}, {"weight": torch.zeros(2)})
    with pytest.raises(ModelError, match="no model card"):
        load_bundle(path)


def with_card(metadata, **changes):
    card = json.loads(metadata["napari_her2"]) | changes
    return metadata | {"napari_her2": json.dumps(card)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "__import__('os')"}, "does not know"),
        ({"method": "clam"}, "but it is 'attention-mil'"),
        ({"arguments": {"features": 1024, "hidden": 17, "classes": 4}}, "do not fit the model"),
        ({"arguments": {"features": 1024, "hidden": 16}}, "whole number"),
        ({"arguments": {"features": 1024, "hidden": 16, "classes": 4, "depth": 3}}, "whole number"),
        ({"arguments": {"features": 1024, "hidden": 10**12, "classes": 4}}, "whole number"),
        ({"arguments": {"features": 1024, "hidden": 65536, "classes": 4}}, "do not fit the model"),
        ({"arguments": {"features": 512, "hidden": 16, "classes": 4}}, "contradicts itself"),
        ({"classes": ["0", "1+", "2+"]}, "contradicts itself"),
        ({"encoder": None}, "contradicts itself"),
    ],
)
def test_card_that_does_not_fit_the_tensors_is_refused(parts, tmp_path, changes, message):
    metadata, tensors = parts
    with pytest.raises(ModelError, match=message):
        load_bundle(rewritten(tmp_path, with_card(metadata, **changes), tensors))


def test_other_format_is_refused_with_advice(parts, tmp_path):
    metadata, tensors = parts
    with pytest.raises(ModelError, match="update napari-her2"):
        load_bundle(rewritten(tmp_path, metadata | {"format": "2"}, tensors))


def test_encoder_of_the_card_that_is_not_in_the_file_is_refused(parts, tmp_path):
    metadata, tensors = parts
    encoder = json.loads(metadata["napari_her2"])["encoder"]
    for changes, message in [
        ({"weights": "random"}, "holds encoder weights although"),
        ({"weights": f"sha256:{'1' * 64}"}, "holds encoder weights although"),
        ({"name": "timm:resnet10t"}, "but it gives 512"),
        ({"name": "timm:hf-hub:someone/model"}, "network"),
        ({"name": "os.system"}, "no encoder called"),
    ]:
        spoiled = with_card(metadata, encoder=encoder | changes)
        with pytest.raises(ModelError, match=message):
            load_bundle(rewritten(tmp_path, spoiled, tensors))
    heads = {key: value for key, value in tensors.items() if key.startswith("head.")}
    with pytest.raises(ModelError, match="learnt nothing"):
        load_bundle(rewritten(tmp_path, with_card(metadata, encoder=encoder | {"weights": "random"}), heads))
    with pytest.raises(ModelError, match="is missing"):
        load_bundle(rewritten(tmp_path, metadata, heads))


@pytest.mark.parametrize("name", ["head.classifier.bias", "encoder.features.0.bias"])
@pytest.mark.parametrize("how", ["missing", "shape", "nan", "integer"])
def test_tensor_that_does_not_fit_is_refused(parts, tmp_path, name, how):
    metadata, tensors = parts
    if how == "missing":
        del tensors[name]
    elif how == "shape":
        tensors[name] = tensors[name][:-1].clone()
    elif how == "nan":
        tensors[name][0] = torch.nan
    else:
        tensors[name] = tensors[name].to(torch.int64)
    with pytest.raises(ModelError):
        load_bundle(rewritten(tmp_path, metadata, tensors))


@pytest.mark.parametrize("name", ["head.surprise", "encoder.surprise", "surprise"])
def test_tensor_that_is_not_expected_is_refused(parts, tmp_path, name):
    metadata, tensors = parts
    with pytest.raises(ModelError, match="surprise"):
        load_bundle(rewritten(tmp_path, metadata, tensors | {name: torch.zeros(1)}))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1), value=st.integers(0, 255))
def test_damaged_header_is_refused_or_harmless_but_never_crashes(saved, tmp_path, position, value):
    data = bytearray(saved.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[int(position * (header - 1))] = value
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(data)
    try:
        card = read_card(path)
    except ModelError:
        return
    assert isinstance(card, ModelCard)
