"""Which device is chosen, in what words, and what happens when memory runs out."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from napari_her2.errors import JobFailed, ModelError
from napari_her2.inference import encoder_way
from napari_her2.inference import precision as precision_module
from napari_her2.inference.device import Device, choose_device
from napari_her2.inference.encode import EncoderRunner
from napari_her2.inference.encoder_way import agreement
from napari_her2.models.card import EncoderSpec
from napari_her2.models.encoders import build_encoder
from napari_her2.models.patch_encoder import PatchEncoder
from napari_her2.models.shortage import is_out_of_memory

CPU = Device(torch.device("cpu"), "cpu (chosen by the test)", "chosen by the test")


class Pooled(nn.Module):
    """Mean colour of a tile; refuses more than ``limit`` tiles at once with ``error``."""

    def __init__(self, limit=10**9, error=None):
        super().__init__()
        self.limit, self.error, self.sizes = limit, error, []

    def forward(self, images):
        self.sizes.append(len(images))
        if len(images) > self.limit:
            raise self.error
        return images.mean(dim=(2, 3))


def small_encoder(backbone, tile_px=8):
    return PatchEncoder(EncoderSpec("pooled", tile_px, (0, 0, 0), (1, 1, 1), 3, "random"), backbone)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (37, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _nothing_compared_yet(monkeypatch):
    monkeypatch.setattr(encoder_way, "_compared", {})
    monkeypatch.delenv("NAPARI_HER2_PRECISION", raising=False)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA Test {device.index}")
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: (7, 5) if device.index else (8, 0)
    )
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: torch.ones(1))


@pytest.mark.usefixtures("no_gpu")
class TestWithoutGpu:
    def test_cpu_says_that_no_device_was_found(self, monkeypatch):
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        device = choose_device("auto")
        assert device.torch_device.type == "cpu"
        assert device.name == "cpu (no CUDA or MPS device found)"

    def test_cpu_says_that_pytorch_cannot_use_gpus(self, monkeypatch):
        monkeypatch.setattr(torch.version, "cuda", None)
        monkeypatch.setattr(torch.version, "hip", None)
        assert choose_device().name == "cpu (this PyTorch was built without CUDA)"

    def test_cpu_says_that_the_driver_does_not_fit(self, monkeypatch):
        def too_old():
            warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old", stacklevel=1)
            return False

        monkeypatch.setattr(torch.cuda, "is_available", too_old)
        assert choose_device().reason == "the NVIDIA driver does not fit this PyTorch"

    @pytest.mark.parametrize("wanted", ["cuda", "cuda:0", "mps"])
    def test_gpu_asked_for_by_name_is_not_replaced_silently(self, wanted):
        with pytest.raises(JobFailed, match=f"{wanted} was asked for.*device auto"):
            choose_device(wanted)

    def test_apple_gpu_is_used_where_it_is_found(self, monkeypatch):
        monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        assert choose_device().torch_device.type == "mps"
        assert choose_device("mps").autocast_dtype is None


@pytest.mark.usefixtures("two_gpus")
class TestWithGpus:
    def test_first_gpu_is_chosen_and_named(self):
        device = choose_device()
        assert (str(device.torch_device), device.name) == ("cuda:0", "cuda:0 (NVIDIA Test 0)")
        assert device.autocast_dtype is torch.bfloat16

    def test_older_gpu_computes_in_float16(self):
        device = choose_device("CUDA:1")
        assert (str(device.torch_device), device.autocast_dtype) == ("cuda:1", torch.float16)

    def test_gpu_that_is_not_there_is_refused(self):
        with pytest.raises(JobFailed, match="only 2 CUDA devices"):
            choose_device("cuda:2")

    def test_gpu_that_does_not_work_is_passed_over_with_the_reason(self, monkeypatch):
        def fail(*_, **__):
            raise RuntimeError("CUDA error: no kernel image is available\nfor execution on the device")

        monkeypatch.setattr(torch, "zeros", fail)
        device = choose_device()
        assert device.torch_device.type == "cpu"
        assert "no kernel image is available" in device.name
        assert "\n" not in device.name


@pytest.mark.parametrize("wanted", ["gpu", "cuda:x", "cuda:-1", "mps:0", "", "cpu:1"])
def test_unknown_device_is_refused_with_the_known_ones(wanted):
    with pytest.raises(JobFailed, match="use auto, cpu, cuda"):
        choose_device(wanted)


def test_cpu_without_amx_computes_in_float32(monkeypatch):
    monkeypatch.setattr(precision_module, "_has_amx", lambda: False)
    device = choose_device("cpu")
    assert device.autocast_dtype is None
    assert device.name == "cpu (chosen by the user)"


def test_features_are_those_of_the_encoder(images):
    features = EncoderRunner(small_encoder(Pooled()), CPU).run(images)
    assert features.dtype == np.float16
    np.testing.assert_allclose(features, images.mean((1, 2)) / 255, atol=1e-3)


def test_tiles_that_cannot_be_written_to_or_are_cut_out_are_encoded(images):
    runner = EncoderRunner(small_encoder(Pooled()), CPU)
    expected = runner.run(images[::2].copy())
    images.flags.writeable = False
    np.testing.assert_array_equal(runner.run(images[::2]), expected)


def test_no_tiles_give_no_features(images):
    assert EncoderRunner(small_encoder(Pooled()), CPU).run(images[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
)
def test_batch_is_halved_when_memory_runs_out_and_the_smaller_one_is_remembered(images, error):
    backbone = Pooled(limit=10, error=error)
    runner = EncoderRunner(small_encoder(backbone), CPU)
    np.testing.assert_allclose(runner.run(images), images.mean((1, 2)) / 255, atol=1e-3)
    assert backbone.sizes == [37, 18, 9, 9, 9, 9, 1]
    assert "memory was short: 9 tiles at once" in runner.note
    backbone.sizes.clear()
    runner.run(images)
    assert backbone.sizes == [9, 9, 9, 9, 1]
    assert runner.batch_limit == 9


def test_memory_too_short_for_one_tile_ends_with_advice(images):
    runner = EncoderRunner(small_encoder(Pooled(0, torch.OutOfMemoryError("CUDA out of memory"))), CPU)
    with pytest.raises(JobFailed, match="too short for a single tile: close other programs"):
        runner.run(images)


def test_encoder_that_does_not_fit_into_memory_ends_with_advice(monkeypatch):
    encoder = small_encoder(Pooled())

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(encoder, "to", fail)
    gpu = Device(torch.device("cuda", 0), "cuda:0 (NVIDIA Test)", "test")
    with pytest.raises(
        JobFailed, match=r"cuda:0 \(NVIDIA Test\) is too short for the encoder itself.*device cpu"
    ):
        EncoderRunner(encoder, gpu)


def test_other_errors_are_not_taken_for_shortage_of_memory(images):
    runner = EncoderRunner(
        small_encoder(Pooled(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))), CPU
    )
    with pytest.raises(RuntimeError, match="mat1"):
        runner.run(images)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_tiles_of_another_size_are_refused_as_such(images):
    with pytest.raises(ModelError, match="8 px"):
        EncoderRunner(small_encoder(Pooled()), CPU).run(images[:, :7])


def test_features_that_are_not_numbers_are_refused(images):
    class Broken(Pooled):
        def forward(self, images):
            return super().forward(images) * torch.nan

    with pytest.raises(JobFailed, match="not numbers"):
        EncoderRunner(small_encoder(Broken()), CPU).run(images)


def test_features_beyond_float16_are_cut_to_its_range(images):
    class Large(Pooled):
        def forward(self, images):
            return super().forward(images + 1) * 1e6

    assert (EncoderRunner(small_encoder(Large()), CPU).run(images) == np.finfo(np.float16).max).all()


class Rough(Pooled):
    """Gives something else under autocast, ``error`` times as large as the value itself."""

    def __init__(self, error):
        super().__init__()
        self.relative = error

    def forward(self, images):
        features = super().forward(images)
        if not torch.is_autocast_enabled("cpu"):
            return features
        # One colour alone: a common factor would not turn the vector.
        return torch.cat([features[:, :1] * (1 + self.relative), features[:, 1:]], dim=1)


@pytest.mark.parametrize(("error", "precision"), [(0.0, "bfloat16"), (0.01, "bfloat16"), (0.5, "float32")])
def test_lower_precision_is_used_only_where_it_agrees(error, precision):
    cpu = Device(torch.device("cpu"), "cpu (test)", "test", torch.bfloat16)
    runner = EncoderRunner(small_encoder(Rough(error)), cpu)
    assert runner.precision == precision
    assert runner.note.startswith(precision)
    assert ("differs too much" in runner.note) == (precision == "float32")


def test_precision_is_compared_once_for_the_same_encoder(images):
    cpu = Device(torch.device("cpu"), "cpu (test)", "test", torch.bfloat16)
    backbone = Rough(0.01)
    EncoderRunner(small_encoder(backbone), cpu)
    compared = len(backbone.sizes)
    assert compared == 2
    assert EncoderRunner(small_encoder(backbone), cpu).precision == "bfloat16"
    assert len(backbone.sizes) == compared
    backbone.register_buffer("other_weights", torch.ones(1))
    EncoderRunner(small_encoder(backbone), cpu)
    assert len(backbone.sizes) == 2 * compared


def test_lower_precision_that_does_not_work_is_left_out(images):
    class Refusing(Pooled):
        def forward(self, images):
            if torch.is_autocast_enabled("cpu"):
                raise RuntimeError("not implemented for 'BFloat16'")
            return super().forward(images)

    cpu = Device(torch.device("cpu"), "cpu (test)", "test", torch.bfloat16)
    runner = EncoderRunner(small_encoder(Refusing()), cpu)
    assert runner.precision == "float32"
    assert runner.run(images).shape == (37, 3)


def test_alexnet_in_bfloat16_agrees_with_float32():
    images = np.random.default_rng(3).integers(0, 256, (5, 96, 96, 3), dtype=np.uint8)
    encoder = build_encoder("alexnet", normalisation="imagenet")
    exact = encoder(torch.from_numpy(images)).numpy()
    runner = EncoderRunner(encoder, Device(torch.device("cpu"), "cpu (test)", "test", torch.bfloat16))
    assert runner.precision == "bfloat16"
    rough = runner.run(images).astype(np.float64)
    cosine = (rough * exact).sum(1) / np.linalg.norm(rough, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosine.min() > 0.999


def test_agreement_is_the_worst_tile_and_the_largest_error():
    exact = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    assert agreement(exact, exact) == (pytest.approx(1.0), 0.0)
    cosine, relative = agreement(exact, torch.tensor([[1.0, 0.0], [0.0, 1.5], [0.0, 0.0]]))
    assert (cosine, relative) == (pytest.approx(1.0), pytest.approx(0.25))
    cosine, _ = agreement(exact, torch.tensor([[1.0, 1.0], [0.0, 2.0], [0.0, 0.0]]))
    assert cosine == pytest.approx(np.sqrt(0.5))
    assert agreement(exact, exact * torch.inf) == (0.0, float("inf"))
    assert agreement(exact * 0, exact) == (0.0, float("inf"))
    assert agreement(exact * 0, exact * 0) == (1.0, 0.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_gives_what_the_cpu_gives():
    images = np.random.default_rng(3).integers(0, 256, (65, 96, 96, 3), dtype=np.uint8)
    encoder = build_encoder("alexnet", normalisation="imagenet")
    exact = encoder(torch.from_numpy(images)).numpy()
    runner = EncoderRunner(encoder, choose_device("cuda"))
    pending = [runner.submit(images[:33]), runner.submit(images[33:])]
    features = np.concatenate([part.result() for part in pending]).astype(np.float64)
    assert np.abs(features - exact).max() / np.abs(exact).max() < 0.05
