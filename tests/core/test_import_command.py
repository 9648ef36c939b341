"""`napari-her2 models import`: from a file of another program to a model that scores a slide."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import published_heads as published
from napari_her2 import score_slide
from napari_her2.cli import app
from napari_her2.models.encoders import build_encoder
from napari_her2.models.registry import load_model

GIVEN = ("--name", "mine", "--classes", "0,1+,2+,3+")


def run(*arguments):
    return CliRunner().invoke(app, ["models", "import", *(str(item) for item in arguments)])


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_HER2_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("NAPARI_HER2_ENCODERS", str(tmp_path / "encoders"))


@pytest.fixture
def checkpoint(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = published.PlainAttentionMIL().eval()
    path = tmp_path / "theirs.pt"
    torch.save({"state_dict": {f"model.{name}": value for name, value in model.state_dict().items()}}, path)
    return path, model


def test_a_slide_is_scored_as_the_original_scores_its_features(checkpoint, he_slide):
    path, original = checkpoint
    done = run(path, "--kind", "attention-mil", "--encoder", "model:demo-attention-mil", *GIVEN)
    assert done.exit_code == 0, done.output
    assert "features of a tile" in done.output
    assert "mine was imported" in done.output
    assert "usual: --stain H&E, --tile 96, --mpp 0.5." in done.output
    bundle = load_model("mine")
    result = score_slide(he_slide, bundle, device="cpu", cache=False)
    from napari_her2 import open_slide

    with open_slide(he_slide) as slide, torch.inference_mode():
        tiles = [torch.from_numpy(slide.read(0, y, x, 96, 96)) for y, x in result.table.origins_px0.tolist()]
        features = bundle.patch_encoder(torch.stack(tiles))
        expected = original(features).softmax(dim=0)
    assert list(result.probabilities.values()) == pytest.approx(expected.tolist(), abs=2e-3)
    assert result.trust == {}


def test_a_file_is_written_with_the_weights_of_its_encoder_beside_it(checkpoint, tmp_path):
    weights = tmp_path / "alexnet.safetensors"
    save_file(build_encoder("alexnet", seed=4).backbone.state_dict(), weights)
    out = tmp_path / "share" / "mine.safetensors"
    out.parent.mkdir()
    given = ("--encoder", "alexnet", "--encoder-weights", weights, "--out", out)
    done = run(checkpoint[0], "--kind", "attention-mil", *given, *GIVEN)
    assert done.exit_code == 0, done.output
    assert {path.name for path in out.parent.iterdir()} == {"mine.safetensors", "mine.encoder.safetensors"}
    assert load_model(out).patch_encoder.spec.name == "alexnet"
    again = run(checkpoint[0], "--kind", "attention-mil", *given, *GIVEN)
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    assert "--force" in again.stderr


def test_an_encoder_that_is_not_at_hand_is_named_in_the_card_and_asked_for(checkpoint):
    done = run(checkpoint[0], "--kind", "attention-mil", "--encoder", "uni", "--tile", 224, *GIVEN)
    assert done.exit_code == 0, done.output
    assert "encoders fetch uni" in done.output
    assert "usual: --stain H&E, --mpp 0.5." in done.output
    shown = CliRunner().invoke(app, ["models", "show", "mine"])
    assert shown.exit_code == 0
    assert "needs the weights of UNI" in shown.output
    checked = CliRunner().invoke(app, ["models", "verify", "mine"])
    assert checked.exit_code == 1
    assert "encoders fetch uni" in checked.stderr


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (("--kind", "clam", "--encoder", "uni"), "choose the kind attention-mil"),
        (("--kind", "pickle", "--encoder", "uni"), "abmil, clam"),
        (("--kind", "attention-mil"), "name the encoder"),
        (("--kind", "attention-mil", "--encoder", "virchow2"), "virchow2 gives 2,560"),
        (("--kind", "attention-mil", "--encoder", "nothing"), "nothing"),
        (("--kind", "attention-mil", "--encoder", "timm:resnet18"), "give their file too"),
        (("--kind", "attention-mil", "--encoder", "uni", "--set", "field_px=3"), "field_px=3"),
        (("--kind", "attention-mil", "--encoder", "uni", "--class-scores", "0=4+"), "low=0|1+"),
        (("--kind", "attention-mil", "--encoder", "uni", "--stain", "HE"), "takes H&E or IHC"),
        (("--kind", "attention-mil", "--encoder", "uni", "--mpp", 0), "mpp"),
    ],
)
def test_bad_input_is_told_in_one_line(checkpoint, arguments, fact, tmp_path):
    done = run(checkpoint[0], *arguments, *GIVEN)
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert fact in done.stderr
    assert not list(tmp_path.glob("models/*"))
