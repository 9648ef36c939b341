"""Encoders fetched from a stand-in of the hub, and added from files: whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from dataclasses import replace
from types import MappingProxyType

import pytest
import timm
import torch
from hub_stand_in import COMMIT, Hub, serving
from safetensors.torch import save, save_file
from typer.testing import CliRunner

from napari_her2.cli import app
from napari_her2.errors import ModelError
from napari_her2.models import encoder_contracts, encoder_fetch
from napari_her2.models.encoder_contracts import ENCODERS
from napari_her2.models.encoder_fetch import fetch_offer, look_up
from napari_her2.models.encoder_folder import add_encoder, encoders_folder, find, installed, installed_encoder
from napari_her2.models.encoders import build_encoder
from napari_her2.models.weights_file import weights_digest

SMALL = {"img_size": 224, "embed_dim": 32, "depth": 2, "num_heads": 2, "init_values": 1e-5}


def original(seed=1, **more):
    torch.manual_seed(seed)
    return timm.create_model("vit_tiny_patch16_224", num_classes=0, **{**SMALL, **more}).eval()


@pytest.fixture
def uni(monkeypatch, tmp_path):
    """UNI as small as a test needs it: the same names of tensors, of the same way of building it."""
    monkeypatch.setenv("NAPARI_HER2_ENCODERS", str(tmp_path / "encoders"))
    contract = replace(
        ENCODERS["uni"], architecture="vit_tiny_patch16_224", arguments=SMALL, dim=32, revision=""
    )
    monkeypatch.setattr(encoder_contracts, "ENCODERS", MappingProxyType({**ENCODERS, "uni": contract}))
    return contract


@pytest.fixture
def hub(uni, monkeypatch):
    checkpoint = io.BytesIO()
    torch.save(original().state_dict(), checkpoint)
    hub = Hub(uni.hub, {"README.md": b"#", "pytorch_model.bin": checkpoint.getvalue()})
    with serving(hub) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        yield hub


def test_weights_are_fetched_converted_once_and_embed_as_the_original(hub, uni, tmp_path):
    offer = look_up(uni)
    assert (offer.file, offer.size) == ("pytorch_model.bin", len(hub.files["pytorch_model.bin"]))
    reports = []
    kept = fetch_offer(offer, report=lambda done, total: reports.append((done, total)))
    assert reports[-1] == (offer.size, offer.size)
    assert kept.source_sha256 == hashlib.sha256(hub.files["pytorch_model.bin"]).hexdigest()
    assert (kept.hub, kept.revision) == (uni.hub, COMMIT)
    assert sorted(path.name for path in kept.path.parent.iterdir() if path.is_file()) == [
        "uni.json",
        "uni.safetensors",
    ]
    assert find(kept.digest) == kept.path
    assert kept.digest == weights_digest(original().state_dict())
    encoder = build_encoder("UNI", weights="installed")
    assert encoder.spec.hub == f"{uni.hub}@{COMMIT}"
    tiles = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (uni.mean, uni.std))
    with torch.inference_mode():
        expected = original()((tiles.permute(0, 3, 1, 2) / 255 - mean) / std)
        torch.testing.assert_close(encoder(tiles), expected, atol=1e-5, rtol=1e-5)


def test_the_revision_that_was_fetched_first_holds(hub, uni):
    fetch_offer(look_up(uni))
    hub.commit = COMMIT[::-1]
    with pytest.raises(ModelError, match="no revision '0123"):
        look_up(uni)  # the hub of today knows the old commit no more: it is not silently taken anew
    with pytest.raises(ModelError, match=r"revision 0123.*--force"):
        look_up(uni, "main")
    assert look_up(uni, "main", force=True).revision == hub.commit


def test_a_pinned_revision_is_asked_for(hub, uni):
    with pytest.raises(ModelError, match="no revision"):
        look_up(replace(uni, revision="f" * 40))
    assert look_up(replace(uni, revision=COMMIT)).revision == COMMIT


def test_a_gated_encoder_says_where_its_terms_are_accepted(hub, uni):
    hub.gated = True
    with pytest.raises(ModelError, match=r"accepted its terms.*huggingface\.co/MahmoodLab/uni.*HF_TOKEN"):
        fetch_offer(look_up(uni))
    assert installed() == []


def test_an_unreachable_hub_is_told_with_the_other_way(uni, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"could not be reached.*encoders add FILE --name uni"):
        look_up(uni)


def test_what_ends_in_the_midst_leaves_nothing_half_and_goes_on_from_there(hub, uni):
    def cancel(done, total):
        raise KeyboardInterrupt

    hub.stop_after = 40_000
    offer = look_up(uni)
    with pytest.raises(ModelError, match=r"ended after 39\.1 KB .*goes on where it ended"):
        fetch_offer(offer)
    with pytest.raises(KeyboardInterrupt):
        fetch_offer(offer, report=cancel)
    assert installed() == []
    assert not list(encoders_folder().glob("*.safetensors"))
    hub.stop_after = None
    hub.asked.clear()
    fetch_offer(offer)
    begun = [asked for command, _, asked in hub.asked if command == "GET" and asked is not None]
    assert begun == ["bytes=80000-"]  # two ends of 40,000 bytes each
    assert installed_encoder("uni") is not None
    assert not any(encoders_folder().glob(".fetching/*"))


def test_a_file_that_is_not_what_the_hub_states_is_not_kept(hub, uni):
    offer = replace(look_up(uni), sha256="0" * 64)
    with pytest.raises(ModelError, match="did not arrive as it is published"):
        fetch_offer(offer)
    assert installed() == []


def test_a_disk_without_room_is_told_before(hub, uni, monkeypatch):
    monkeypatch.setattr(encoder_fetch.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(ModelError, match="make room"):
        fetch_offer(look_up(uni))


def test_the_command_asks_and_tells_the_size_before(hub, uni):
    run = CliRunner().invoke(app, ["encoders", "fetch", "uni"])
    assert run.exit_code == 2
    assert "--yes" in run.output
    run = CliRunner().invoke(app, ["encoders", "fetch", "uni_v1", "--yes"])
    assert run.exit_code == 0, run.output
    assert "KB" in run.output
    assert "CC-BY-NC-ND" in run.output
    assert "uni was fetched" in run.output
    shown = CliRunner().invoke(app, ["encoders", "list"], env={"COLUMNS": "200"}).output
    assert "installed" in shown
    assert COMMIT in CliRunner().invoke(app, ["encoders", "show", "uni"], env={"COLUMNS": "200"}).output


def test_a_file_that_the_user_has_is_added(uni, tmp_path):
    save_file(original(2).state_dict(), tmp_path / "mine.safetensors")
    kept = add_encoder(tmp_path / "mine.safetensors", "uni")
    assert (kept.hub, kept.source) == ("", "mine.safetensors")
    assert add_encoder(tmp_path / "mine.safetensors", "uni") == kept
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in original(3).state_dict().items()}}, tmp_path / "b.pth"
    )
    with pytest.raises(ModelError, match="Other weights of uni"):
        add_encoder(tmp_path / "b.pth", "uni")
    assert add_encoder(tmp_path / "b.pth", "uni", force=True).digest == weights_digest(
        original(3).state_dict()
    )


class Code:
    def __reduce__(self):
        return os.system, ("echo run > /dev/null",)


def bad_file(folder, what):
    path = folder / "weights.bin"
    if what == "width":
        torch.save(original(embed_dim=48).state_dict(), path)
    elif what == "other network":
        torch.save(timm.create_model("test_resnet").state_dict(), path)
    elif what == "code":
        torch.save({"a": Code()}, path)
    elif what == "cut off":
        torch.save(original().state_dict(), path)
        path.write_bytes(path.read_bytes()[:20_000])
    elif what == "web page":
        path.write_text("<html>401</html>")
    else:
        path = folder / "weights.safetensors"
        path.write_bytes(save(original().state_dict())[:20_000])
    return path


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("width", "holds no weights of UNI.*shape"),
        ("other network", "holds no weights of UNI"),
        ("code", "more than tensors"),
        ("cut off", "cut off"),
        ("web page", "no checkpoint"),
        ("cut off safetensors", "cut off"),
    ],
)
def test_files_that_are_not_the_weights_are_one_plain_sentence(uni, tmp_path, what, words):
    path = bad_file(tmp_path, what)
    with pytest.raises(ModelError, match=words) as caught:
        add_encoder(path, "uni")
    assert "\n" not in str(caught.value)
    assert installed() == []


def test_what_is_not_built_here_is_neither_fetched_nor_added(uni, tmp_path):
    for name, words in (("conch", "program of its own"), ("hibou-b", "code")):
        with pytest.raises(ModelError, match=words):
            look_up(ENCODERS[name])
        with pytest.raises(ModelError, match=words):
            add_encoder(tmp_path / "x.bin", name)


def test_what_torchvision_fetches_says_how_it_is_asked_for():
    with pytest.raises(ModelError, match=r"torchvision.*--encoder alexnet --pretrained"):
        look_up(ENCODERS["alexnet"])


def test_weights_without_their_record_are_not_used(uni, tmp_path):
    save_file(original().state_dict(), tmp_path / "mine.safetensors")
    kept = add_encoder(tmp_path / "mine.safetensors", "uni")
    kept.path.with_suffix(".json").unlink()
    assert installed() == []
    with pytest.raises(ModelError, match="encoders fetch uni"):
        build_encoder("uni", weights="installed")
