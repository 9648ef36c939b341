"""The display pyramid: sizes, chunks, appended levels and lazy decoding."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2 import open_slide
from napari_her2.slide.pyramid import HalvedLevel, LevelArray, dask_pyramid
from napari_her2.slide.sources import FileTiles
from napari_her2.slide.store import RecentBlocks, RecentTiles


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("cmu1_small_region.svs", [(2967, 2220), (1483, 1110), (741, 555)]),
        ("tcga_cr_7395_no_mpp.svs", [(3567, 4443), (1783, 2221), (891, 1110), (445, 555)]),
        ("camelyon_node_jpeg.dcm", [(700, 1152), (350, 576)]),
    ],
)
def test_levels_go_down_to_an_overview_in_chunks_of_1024(shared_data, name, shapes):
    with open_slide(shared_data / "slides" / name) as slide:
        pyramid = slide.pyramid()
    assert [level.shape for level in pyramid] == [(*shape, 3) for shape in shapes]
    assert all(level.dtype == np.uint8 for level in pyramid)
    assert pyramid[0].chunksize == (min(1024, shapes[0][0]), min(1024, shapes[0][1]), 3)


def test_the_first_level_is_the_slide_and_appended_ones_are_its_means(shared_data):
    with open_slide(shared_data / "slides" / "cmu1_small_region.svs") as slide:
        pyramid = slide.pyramid()
        whole = slide.read(0, 0, 0, *slide.shape)
        assert np.array_equal(pyramid[0].compute(), whole)
        means = whole[:2966, :2220].reshape(1483, 2, 1110, 2, 3).mean(axis=(1, 3))
        half = pyramid[1].compute()
        assert np.abs(half - means).max() <= 0.51
        quarter = half[:1482].reshape(741, 2, 555, 2, 3).mean(axis=(1, 3))
        assert np.abs(pyramid[2].compute() - quarter).max() <= 0.51


def test_one_chunk_decodes_only_its_own_tiles(shared_data, monkeypatch):
    decoded: set[tuple[int, int]] = set()
    lock = threading.Lock()
    original = FileTiles.tile

    def noting(self, row, col):
        with lock:
            decoded.add((row, col))
        return original(self, row, col)

    monkeypatch.setattr(FileTiles, "tile", noting)
    with open_slide(shared_data / "slides" / "cmu1_small_region.svs") as slide:
        decoded.clear()  # opening tries a tile
        array = slide.pyramid()[0]
        assert not decoded
        array[1024:2048, 1024:2048].compute()
    assert decoded == {(row, col) for row in range(4, 9) for col in range(4, 9)}


def test_the_name_of_the_arrays_is_stable(shared_data):
    path = shared_data / "slides" / "cmu1_small_region.svs"
    with open_slide(path) as first, open_slide(path) as second:
        assert [a.name for a in first.pyramid()] == [a.name for a in second.pyramid()]


class Plain:
    """A level in memory."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.shape = pixels.shape

    def window(self, y: int, x: int, height: int, width: int) -> np.ndarray:
        assert y >= 0
        assert x >= 0
        assert y + height <= self.shape[0]
        assert x + width <= self.shape[1]
        return self.pixels[y : y + height, x : x + width]


PIXELS = np.random.default_rng(0).integers(0, 255, (2301, 2590, 3)).astype(np.uint8)
INDEX = st.one_of(st.integers(-2301, 2300), st.slices(2301))


@settings(max_examples=60, deadline=None)
@given(y=INDEX, x=INDEX, channel=st.one_of(st.integers(-3, 2), st.slices(3)))
def test_an_array_is_indexed_like_numpy(y, x, channel):
    array = LevelArray(Plain(PIXELS), lambda: None)
    assert np.array_equal(array[y, x, channel], PIXELS[y, x, channel])
    assert np.array_equal(array[..., channel][y], PIXELS[..., channel][y])
    assert np.array_equal(array[y], PIXELS[y])


class Counting(Plain):
    """A level in memory that counts what is read of it."""

    def __init__(self, pixels: np.ndarray) -> None:
        super().__init__(pixels)
        self.read = 0

    def window(self, y: int, x: int, height: int, width: int) -> np.ndarray:
        self.read += 1
        return super().window(y, x, height, width).copy()


def test_blocks_that_were_shown_are_read_once_and_the_pixels_are_right():
    level = Counting(PIXELS)
    fine, coarse = dask_pyramid((level, Counting(PIXELS[:900, :900])), lambda: None, "slide")
    for _ in range(3):
        assert np.array_equal(fine[1000:2000, 10:900].compute(), PIXELS[1000:2000, 10:900])
    assert level.read == 2
    assert np.array_equal(coarse.compute(), PIXELS[:900, :900])
    assert np.array_equal(fine[:900, :900].compute(), PIXELS[:900, :900])


def test_the_blocks_kept_are_bounded_and_those_seen_last_stay():
    kept = RecentBlocks(100)
    for number in range(10):
        kept.put((number,), np.zeros(30, np.uint8))
        assert kept.get((0,)) is not None  # looked at again and again
        assert kept.nbytes <= 100
    assert [number for number in range(10) if kept.get((number,)) is not None] == [0, 8, 9]
    kept.put((11,), np.zeros(101, np.uint8))
    assert kept.get((11,)) is None
    kept.put((9,), np.zeros(20, np.uint8))
    assert kept.nbytes == 80


def test_what_was_shown_of_a_slide_goes_with_its_arrays():
    level = Counting(PIXELS)
    arrays = dask_pyramid((level,), lambda: None, "slide")
    arrays[0][:1024, :1024].compute()
    gone = weakref.ref(level)
    del arrays, level
    gc.collect()
    assert gone() is None


def test_any_window_of_an_appended_level_from_many_threads():
    level = HalvedLevel(Plain(PIXELS))
    means = PIXELS[:2300].reshape(1150, 2, 1295, 2, 3).mean(axis=(1, 3))
    rng = np.random.default_rng(2)
    places = np.stack([rng.integers(0, 1050, 40), rng.integers(0, 1195, 40)], axis=1).tolist()

    def right(place):
        y, x = place
        return np.abs(level.window(y, x, 100, 100) - means[y : y + 100, x : x + 100]).max() <= 0.51

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, places))


def test_a_thumbnail_is_the_area_average(tmp_path):
    image = np.random.default_rng(1).integers(0, 255, (400, 600, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(64, 64), photometric="rgb")
    with open_slide(tmp_path / "a.tif") as slide:
        means = image.reshape(100, 4, 150, 4, 3).mean(axis=(1, 3))
        assert np.abs(slide.thumbnail(150) - means).max() <= 0.51
        assert np.array_equal(slide.thumbnail(4000), image)
        assert slide.thumbnail(1).shape == (1, 1, 3)


def test_neighbouring_chunks_share_the_tiles_on_their_border(shared_data, monkeypatch):
    decoded: list[tuple[int, int]] = []
    original = FileTiles.tile
    monkeypatch.setattr(FileTiles, "tile", lambda self, r, c: decoded.append((r, c)) or original(self, r, c))
    with open_slide(shared_data / "slides" / "cmu1_small_region.svs") as slide:
        decoded.clear()  # opening tries a tile
        slide.pyramid()[0].compute()
    assert len(decoded) == len(set(decoded)) == 13 * 10


def test_the_tiles_kept_for_neighbours_are_bounded():
    source = FileTilesOfOneColour()
    recent = RecentTiles(source, max_bytes=5 * 4 * 4 * 3)
    for number in range(40):
        assert (recent.tile(0, number % 9) == number % 9).all()
        assert len(recent) <= 5
    source.asked.clear()
    recent.tile(0, 39 % 9)
    assert not source.asked


class FileTilesOfOneColour:
    shape = (4, 400)
    tile_shape = (4, 4)

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def tile(self, row: int, col: int) -> np.ndarray:
        self.asked.append((row, col))
        return np.full((4, 4, 3), col, np.uint8)
