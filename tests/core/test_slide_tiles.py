"""The tile stream: places, scale, kernel, order and batches, against numpy and OpenSlide."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from napari_her2.slide.resample import choose_level
from napari_her2.slide.sources import FileTiles

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (517, 701)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    rng = np.random.default_rng(3)
    smooth = rng.integers(0, 255, (SHAPE[0] // 8 + 2, SHAPE[1] // 8 + 2, 3)).repeat(8, 0).repeat(8, 1)
    noise = rng.integers(-20, 20, (*SHAPE, 3))
    return np.clip(smooth[: SHAPE[0], : SHAPE[1]] + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def stored(pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lossless tiled TIFF at 0.25 µm/px."""
    path = tmp_path_factory.mktemp("slides") / "stored.tif"
    resolution = (1e4 / 0.25, 1e4 / 0.25)
    tifffile.imwrite(
        path,
        pixels,
        tile=(96, 112),
        compression="deflate",
        photometric="rgb",
        resolution=resolution,
        resolutionunit="CENTIMETER",
    )
    return path


def box_filter(pixels: np.ndarray, scale: float, size: int) -> np.ndarray:
    """Area average by exact integration: cumulative sums, interpolated at the borders of each pixel."""
    result = pixels.astype(np.float64)
    for axis in (0, 1):
        sums = np.insert(np.cumsum(result, axis), 0, 0, axis)
        edges = np.arange(size + 1) * scale
        low = np.minimum(np.floor(edges).astype(int), sums.shape[axis] - 2)
        part = np.expand_dims(edges - low, tuple(a for a in range(3) if a != axis))
        at = sums.take(low, axis) * (1 - part) + sums.take(low + 1, axis) * part
        result = np.diff(at, axis=axis) / scale
    return result


def all_tiles(slide, **arguments):
    batches = list(slide.tiles(tissue_only=False, **arguments))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.index for b in batches]), batches


def test_tiles_at_the_slides_own_resolution_are_its_pixels(stored, pixels):
    with open_slide(stored) as slide:
        images, index, batches = all_tiles(slide, tile_px=50, mpp=0.25, batch_size=7)
    assert index.tolist() == [[row, col] for row in range(10) for col in range(14)]
    for image, (row, col) in zip(images, index.tolist(), strict=True):
        assert np.array_equal(image, pixels[row * 50 : row * 50 + 50, col * 50 : col * 50 + 50])
    origins = np.concatenate([batch.origins_px0 for batch in batches])
    assert np.array_equal(origins, index * 50)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_whole_factors_are_plain_means(stored, pixels, factor):
    with open_slide(stored) as slide:
        images, index, _ = all_tiles(slide, tile_px=32, mpp=0.25 * factor)
    side = 32 * factor
    assert len(index) == (SHAPE[0] // side) * (SHAPE[1] // side)
    for image, (row, col) in zip(images, index.tolist(), strict=True):
        window = pixels[row * side : (row + 1) * side, col * side : (col + 1) * side].astype(float)
        mean = window.reshape(32, factor, 32, factor, 3).mean(axis=(1, 3))
        assert np.abs(image - mean).max() <= 0.51


@settings(max_examples=15, deadline=None)
@given(tile_px=st.integers(8, 90), scale=st.floats(1.01, 4.5), threads=st.integers(1, 3))
def test_any_scale_is_the_exact_area_average(stored, pixels, tile_px, scale, threads):
    with open_slide(stored) as slide:
        images, index, _ = all_tiles(slide, tile_px=tile_px, mpp=0.25 * scale, threads=threads)
    side = tile_px * scale
    # A slide smaller than a tile has none.
    assert len(images) == int(SHAPE[0] / side + 1e-9) * int(SHAPE[1] / side + 1e-9)
    for image, place in list(zip(images, index, strict=True))[:: max(1, len(images) // 6)]:
        y, x = np.rint(place * side).astype(int)
        need = int(np.ceil(side))
        y, x = min(y, SHAPE[0] - need), min(x, SHAPE[1] - need)
        expected = box_filter(pixels[y : y + need + 1, x : x + need + 1], scale, tile_px)
        assert np.abs(image - expected).max() <= 1.01


def test_a_slide_coarser_than_asked_for_is_enlarged_in_place(stored, pixels):
    with open_slide(stored) as slide:
        images, index, _ = all_tiles(slide, tile_px=64, mpp=0.125)
    image = images[(index == (3, 5)).all(axis=1)][0]
    expected = pixels[96:128, 160:192].astype(float)
    centres = (np.arange(64) + 0.5) / 2 - 0.5  # beyond the first and the last pixel np.interp repeats them
    for axis in (0, 1):
        expected = np.apply_along_axis(lambda line: np.interp(centres, np.arange(32), line), axis, expected)
    assert np.abs(image - expected).max() <= 1.01


def test_selected_tiles_come_alone_in_raster_order_in_full_batches(stored, pixels):
    keep = np.random.default_rng(0).random((10, 14)) < 0.3
    with open_slide(stored) as slide:
        batches = list(slide.tiles(tile_px=50, mpp=0.25, batch_size=8, keep=keep, threads=3))
    index = np.concatenate([batch.index for batch in batches])
    assert np.array_equal(index, np.argwhere(keep))
    assert {len(batch.images) for batch in batches[:-1]} == {8}
    assert len(batches[-1].images) == keep.sum() - 8 * (len(batches) - 1)
    assert all(batch.images.dtype == np.uint8 and not len(batch.corrupt) for batch in batches)


def test_the_stream_is_the_same_whatever_the_threads(stored):
    with open_slide(stored) as slide:
        one = [batch.images for batch in slide.tiles(tile_px=40, mpp=0.4, tissue_only=False, threads=1)]
        many = [batch.images for batch in slide.tiles(tile_px=40, mpp=0.4, tissue_only=False, threads=5)]
    assert all(np.array_equal(a, b) for a, b in zip(one, many, strict=True))


@pytest.mark.parametrize("threads", [1, 4])
def test_each_stored_tile_is_decoded_once_and_only_where_needed(stored, monkeypatch, threads):
    decoded: Counter[tuple[int, int]] = Counter()
    lock = threading.Lock()
    original = FileTiles.tile

    def counting(self, row, col):
        with lock:
            decoded[row, col] += 1
        return original(self, row, col)

    monkeypatch.setattr(FileTiles, "tile", counting)
    keep = np.zeros((10, 14), bool)
    keep[2:6, 3:9] = True  # pixels 100 to 300 down, 150 to 450 across
    with open_slide(stored) as slide:
        assert sum(len(b.images) for b in slide.tiles(tile_px=50, mpp=0.25, keep=keep, threads=threads)) == 24
    assert set(decoded) == {(row, col) for row in range(1, 4) for col in range(1, 5)}
    assert set(decoded.values()) == {1}


def test_the_store_of_decoded_tiles_stays_small(stored, monkeypatch):
    from napari_her2.slide import store

    held: list[int] = []
    original = store.TileStore.release

    def measuring(self, window):
        original(self, window)
        held.append(len(self))

    monkeypatch.setattr(store.TileStore, "release", measuring)
    with open_slide(stored) as slide:
        list(slide.tiles(tile_px=50, mpp=0.25, tissue_only=False, threads=1))
    # A row of the file is 7 tiles: never more than two of its 6 rows, and nothing is left.
    assert max(held) <= 14
    assert held[-1] == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_closing_the_stream_early_stops_the_work(stored, monkeypatch, threads):
    decoded: list[int] = []
    original = FileTiles.tile
    monkeypatch.setattr(FileTiles, "tile", lambda self, r, c: decoded.append(1) or original(self, r, c))
    with open_slide(stored) as slide:
        before = threading.active_count()
        stream = slide.tiles(tile_px=8, mpp=0.25, tissue_only=False, batch_size=4, threads=threads)
        next(stream)
        stream.close()
        done = len(decoded)
        assert threading.active_count() == before
        assert slide.read(0, 0, 0, 4, 4).shape == (4, 4, 3)
    assert done < 20  # of 42 stored tiles


def test_regions_are_cut_at_any_place_and_are_white_outside(stored, pixels):
    origins = np.array([[-10, -10], [100, 33], [500, 690]])
    around = np.pad(pixels, ((10, 50), (10, 50), (0, 0)), constant_values=255)
    with open_slide(stored) as slide:
        (batch,) = slide.regions(0, origins, (40, 30))
    assert batch.number.tolist() == [0, 1, 2]
    for image, (y, x) in zip(batch.images, origins.tolist(), strict=True):
        assert np.array_equal(image, around[y + 10 : y + 50, x + 10 : x + 40])


def test_unaligned_regions_equal_openslide_on_jpeg_and_jpeg2000(shared_data):
    openslide = pytest.importorskip("openslide", reason="the OpenSlide extra is not installed")
    for name in ("cmu1_small_region.svs", "tcga_cr_7395_no_mpp.svs"):
        path = shared_data / "slides" / name
        origins = np.argwhere(np.ones((4, 4), bool)) * 256 + 100
        with open_slide(path) as slide, openslide.OpenSlide(path) as other:
            images = np.concatenate([batch.images for batch in slide.regions(0, origins, (256, 256))])
            for image, (y, x) in zip(images, origins.tolist(), strict=True):
                theirs = np.asarray(other.read_region((x, y), 0, (256, 256)))[..., :3]
                assert np.array_equal(image, theirs)


@pytest.mark.parametrize(
    ("mpp", "level"),
    [(0.25, 0), (0.2, 0), (0.49, 0), (0.5, 1), (0.50001, 1), (0.4999, 1), (0.9, 1), (2.0, 2), (50.0, 2)],
)
def test_the_coarsest_level_that_is_fine_enough_is_read(mpp, level):
    assert choose_level((0.25, 0.25), ((1.0, 1.0), (2.0, 2.0005), (8.0, 8.0)), mpp)[0] == level


def test_a_jpeg2000_level_at_the_wanted_resolution_is_cropped_not_resampled(shared_data):
    path = shared_data / "slides" / "tcga_cr_7395_no_mpp.svs"
    with open_slide(path, mpp=0.25) as slide:
        keep = np.zeros(slide.tile_grid(100, 0.5).shape, bool)
        keep[9, 11] = True
        (batch,) = slide.tiles(tile_px=100, mpp=0.5, keep=keep)
        # Level 1 is 1 / 2.00056 (y) and 1 / 2.00045 (x): its pixel nearest to level-0 (1800, 2200).
        y, x = round(1800 * 1783 / 3567), round(2200 * 2221 / 4443)
        assert np.array_equal(batch.images[0], slide.read(1, y, x, 100, 100))


def test_a_slide_without_resolution_says_what_to_do(shared_data):
    with (
        open_slide(shared_data / "slides" / "tcga_cr_7395_no_mpp.svs") as slide,
        pytest.raises(SlideError, match=r"says no µm/px.*--mpp"),
    ):
        slide.tiles(tile_px=96, mpp=0.5)


def test_a_selection_for_another_grid_is_refused(stored):
    with open_slide(stored) as slide, pytest.raises(SlideError, match="grid"):
        slide.tiles(tile_px=50, mpp=0.25, keep=np.ones((3, 3), bool))


def test_a_slide_that_only_the_backend_can_decode_streams_the_same_tiles(pixels, tmp_path):
    path = tmp_path / "stripped.tif"
    tifffile.imwrite(
        path, pixels, rowsperstrip=64, photometric="rgb", resolution=(4e4, 4e4), resolutionunit="CENTIMETER"
    )
    with open_slide(path) as slide:
        images, index, _ = all_tiles(slide, tile_px=50, mpp=0.25, threads=2)
    for image, (row, col) in zip(images, index.tolist(), strict=True):
        assert np.array_equal(image, pixels[row * 50 : row * 50 + 50, col * 50 : col * 50 + 50])
