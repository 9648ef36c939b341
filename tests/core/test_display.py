"""Levels as arrays for a viewer: the right pixels, kept within bounds, decoded ahead of the movement."""

from __future__ import annotations

import copy
import gc
import os
import threading
import time
import weakref
from itertools import pairwise
from typing import TYPE_CHECKING

import dask.array
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from napari_her2.slide import display, stretches
from napari_her2.slide.display import DisplayTiles, display_levels, next_windows, tiles_of
from napari_her2.slide.pyramid import with_levels_between
from napari_her2.slide.store import ShownTiles

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 60.0
PIXELS = np.random.default_rng(0).integers(0, 255, (701, 935, 3)).astype(np.uint8)
INDEX = st.one_of(st.integers(-701, 700), st.slices(701))


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < end
        time.sleep(0.002)


class Plain:
    """A level in memory that notes which tiles are decoded."""

    tile_shape = (64, 96)

    def __init__(self, pixels: np.ndarray = PIXELS) -> None:
        self.pixels, self.shape = pixels, pixels.shape
        self.asked: list[tuple[int, int]] = []

    def window(self, y: int, x: int, height: int, width: int) -> np.ndarray:
        raise AssertionError("an array for a viewer takes tiles")

    def tile(self, row: int, col: int) -> np.ndarray:
        self.asked.append((row, col))
        height, width = self.tile_shape
        return self.pixels[row * height : (row + 1) * height, col * width : (col + 1) * width].copy()


def settled(tiles: DisplayTiles) -> None:
    until(lambda: not tiles.pending and not tiles.working)


@settings(max_examples=60, deadline=None)
@given(y=INDEX, x=INDEX, channel=st.one_of(st.integers(-3, 2), st.slices(3)))
def test_an_array_is_indexed_like_numpy(y, x, channel):
    (array,) = display_levels((Plain(),), lambda: None, "slide")
    assert np.array_equal(array[y, x, channel], PIXELS[y, x, channel])
    assert np.array_equal(array[..., channel][y], PIXELS[..., channel][y])


@pytest.fixture(scope="module", params=["cmu1_small_region.svs", "camelyon_node_jpeg.dcm", "os1_he.ome.tif"])
def opened(request, shared_data):
    with open_slide(shared_data / "slides" / request.param) as slide:
        lazy = slide.pyramid()
        stored = [level.shape for level in lazy]
        yield slide, [level for level in slide.display() if level.shape in stored], lazy


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_window_is_that_of_the_pyramid_and_of_the_slide(opened, data):
    slide, shown, lazy = opened
    level = data.draw(st.integers(0, len(shown) - 1))
    height, width = shown[level].shape[:2]
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = (
        data.draw(st.integers(y, min(y + 700, height))),
        data.draw(st.integers(x, min(x + 700, width))),
    )
    found = shown[level][y:bottom, x:right]
    assert np.array_equal(found, lazy[level][y:bottom, x:right].compute())
    if level < len(slide.level_shapes):
        assert np.array_equal(found, slide.read(level, y, x, bottom - y, right - x))


def test_between_levels_far_apart_one_is_averaged(shared_data):
    with open_slide(shared_data / "slides" / "cmu1_small_region.svs") as slide:
        levels = slide._levels()
        finest = np.asarray(slide.display()[0])
        apart = (levels[0], *levels[2:])  # the second is half of the first: without it they lie four apart
        between = with_levels_between(apart)
        assert [level.shape for level in between] == [level.shape for level in levels]
        assert between[0] is levels[0]
        assert between[2:] == levels[2:]
        shown = display_levels(between, lambda: None, "slide")[1]
        height, width = shown.shape[0] * 2, shown.shape[1] * 2
        parts = finest[:height, :width].reshape(shown.shape[0], 2, shown.shape[1], 2, 3)
        assert np.abs(np.asarray(shown) - parts.mean(axis=(1, 3))).max() <= 0.5
        assert np.array_equal(shown[301:777, 130:1000], np.asarray(shown)[301:777, 130:1000])


def test_levels_that_lie_near_stay_as_they_are(shared_data):
    with open_slide(shared_data / "slides" / "cmu1_small_region.svs") as slide:
        levels = slide._levels()
        assert with_levels_between(levels) == levels


@pytest.mark.parametrize(("apart", "between"), [(3, 0), (4, 1), (8, 2), (16, 3)])
def test_neighbours_are_three_apart_at_most(apart, between):
    fine, coarse = Plain(), Plain()
    fine.shape, coarse.shape = (9600, 4800, 3), (9600 // apart, 4800 // apart, 3)
    found = with_levels_between((fine, coarse))
    assert len(found) == 2 + between
    assert all(one.shape[0] <= 3 * other.shape[0] for one, other in pairwise(found))


def test_other_programs_take_it_as_an_array(opened):
    _, shown, lazy = opened
    whole = lazy[-1].compute()
    assert np.array_equal(np.asarray(shown[-1]), whole)
    assert np.asarray(shown[-1], np.float32).dtype == np.float32
    assert np.array_equal(dask.array.from_array(shown[-1]).compute(), whole)
    named = [dask.array.from_array(shown[-1], chunks=(256, 256, 3)) for _ in range(2)]
    assert named[0].name == named[1].name
    assert np.array_equal(named[0][3:90, 7:200].compute(), whole[3:90, 7:200])
    assert copy.deepcopy(shown)[0] is shown[0]
    assert (shown[0].size, len(shown[0]), shown[0].ndim) == (lazy[0].size, len(lazy[0]), 3)


def test_a_level_that_no_memory_holds_is_not_taken_whole():
    level = Plain()
    level.shape = (100_000, 100_000, 3)
    (array,) = display_levels((level,), lambda: None, "slide")
    with pytest.raises(ValueError, match="too large to take whole"):
        np.asarray(array)
    with pytest.raises(ValueError, match="always a copy"):
        np.array(array, copy=False)


def test_what_was_seen_is_not_decoded_again():
    level = Plain()
    (array,) = display_levels((level,), lambda: None, "slide")
    for _ in range(3):
        assert np.array_equal(array[100:300, 50:400], PIXELS[100:300, 50:400])
    assert sorted(level.asked) == [(row, col) for row in range(1, 5) for col in range(5)]


def test_more_than_can_be_kept_is_decoded_once_and_right(monkeypatch):
    monkeypatch.setattr(display, "_SHOWN_BYTES", 40 * 64 * 96 * 3)
    monkeypatch.setattr(display, "_THREADS_AHEAD", 0)  # whose tiles are counted too, if they come in time
    level = Plain()
    (array,) = display_levels((level,), lambda: None, "slide")
    assert np.array_equal(np.asarray(array), PIXELS)
    assert np.array_equal(array[3:, 5:], PIXELS[3:, 5:])
    assert len(level.asked) <= 2 * 11 * 10


def test_a_move_is_continued_before_it_happens():
    level = Plain()
    tiles = DisplayTiles((level,), lambda: None)
    tiles.window(0, (0, 0, 128, 192))
    tiles.window(0, (0, 96, 128, 192))
    settled(tiles)
    assert sorted(set(level.asked)) == [(row, col) for row in (0, 1) for col in range(4)]
    level.asked.clear()
    tiles.window(0, (0, 192, 128, 192))
    assert not {key for key in level.asked if key[1] < 4}


def test_the_same_move_again_a_zoom_again_and_nothing_after_a_jump():
    shapes = ((4000, 4000, 3), (2000, 2000, 3), (1000, 1000, 3))
    at = (1, (500, 600, 300, 400))
    assert next_windows(shapes, None, at) == []
    assert next_windows(shapes, (1, (500, 500, 300, 400)), at) == [(1, (500, 700, 300, 400))]
    assert next_windows(shapes, (1, (550, 550, 300, 400)), at) == [(1, (450, 650, 300, 400))]
    assert next_windows(shapes, (1, (500, 100, 300, 400)), at) == []
    assert next_windows(shapes, at, at) == []
    # Zooming in: the middle of the view, (650, 800) in level 1, is (1300, 1600) in level 0.
    assert next_windows(shapes, (2, (250, 300, 300, 400)), at) == [(0, (1150, 1400, 300, 400))]
    assert next_windows(shapes, (0, (1000, 1200, 300, 400)), at) == [(2, (175, 200, 300, 400))]
    assert next_windows(shapes, (1, (0, 0, 300, 400)), (0, (0, 0, 300, 400))) == []
    assert next_windows(shapes, (1, (1500, 1400, 300, 400)), (1, (1700, 1600, 300, 400))) == [
        (1, (1900, 1800, 100, 200))
    ]


def test_a_jump_forgets_what_was_wished_for(monkeypatch):
    monkeypatch.setattr(display, "_THREADS_AHEAD", 1)
    going, free = threading.Event(), threading.Event()

    class Waiting(Plain):
        def tile(self, row: int, col: int) -> np.ndarray:
            if col > 3 and row < 10:
                going.set()
                assert free.wait(SECONDS)
            return super().tile(row, col)

    level = Waiting()
    tiles = DisplayTiles((level,), lambda: None)
    tiles.window(0, (0, 0, 640, 288))
    tiles.window(0, (0, 96, 640, 288))
    assert going.wait(SECONDS)
    assert tiles.pending == 9  # of the column behind the view, the first is in work
    level.asked.clear()
    tiles.window(0, (640, 0, 60, 96))
    assert tiles.pending == 0
    free.set()
    settled(tiles)
    assert sorted(level.asked) == [(0, 4), (10, 0)]


def test_the_tiles_kept_are_bounded_and_those_seen_last_stay():
    asked: list[tuple[int, int, int]] = []

    def decode(*key: int) -> np.ndarray:
        asked.append(key)
        return np.zeros((4, 4, 3), np.uint8)

    kept = ShownTiles(decode, 5 * 48)
    for number in range(40):
        kept.tile(0, 0, 0)
        kept.tile(1, 0, number)
        assert kept.nbytes <= 5 * 48
    assert asked.count((0, 0, 0)) == 1
    assert [number for number in range(40) if kept.holds(1, 0, number)] == [36, 37, 38, 39]
    large = ShownTiles(decode, 10)
    large.tile(0, 0, 0)
    assert large.holds(0, 0, 0)


def test_one_tile_is_decoded_once_by_many_threads():
    level = Plain()
    tiles = DisplayTiles((level,), lambda: None)
    threads = [threading.Thread(target=tiles.window, args=(0, (0, 0, 700, 900))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(level.asked) == len(set(level.asked)) == len(tiles_of(level, 0, (0, 0, 700, 900)))


def test_what_was_shown_of_a_slide_goes_with_its_arrays():
    level = Plain()
    (array,) = display_levels((level,), lambda: None, "slide")
    _ = array[:300, :300]
    gone = weakref.ref(level)
    del array, level
    until(lambda: gc.collect() >= 0 and gone() is None)


def test_a_closed_slide_is_not_read_ahead_either(shared_data):
    with open_slide(shared_data / "slides" / "cmu1_small_region.svs") as slide:
        array = slide.display()[0]
        _ = array[:512, :512]
        _ = array[:512, 256:768]
    with pytest.raises(SlideError, match="closed"):
        _ = array[:10, :10]


def test_damage_is_drawn_and_noted(tmp_path, shared_data):
    whole = (shared_data / "slides" / "cmu1_small_region.svs").read_bytes()
    path = tmp_path / "cut.svs"
    with open_slide(shared_data / "slides" / "cmu1_small_region.svs") as slide:
        place = int(slide._backend.levels[0].offsets[22])
    path.write_bytes(whole[:place] + bytes(200) + whole[place + 200 :])
    with open_slide(path) as slide:
        array, lazy = slide.display()[0], slide.pyramid()[0]
        assert np.array_equal(array[300:700, 100:900], lazy[300:700, 100:900].compute())
        assert slide.corrupt_regions()


def test_a_slow_drive_is_read_by_many_threads_and_named(shared_data, monkeypatch):
    read = os.pread
    monkeypatch.setattr(stretches, "STRETCH_BYTES", 1 << 12)  # a tile each, as if the slide were larger
    with open_slide(shared_data / "slides" / "cmu1_small_region.svs") as slide:
        array = slide.display()[0]
        _ = array[:1000, :1000]
        assert slide.slow_drive == ""

        def slow(*args: int) -> bytes:
            time.sleep(0.02)
            return read(*args)

        monkeypatch.setattr(os, "pread", slow)
        start = time.perf_counter()
        _ = array[1100:2100, 1000:2000]
        assert time.perf_counter() - start < 25 * 0.02 * 0.75  # one after the other they take all of it
        assert "takes 2" in slide.slow_drive
        assert "copy the slide to a disk of this machine" in slide.slow_drive
