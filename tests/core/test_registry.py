"""Models by name: installed whole, checked whenever loaded, and named when missing."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from napari_her2.errors import ModelError, ModelNameTaken
from napari_her2.models import registry
from napari_her2.models.attention_mil import AttentionMIL
from napari_her2.models.bundle import load_bundle, save_bundle
from napari_her2.models.card import ModelCard
from napari_her2.models.encoders import build_encoder
from napari_her2.models.weights_file import weights_digest

ENCODER = build_encoder("alexnet")


def write_model(path, name="tiny", version="1", encoder=None):
    card = ModelCard(
        name=name,
        version=version,
        method="attention-mil",
        architecture="AttentionMIL",
        arguments={"features": 1024, "hidden": 2, "classes": 2},
        encoder=encoder or ENCODER.spec,
        stain="H&E",
        tile_px=96,
        mpp=0.5,
        classes=("negative", "positive"),
        task="H&E-based prediction of the HER2 IHC score",
        training_data="none",
        licence="BSD-3-Clause",
        intended_use="tests",
        guideline="ASCO/CAP 2018",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_bundle(path, card, ENCODER, AttentionMIL(1024, 2, 2))
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("made") / "download (1).safetensors")


@pytest.fixture(autouse=True)
def bundled(tmp_path, monkeypatch):
    folder = tmp_path / "bundled"
    folder.mkdir()
    monkeypatch.setattr(registry, "BUNDLED_FOLDER", folder)
    return folder


@pytest.fixture
def ours(made, bundled):
    shutil.copy(made, bundled / "ours.safetensors")
    registry.write_hash_list(bundled)
    return bundled / "ours.safetensors"


def test_added_model_is_found_by_the_name_of_its_card(made):
    entry = registry.add_model(made)
    assert (entry.name, entry.origin) == ("tiny", "installed")
    assert entry.path.parent == Path(os.environ["NAPARI_HER2_MODELS"])
    assert entry.path.read_bytes() == made.read_bytes()
    assert registry.list_models() == [entry]
    assert registry.load_model("tiny").sha256 == hashlib.sha256(made.read_bytes()).hexdigest()
    assert sorted(file.name for file in entry.path.parent.iterdir()) == [
        "tiny.safetensors",
        "tiny.safetensors.sha256",
    ]


def test_recorded_hash_is_in_the_form_of_sha256sum(made):
    entry = registry.add_model(made)
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    assert Path(f"{entry.path}.sha256").read_text() == f"{digest}  tiny.safetensors\n"


def test_nothing_is_listed_where_nothing_is():
    assert registry.list_models() == []
    with pytest.raises(ModelError, match="none is installed"):
        registry.load_model("tiny")


def test_bundled_models_come_first(made, ours):
    registry.add_model(made)
    assert [(entry.name, entry.origin) for entry in registry.list_models()] == [
        ("ours", "bundled"),
        ("tiny", "installed"),
    ]
    assert registry.load_model("ours").card.name == "tiny"


@pytest.mark.parametrize("kind", [str, Path])
def test_file_is_loaded_by_its_path(made, kind):
    assert registry.load_model(kind(made)).path == made


def test_unknown_name_names_the_known_and_the_close(made):
    registry.add_model(made)
    with pytest.raises(ModelError, match=r"no model called 'tiney'; there are: tiny\. Did you mean tiny\?"):
        registry.load_model("tiney")


def test_checkpoint_named_on_the_command_line_is_refused_as_a_pickle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({}, "model.pth")
    with pytest.raises(ModelError, match="pickle"):
        registry.load_model("model.pth")
    with pytest.raises(ModelError, match="pickle"):
        registry.add_model("model.pth")
    assert registry.list_models() == []


def test_other_model_of_the_same_name_is_replaced_only_when_told(made, tmp_path):
    registry.add_model(made)
    registry.add_model(made)
    other = write_model(tmp_path / "other.safetensors", version="2")
    with pytest.raises(ModelNameTaken, match="rename this one"):
        registry.add_model(other)
    assert registry.load_model("tiny").card.version == "1"
    registry.add_model(other, force=True)
    assert registry.load_model("tiny").card.version == "2"


def test_name_of_a_bundled_model_is_taken(made, bundled):
    shutil.copy(made, bundled / "tiny.safetensors")
    with pytest.raises(ModelError, match="comes with napari-her2"):
        registry.add_model(made, force=True)


def test_installed_model_that_was_changed_is_refused(made, tmp_path):
    entry = registry.add_model(made)
    shutil.copy(write_model(tmp_path / "other.safetensors", version="2"), entry.path)
    for use in (registry.load_model, registry.verify_model):
        with pytest.raises(ModelError, match="not the file that was installed"):
            use("tiny")


def test_bundled_model_that_was_changed_is_refused(ours, tmp_path):
    shutil.copy(write_model(tmp_path / "other.safetensors", version="2"), ours)
    with pytest.raises(ModelError, match="not the file that was installed"):
        registry.load_model("ours")


def test_model_without_a_recorded_hash_is_not_trusted(made, bundled):
    folder = registry.models_folder()
    folder.mkdir(parents=True)
    shutil.copy(made, folder / "copied.safetensors")
    with pytest.raises(ModelError, match="models add"):
        registry.load_model("copied")
    shutil.copy(made, bundled / "ours.safetensors")
    with pytest.raises(ModelError, match="Reinstall"):
        registry.load_model("ours")


def test_verify_reports_what_it_checked(made):
    registry.add_model(made)
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    verified = registry.verify_model("tiny")
    assert (verified.sha256, verified.recorded_sha256) == (digest, digest)
    assert verified.parameters == 2_469_696 + (1024 * 2 + 2) + (2 + 1) + (1024 * 2 + 2)
    assert registry.verify_model(made).recorded_sha256 is None


def test_file_that_is_no_model_is_told_apart_and_explained(made):
    entry = registry.add_model(made)
    broken = entry.path.with_name("broken.safetensors")
    broken.write_bytes(entry.path.read_bytes()[:100])
    assert registry.list_models() == [entry]
    (problem,) = registry.unreadable_models()
    assert problem.path == broken
    with pytest.raises(ModelError, match="cut off"):
        registry.load_model("broken")


def test_damaged_model_is_not_added(made, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(made.read_bytes()[:-1])
    with pytest.raises(ModelError, match="cut"):
        registry.add_model(path)
    assert not registry.models_folder().exists()


def test_folder_that_cannot_be_made_is_named(made, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NAPARI_HER2_MODELS", str(tmp_path / "file" / "models"))
    with pytest.raises(ModelError, match="could not be written"):
        registry.add_model(made)


def test_separate_encoder_weights_are_installed_with_the_model(tmp_path):
    digest = weights_digest(ENCODER.backbone.state_dict())
    path = write_model(
        tmp_path / "model.safetensors", encoder=replace(ENCODER.spec, weights=f"sha256:{digest}")
    )
    save_file(ENCODER.backbone.state_dict(), tmp_path / "model.encoder.safetensors")
    entry = registry.add_model(path)
    assert registry.list_models() == [entry]
    assert registry.load_model("tiny").encoder.fingerprint() == ENCODER.fingerprint()


def test_models_of_this_package_are_in_order():
    folder = Path(registry.__file__).parent / "weights"
    for path in folder.glob("*.safetensors"):
        bundle = load_bundle(path)
        assert f"{bundle.sha256}  {path.name}" in (folder / "SHA256SUMS").read_text().splitlines()
        assert bundle.card.name == path.stem


MOST_MB = {"demo-low-resolution": 8, "demo-corr-a-net": 8}


def test_models_of_this_package_are_small_and_their_cards_say_how_good_they_are_on_what():
    folder = Path(registry.__file__).parent / "weights"
    paths = sorted(folder.glob("*.safetensors"))
    assert sum(path.stat().st_size for path in paths) <= 30e6
    for path in paths:
        assert path.stat().st_size <= 1e6 * MOST_MB.get(path.stem, 12)
        card = load_bundle(path).card
        assert "synthetic" in card.training_data
        assert "mean nothing" in card.notice
        held_out = {name: value for name, value in card.metrics.items() if name.startswith("test ")}
        aucs = [value for name, value in held_out.items() if name.endswith("macro AUC")]
        assert aucs, path.name
        assert min(aucs) > 0.9
    assert (
        load_bundle(folder / "demo-low-resolution.safetensors").card.metrics["test slides: macro AUC"] >= 0.95
    )
