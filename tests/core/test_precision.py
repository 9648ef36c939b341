"""In which precision numbers are computed: what is forced, what never is lower, and what is told of it."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from field_bundles import make_field_bundle
from low_resolution_bundles import make_low_resolution_bundle
from method_bundles import make_mil_bundle, make_patch_bundle
from napari_her2 import score_slide
from napari_her2.cohort.score_job import Case, ScoreJob
from napari_her2.errors import JobFailed
from napari_her2.explain.gradcam import grad_cam
from napari_her2.export.tables import result_values
from napari_her2.inference import encoder_way
from napari_her2.inference import precision as precision_module
from napari_her2.inference.device import Device, choose_device
from napari_her2.inference.encode import EncoderRunner
from napari_her2.models.bundle import load_bundle
from napari_her2.models.card import EncoderSpec
from napari_her2.models.patch_encoder import PatchEncoder
from small_files import make_bundle

VARIABLE = "NAPARI_HER2_PRECISION"


class TwoWays(nn.Module):
    """Gives one thing in float32 and another under autocast, whatever the tiles are."""

    def __init__(self, exact, rough):
        super().__init__()
        self.register_buffer("exact", torch.tensor(exact))
        self.register_buffer("rough", torch.tensor(rough))

    def forward(self, images):
        row = self.rough if torch.is_autocast_enabled("cpu") else self.exact
        return row[torch.arange(len(images)) % len(row)]


def encoder_of(backbone, dim=2):
    return PatchEncoder(EncoderSpec("made up", 8, (0, 0, 0), (1, 1, 1), dim, "random"), backbone)


@pytest.fixture(autouse=True)
def _nothing_compared_yet(monkeypatch):
    monkeypatch.setattr(encoder_way, "_compared", {})


@pytest.mark.parametrize("value", ["half", "float16", "1", "bfloat16;"])
def test_an_unknown_precision_is_refused_with_the_known_ones(value, monkeypatch, he_slide, tiny_model):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(JobFailed, match=f"no precision '{value}'.*{VARIABLE} to auto, float32, bfloat16"):
        score_slide(he_slide, tiny_model, device="cpu")


def processor(monkeypatch, *, machine="x86_64", amx=False, allowed=True, bf16=True, onednn=True):
    """A stand-in for a processor, as PyTorch tells of it."""
    monkeypatch.setattr(precision_module.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_init_amx", lambda: allowed)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)


@pytest.mark.parametrize(
    ("has", "dtype", "reason"),
    [
        ({"amx": True}, torch.bfloat16, "this processor has AMX"),
        ({"machine": "AMD64", "amx": True, "bf16": False}, torch.bfloat16, "this processor has AMX"),
        ({"amx": False, "bf16": True}, None, "this processor computes bfloat16 no faster"),
        ({"amx": False, "bf16": False}, None, "this processor computes bfloat16 no faster"),
        ({"amx": True, "allowed": False}, None, "this processor computes bfloat16 no faster"),
        ({"amx": True, "onednn": False}, None, "this PyTorch lacks oneDNN, which computes bfloat16"),
        ({"machine": "aarch64"}, None, "bfloat16 was never measured on ARM processors"),
        ({"machine": "arm64", "amx": True}, None, "bfloat16 was never measured on ARM processors"),
    ],
)
def test_a_processor_computes_in_bfloat16_only_where_that_is_faster(has, dtype, reason, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    processor(monkeypatch, **has)
    device = choose_device("cpu")
    assert (device.autocast_dtype, device.precision_reason) == (dtype, reason)
    if dtype is None:
        assert device.precision_words == f"float32: {reason}"
    else:
        assert device.precision_words == f"bfloat16 where the encoder agrees: {reason}"
        assert "features in bfloat16" in device.line("bfloat16")
        assert device.line("float32").endswith("features in float32")  # it did not agree: not for that reason


@pytest.mark.parametrize("absent", ["_is_amx_tile_supported", "_init_amx"])
def test_what_pytorch_no_longer_answers_means_no(absent, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    processor(monkeypatch, amx=True)
    monkeypatch.delattr(torch.cpu, absent)
    assert choose_device("cpu").autocast_dtype is None


def test_the_same_processor_is_answered_for_without_a_clock(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    processor(monkeypatch, amx=True)
    for name in ("time", "perf_counter", "monotonic", "process_time"):
        monkeypatch.setattr(time, name, lambda: pytest.fail("a clock was asked"))
    assert {choose_device("cpu").autocast_dtype for _ in range(5)} == {torch.bfloat16}


def test_the_device_line_of_a_result_says_the_precision_and_why(he_slide, tiny_model, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    processor(monkeypatch, amx=False)
    result = score_slide(he_slide, tiny_model, device="cpu")
    assert result.device == (
        "cpu (chosen by the user); features in float32: this processor computes bfloat16 no faster"
    )
    monkeypatch.setenv(VARIABLE, "bfloat16")
    forced = score_slide(he_slide, tiny_model, device="cpu").device
    assert forced == "cpu (chosen by the user); features in bfloat16: chosen by the user"


def test_a_model_that_learnt_in_bfloat16_warns_where_that_is_no_longer_chosen(
    he_slide, tmp_path, monkeypatch
):
    monkeypatch.delenv(VARIABLE, raising=False)
    processor(monkeypatch, amx=False)
    model = make_bundle(tmp_path / "tiny.safetensors", precision="bfloat16")
    (warning,) = [text for text in score_slide(he_slide, model, device="cpu").warnings if "learnt" in text]
    assert warning == (
        "The model learnt from features computed in bfloat16, those of this slide were computed in float32: "
        "probabilities may differ a little. To have them alike, set NAPARI_HER2_PRECISION to bfloat16, which "
        "may be slower here."
    )
    monkeypatch.setenv(VARIABLE, "bfloat16")
    assert not [text for text in score_slide(he_slide, model, device="cpu").warnings if "learnt" in text]


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    ("wanted", "dtype"),
    [
        ("float32", None),
        ("bfloat16", torch.bfloat16),
        (" BFloat16 ", torch.bfloat16),
        ("", None),
        ("auto", None),
    ],
)
def test_what_is_forced_is_taken_on_any_processor(wanted, dtype, native, monkeypatch):
    processor(monkeypatch, amx=native)
    monkeypatch.setenv(VARIABLE, wanted)
    left_to_the_processor = wanted in ("", "auto")
    expected = torch.bfloat16 if left_to_the_processor and native else dtype
    device = choose_device("cpu")
    assert device.autocast_dtype is expected
    assert device.insisted == ("bfloat16" in wanted.lower())


@pytest.fixture
def rounded_float32():
    """PyTorch may round float32 to TF32; afterwards as it was."""
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = True
    yield
    for place, allowed in zip(places, before, strict=True):
        place.allow_tf32 = allowed


@pytest.mark.parametrize(
    ("wanted", "dtype"), [("auto", torch.float16), ("float32", None), ("bfloat16", torch.bfloat16)]
)
def test_what_is_forced_is_taken_on_a_gpu_and_float32_is_not_rounded_there(
    wanted, dtype, monkeypatch, rounded_float32
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Test")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: torch.ones(1))
    monkeypatch.setenv(VARIABLE, wanted)
    assert choose_device("cuda").autocast_dtype is dtype
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_an_apple_gpu_refuses_what_it_does_not_offer(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setenv(VARIABLE, "bfloat16")
    with pytest.raises(JobFailed, match="not offered on an Apple GPU"):
        choose_device("mps")
    monkeypatch.setenv(VARIABLE, "float32")
    assert choose_device("mps").autocast_dtype is None


# Each of the two measures alone passes what the other sees.
TURNED = ([[100.0, 0.0], [1.0, 0.0]], [[100.0, 0.0], [0.0, 1.0]])  # cosine 0, error 1 %
STRETCHED = ([[100.0, 0.0], [1.0, 0.0]], [[150.0, 0.0], [1.5, 0.0]])  # cosine 1, error 50 %


@pytest.mark.parametrize(("exact", "rough"), [TURNED, STRETCHED])
def test_lower_precision_must_agree_in_direction_and_in_size(exact, rough):
    cpu = Device(torch.device("cpu"), "cpu (test)", "test", torch.bfloat16)
    runner = EncoderRunner(encoder_of(TwoWays(exact, rough)), cpu)
    assert runner.precision == "float32"
    assert "differs too much" in runner.note
    with pytest.raises(
        JobFailed, match=f"bfloat16 was asked for .{VARIABLE}.*differs too much.*auto or float32"
    ):
        EncoderRunner(encoder_of(TwoWays(exact, rough)), replace(cpu, insisted=True))


@pytest.fixture(scope="module")
def of_pixels(tmp_path_factory):
    """Models that score tiles, patches and small images."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "fields": make_field_bundle(folder / "fields.safetensors"),
        "patches": make_patch_bundle(folder / "patches.safetensors"),
        "low-resolution": make_low_resolution_bundle(folder / "low.safetensors"),
    }


def slide_for(model, pair):
    return pair.ihc if load_bundle(model).card.stain == "IHC" else pair.he


@pytest.mark.parametrize("kind", ["fields", "patches", "low-resolution"])
def test_scores_of_pixels_are_float32_whatever_is_asked(kind, of_pixels, small_pair, monkeypatch):
    model = of_pixels[kind]
    found = {}
    for wanted in ("float32", "bfloat16"):
        monkeypatch.setenv(VARIABLE, wanted)
        found[wanted] = score_slide(slide_for(model, small_pair), model, device="cpu", override_fit=True)
        assert found[wanted].precision == "float32"
    assert list(found["bfloat16"].probabilities.values()) == pytest.approx(
        list(found["float32"].probabilities.values()), abs=1e-6
    )
    for tiles in (found["bfloat16"].table.probabilities, found["float32"].table.probabilities):
        assert (tiles is None) == (kind == "low-resolution")
    if kind != "low-resolution":
        np.testing.assert_allclose(
            found["bfloat16"].table.probabilities, found["float32"].table.probabilities, atol=1e-6
        )


@pytest.mark.parametrize("kind", ["fields", "patches", "low-resolution", "bag"])
def test_scores_are_float32_also_where_the_caller_computes_in_less(
    kind, of_pixels, small_pair, tmp_path, monkeypatch
):
    monkeypatch.setenv(VARIABLE, "float32")
    model = of_pixels.get(kind) or make_mil_bundle(tmp_path / "mil.safetensors", "transmil")
    found = []
    for around in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        with around:
            result = score_slide(
                slide_for(model, small_pair), model, device="cpu", override_fit=True, cache=False
            )
        found.append(result)
    exact, inside = found
    assert list(inside.probabilities.values()) == pytest.approx(list(exact.probabilities.values()), abs=1e-6)
    if exact.uncertainty is not None:
        np.testing.assert_allclose(inside.uncertainty.sd, exact.uncertainty.sd, atol=1e-6)


def test_grad_cam_is_float32_also_where_the_caller_computes_in_less(of_pixels):
    model = load_bundle(of_pixels["fields"]).head
    fields = torch.rand(2, 3, model.field_px, model.field_px, generator=torch.Generator().manual_seed(0))
    exact = grad_cam(model, fields, 1, "backbone.blocks.2")
    with torch.autocast("cpu", torch.bfloat16):
        inside = grad_cam(model, fields, 1, "backbone.blocks.2")
    assert float(exact.max()) > 0
    torch.testing.assert_close(inside, exact, rtol=0, atol=1e-6 * float(exact.max()))


def test_the_result_says_the_precision_of_its_features(he_slide, tiny_model, precision):
    result = score_slide(he_slide, tiny_model, device="cpu")
    assert result.precision == precision
    assert result_values(result)["precision"] == precision
    assert not [text for text in result.warnings if "computed in" in text]  # the card says nothing


@pytest.mark.parametrize("learnt", ["float32", "bfloat16", "float16"])
def test_another_precision_than_that_of_training_is_warned_of(learnt, precision, he_slide, tmp_path):
    model = make_bundle(tmp_path / "tiny.safetensors", precision=learnt)
    result = score_slide(he_slide, model, device="cpu")
    told = [text for text in result.warnings if "learnt from features computed in" in text]
    assert len(told) == (learnt != precision)
    for text in told:
        assert f"computed in {learnt}" in text
        assert f"computed in {precision}" in text
        assert (f"set {VARIABLE} to {learnt}" in text) == (learnt != "float16")


def test_a_result_in_another_forced_precision_is_not_finished(he_slide, tiny_model, tmp_path, monkeypatch):
    bundle = load_bundle(tiny_model)
    job = ScoreJob(Case(he_slide), tmp_path, device="cpu", skip_finished=True)

    def state():
        steps = job.steps(bundle)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value.state

    monkeypatch.delenv(VARIABLE, raising=False)
    assert [state(), state()] == ["done", "skipped"]
    for forced in ("float32", "bfloat16"):
        monkeypatch.setenv(VARIABLE, forced)
        assert [state(), state()] == ["done", "skipped"]
    kept = json.loads((tmp_path / he_slide.stem / "result.json").read_text(encoding="utf-8"))
    assert kept["precision"] == "bfloat16"
