"""Checkpoints that are not imported: what does not fit is named, and nothing in a file runs."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

import published_heads as published
from importing_checkpoints import imported, saved, seeded, spec, terms
from napari_her2.errors import ModelError
from napari_her2.models.card import PAIR
from napari_her2.models.importing.importer import inspect_checkpoint
from napari_her2.models.importing.kinds import KINDS


def _state(model):
    return dict(model.state_dict())


def _refusals():
    clam, abmil = published.PublishedCLAM(), published.AttentionDeepMIL(gated=True)
    yield "clam", _state(abmil), ("has the tensors of ABMIL, not of CLAM: choose the kind abmil",)
    both = _state(abmil) | {"more.weight": torch.ones(1)}
    yield "clam", both, ("attention_net.0.weight", "not expected", "attention_V.0.weight")
    missing = _state(clam)
    del missing["attention_net.3.attention_b.0.bias"]
    yield "clam", missing, ("missing: attention_net.3.attention_b.0.bias",)
    yield "clam", _state(clam) | {"extra.weight": torch.ones(1)}, ("not expected: extra.weight",)
    other = _state(clam) | {"attention_net.3.attention_b.0.weight": torch.zeros(128, 512)}
    yield "clam", other, ("attention_net.3.attention_b.0.weight", "(128, 512)", "(256, 512)")
    nan = _state(clam) | {"classifiers.bias": torch.tensor([0.0, 1.0, float("nan"), 0.0])}
    yield "clam", nan, ("classifiers.bias", "not numbers")
    old = {name.replace("attention_w", "attention_weights"): v for name, v in _state(abmil).items()}
    yield "abmil", old, ("missing: attention_w.bias, attention_w.weight", "attention_weights.bias")
    pixels = _state(abmil) | {"feature_extractor_part1.0.weight": torch.zeros(20, 1, 5, 5)}
    yield "abmil", pixels, ("not expected: feature_extractor_part1.0.weight",)
    linear = {
        name.replace("q.0.", "q.") if ".q." in name else name: value
        for name, value in _state(published.PublishedDSMIL()).items()
        if ".q.2." not in name
    }
    yield "dsmil", linear, ("missing: b_classifier.q.0.bias", "not expected: b_classifier.q.bias")
    six = _state(published.LightningPredictor("tinynet_e", channels=6))
    yield "corr-a-net-predictor", six, ("looks at 6 channels",)
    unsure = _state(published.LightningPredictor("tinynet_e")) | {"confidence.weight": torch.zeros(1, 1280)}
    yield "corr-a-net-predictor", unsure, ("not expected: confidence.weight",)
    yield "low-resolution", {"stem.0.weight": torch.zeros(1)}, ("missing", "head.norm.weight")
    yield "transmil", {}, ("holds no tensors",)


@pytest.mark.parametrize(("kind", "state", "facts"), list(_refusals()))
def test_what_does_not_fit_is_named(kind, state, facts, tmp_path):
    path = tmp_path / "x.pth"
    torch.save(state, path)
    features = None if not KINDS[kind].takes_features else 1024
    with pytest.raises(ModelError) as caught:
        imported(tmp_path, path, kind, terms(kind, features, 2 if kind == "abmil" else 4))
    for fact in facts:
        assert fact in str(caught.value)
    assert not list(tmp_path.glob("*.safetensors"))


def test_several_attention_branches_are_refused(tmp_path):
    model = published.AttentionDeepMIL()
    model.attention[2] = nn.Linear(128, 3)
    with pytest.raises(ModelError, match="joins 3 attention branches"):
        inspect_checkpoint(saved(tmp_path, model), "abmil")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("0", "1+", "3+")}, "gives 4 classes, but 3 were named"),
        ({"classes": ("0", "1+", "2+", "odd")}, "'odd'"),
        ({"encoder": None}, "takes features of 1,024 numbers"),
        ({"encoder": spec(512)}, "1,024 numbers, but timm:resnet18 gives 512"),
        ({"stain": PAIR}, "takes H&E or IHC"),
        ({"name": "No Name"}, "name"),
        ({"mpp": 0.0}, "mpp"),
        ({"arguments": {"field_px": 3}}, "field_px"),
    ],
)
def test_terms_that_contradict_the_checkpoint_are_refused(changes, message, tmp_path):
    path = saved(tmp_path, seeded(published.PublishedCLAM))
    with pytest.raises(ModelError, match=message):
        imported(tmp_path, path, "clam", replace(terms("clam", 1024), **changes))


def test_an_unknown_kind_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(ModelError, match="abmil, clam, transmil"):
        inspect_checkpoint(tmp_path / "x.pt", "resnet")


class _Runs:
    def __reduce__(self):
        return (print, ("ran",))


def test_a_pickle_with_code_is_refused_and_runs_nothing(tmp_path, capsys):
    path = tmp_path / "x.pt"
    torch.save({"state_dict": _Runs()}, path)
    with pytest.raises(ModelError, match=r"could run code|damaged"):
        inspect_checkpoint(path, "clam")
    (tmp_path / "y.bin").write_bytes(pickle.dumps(_Runs()))
    with pytest.raises(ModelError):
        inspect_checkpoint(tmp_path / "y.bin", "clam")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_file_is_refused(kept, tmp_path):
    path = saved(tmp_path, seeded(published.PlainAttentionMIL), name="pytorch_model.bin")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ModelError, match=r"pytorch_model\.bin"):
        inspect_checkpoint(path, "attention-mil")
