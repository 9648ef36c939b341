"""Tiles decoded beside the processor: the library that does it on a GPU, here with its decoder for CPUs."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import simplejpeg
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_her2 import open_slide
from napari_her2.errors import JobFailed
from napari_her2.inference import gpu_jpeg, gpu_tiles
from napari_her2.inference.device import Device
from napari_her2.inference.embed import count_embedded, embed_steps
from napari_her2.inference.encode import EncoderRunner
from napari_her2.inference.gpu_jpeg import NVJPEG, decode_pictures, decoding_words, gpu_decodes
from napari_her2.inference.gpu_tiles import agrees, gpu_windows, square_reader
from napari_her2.models.bundle import load_bundle
from napari_her2.slide.files import DamagedTile
from napari_her2.slide.resample import padded_size, resampled, resampling_weights, window_size
from napari_her2.steps import finished
from tiff_pictures import picture

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
EXACT = Device(CPU, "cpu", "", None)


@pytest.fixture(scope="module", autouse=True)
def _library() -> None:
    pytest.importorskip("nvidia.nvimgcodec", reason="nvImageCodec is not installed")


@pytest.fixture
def on_the_gpu(monkeypatch):
    """What is decided for a GPU is decided for the CPU in its place."""
    monkeypatch.setattr(gpu_tiles, "gpu_decodes", lambda device: True)


def written(path, subsampling=(2, 2), **layout):
    """A tiled slide of 700 x 900 px at 0.5 µm/px."""
    layout = {"compression": "jpeg", "compressionargs": {"level": 85}, "tile": (128, 128)} | layout
    resolution = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(
        path, picture(700, 900), photometric="rgb", subsampling=subsampling, **layout, **resolution
    )
    return path


def on_both(slide, places, tile_px, mpp, sizes):
    plan = slide.plan(places, tile_px=tile_px, mpp=mpp)
    theirs = list(gpu_windows(plan, CPU, batch_size=sizes, threads=2))
    ours = list(slide.squares(places, tile_px=tile_px, mpp=mpp, batch_size=sizes, threads=1))
    assert len(theirs) == len(ours) == len(sizes)
    return zip(theirs, ours, strict=True)


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_pictures_are_decoded_as_the_processor_decodes_them(subsampling):
    picked = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(picture(60 + at, 90)), 85, colorsubsampling=subsampling)
        for at in range(3)
    ]
    found = decode_pictures([*picked, picked[0][: len(picked[0]) // 2]], CPU)
    for one, data in zip(found, picked, strict=False):
        np.testing.assert_array_equal(one.numpy(), simplejpeg.decode_jpeg(data))
    assert found[-1] is None


@pytest.mark.parametrize("name", ["cmu1_small_region.svs", "os1_he.ome.tif"])
def test_real_slides_are_decoded_alike(shared_data, name):
    """Their tiles hold Y, Cb and Cr, or R, G and B without saying so."""
    with open_slide(shared_data / "slides" / name) as slide:
        places = np.argwhere(np.ones((3, 3), np.bool_)) + 0.4
        assert agrees(slide.plan(places, tile_px=200, mpp=slide.mpp[0]), CPU)
        for theirs, ours in on_both(slide, places, 200, slide.mpp[0], [4, 5]):
            np.testing.assert_array_equal(theirs.images.numpy(), ours.images)


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.6, 3.3),
    tile_px=st.integers(17, 90),
    start=st.tuples(st.floats(0, 1.5), st.floats(0, 1.5)),
)
def test_windows_are_those_of_the_processor_at_any_scale(tmp_path_factory, scale, tile_px, start):
    path = tmp_path_factory.getbasetemp() / "any-scale.tif"
    if not path.exists():
        written(path)
    with open_slide(path) as slide:
        places = np.argwhere(np.ones((2, 3), np.bool_)) + np.asarray(start)
        for theirs, ours in on_both(slide, places, tile_px, 0.5 * scale, [2, 4]):
            assert theirs.images.dtype == torch.uint8
            np.testing.assert_allclose(theirs.images.numpy().astype(int), ours.images, atol=1)
            np.testing.assert_array_equal(theirs.number, ours.number)


def test_at_the_slides_own_resolution_nothing_is_resampled(tmp_path):
    with open_slide(written(tmp_path / "own.tif")) as slide:
        grid = slide.tile_grid(96, 0.5)
        places = np.argwhere(np.ones(grid.shape, np.bool_))
        for theirs, ours in on_both(slide, places, 96, 0.5, [20, len(places) - 20]):
            np.testing.assert_array_equal(theirs.images.numpy(), ours.images)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(5, 60), scale=st.floats(0.4, 4.0), seed=st.integers(0, 99))
def test_weights_make_what_is_resampled(size, scale, seed):
    if abs(scale - 1) < 1e-3:
        scale = 1.0
    length = window_size((size, size), (scale, scale))[0]
    padded = padded_size((length, length), (scale, scale))
    window = np.full((*padded, 3), 255, np.uint8)
    window[:length, :length] = np.random.default_rng(seed).integers(0, 256, (length, length, 3), np.uint8)
    weights = resampling_weights(length, scale, size)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    pixels = window[:length, :length].astype(float)
    made = np.einsum("yh,hwc,xw->yxc", weights, pixels, weights, optimize=True)
    expected = resampled(window, (scale, scale), (size, size)).astype(float)
    inside = (
        slice(0, size - 1) if scale < 1 else slice(None)
    )  # enlarged, the last pixel looks behind the window
    np.testing.assert_allclose(made[inside, inside], expected[inside, inside], atol=1.01)


def test_damage_is_found_and_reported_as_ever(damaged_slide):
    with open_slide(damaged_slide) as slide:
        grid = slide.tile_grid(96, 0.5)
        places = np.argwhere(np.ones(grid.shape, np.bool_))
        lost = 0
        for theirs, ours in on_both(slide, places, 96, 0.5, [100, 100, len(places) - 200]):
            np.testing.assert_array_equal(theirs.images.numpy(), ours.images)
            np.testing.assert_array_equal(theirs.corrupt, ours.corrupt)
            lost += len(ours.corrupt)
    assert lost


@pytest.mark.parametrize("cut", [0.3, 0.7, 0.95])
def test_a_tile_that_is_not_whole_is_no_picture(tmp_path, cut):
    path = written(tmp_path / "cut.tif")
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[3], file.pages[0].databytecounts[3]
    with path.open("r+b") as file:
        file.seek(offset + int(count * cut))
        file.write(bytes(count - int(count * cut)))
    with open_slide(path) as slide:
        source = slide.plan(np.zeros((1, 2)), tile_px=96, mpp=0.5).source
        with pytest.raises(DamagedTile):
            source.tile(0, 3)
        with pytest.raises(DamagedTile, match="Copy the slide again"):
            source.jpeg(0, 3)
        assert Image.open(io.BytesIO(source.jpeg(0, 2))).size == (128, 128)


def test_memory_that_is_too_short_is_said_with_the_remedy(tmp_path, monkeypatch):
    def short(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(gpu_tiles, "decode_pictures", short)
    with open_slide(written(tmp_path / "short.tif")) as slide:
        plan = slide.plan(np.zeros((1, 2)), tile_px=96, mpp=0.5)
        with pytest.raises(JobFailed, match=f"set {gpu_jpeg.VARIABLE} to cpu"):
            next(gpu_windows(plan, CPU, batch_size=[1]))


def test_what_nvjpeg_refuses_the_processor_decodes(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_tiles, "decode_pictures", lambda pictures, device: [None] * len(pictures))
    with open_slide(written(tmp_path / "refused.tif")) as slide:
        places = np.argwhere(np.ones((2, 2), np.bool_))
        for theirs, ours in on_both(slide, places, 96, 0.5, [4]):
            np.testing.assert_array_equal(theirs.images.numpy(), ours.images)


def test_a_slide_whose_colours_come_out_otherwise_is_left_to_the_processor(tmp_path, monkeypatch, on_the_gpu):
    def confused(pictures, device):
        return [image.flip(2) for image in decode_pictures(pictures, device)]

    with open_slide(written(tmp_path / "slide.tif")) as slide:
        grid = slide.tile_grid(96, 0.5)
        keep = np.ones(grid.shape, np.bool_)
        assert square_reader(slide, grid, keep, CPU).name == NVJPEG
        monkeypatch.setattr(gpu_tiles, "decode_pictures", confused)
        reader = square_reader(slide, grid, keep, CPU)
        assert reader.squares is None
        assert reader.name == ""
        assert "the processor decodes" in reader.note


@pytest.mark.parametrize("layout", [{"compression": None}, {"compression": "jpeg2000"}])
def test_a_slide_without_jpeg_is_left_to_the_processor(tmp_path, on_the_gpu, layout):
    path = written(tmp_path / "plain.tif", subsampling=None, compressionargs=None, **layout)
    with open_slide(path) as slide:
        grid = slide.tile_grid(96, 0.5)
        assert square_reader(slide, grid, np.ones(grid.shape, np.bool_), CPU).squares is None
        assert square_reader(slide, grid, np.zeros(grid.shape, np.bool_), CPU).note == ""


def test_tiles_that_were_never_stored_are_white_as_ever(tmp_path):
    path = written(tmp_path / "sparse.tif")
    with tifffile.TiffFile(path) as file:
        tags = [file.pages[0].tags[code] for code in (324, 325)]
    with path.open("r+b") as file:
        for tag in tags:
            file.seek(tag.valueoffset + 9 * struct.calcsize("<H" if tag.dtype == 3 else "<I"))
            file.write(struct.pack("<H" if tag.dtype == 3 else "<I", 0))
    with open_slide(path) as slide:
        places = np.argwhere(np.ones((4, 5), np.bool_))
        assert agrees(slide.plan(places, tile_px=128, mpp=0.5), CPU)
        for theirs, ours in on_both(slide, places, 128, 0.5, [20]):
            np.testing.assert_array_equal(theirs.images.numpy(), ours.images)
        assert (ours.images[6] == 255).all()  # row 1, column 1; the file has eight tiles in a row


def test_features_are_the_same_and_kept_apart(he_slide, tiny_model, monkeypatch):
    bundle = load_bundle(tiny_model)
    with open_slide(he_slide) as slide:
        grid = slide.tile_grid(bundle.card.tile_px, bundle.card.mpp)
        keep = slide.tissue("auto").keep(grid)
        before = finished(embed_steps(slide, bundle.encoder, grid, keep, EXACT))
        monkeypatch.setattr(gpu_tiles, "gpu_decodes", lambda device: True)
        runner = EncoderRunner(bundle.encoder, EXACT)
        fingerprint = bundle.encoder.fingerprint()
        assert count_embedded(slide, runner, grid, keep, fingerprint=fingerprint) == 0
        after = finished(embed_steps(slide, bundle.encoder, grid, keep, EXACT))
        assert after.cached == 0
        assert count_embedded(slide, runner, grid, keep, fingerprint=fingerprint) == len(after.index)
        assert finished(embed_steps(slide, bundle.encoder, grid, keep, EXACT)).cached == len(after.index)
    np.testing.assert_array_equal(before.index, after.index)
    np.testing.assert_allclose(before.features.astype(float), after.features, atol=0.02)
    assert NVJPEG in after.graph
    assert NVJPEG in after.note
    assert NVJPEG not in before.graph


def test_who_decodes_is_said_and_chosen(monkeypatch):
    monkeypatch.delenv(gpu_jpeg.VARIABLE, raising=False)
    assert not gpu_decodes(CUDA)
    assert gpu_jpeg.VARIABLE in decoding_words(CUDA)
    assert decoding_words(CPU) == "by the processor"
    monkeypatch.setenv(gpu_jpeg.VARIABLE, " GPU ")
    assert gpu_decodes(CUDA)
    assert not gpu_decodes(CPU)
    assert decoding_words(CUDA).startswith("by the GPU")
    monkeypatch.setenv(gpu_jpeg.VARIABLE, "fpga")
    with pytest.raises(JobFailed, match=r"no decoder of JPEG 'fpga'.*cpu, gpu"):
        gpu_decodes(CPU)


def test_a_library_that_is_missing_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setenv(gpu_jpeg.VARIABLE, "gpu")
    monkeypatch.setattr(gpu_jpeg, "find_spec", lambda name: None)
    with pytest.raises(JobFailed, match=r"napari-her2\[nvjpeg\]"):
        gpu_decodes(CUDA)
    assert "not installed" in decoding_words(CUDA)
