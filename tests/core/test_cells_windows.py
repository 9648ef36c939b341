"""Cells of a slide, read in windows: the same whatever the windows, kept on disk, and honest about damage."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2 import open_slide
from napari_her2.cells import windows as windows_module
from napari_her2.cells.areas import DrawnArea, TissueArea
from napari_her2.cells.measuring import HALO_UM, MPP, measured
from napari_her2.cells.rules import Rules, completeness, membrane_mass
from napari_her2.cells.table import Cells
from napari_her2.cells.windows import PixelGrid, joined_cells, windows_of
from napari_her2.errors import SlideChanged, SlideError
from napari_her2.inference import cell_reading as reading_module
from napari_her2.inference.cell_reading import STAGE, read_cells
from napari_her2.slide.resample import anchored, anchored_window, area_means
from napari_her2.steps import finished

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.steps import Progress


class Everywhere:
    """An area without an end."""

    def meets(self, boxes_px0):
        return np.ones(len(boxes_px0), bool)

    def holds(self, points_px0):
        return np.ones(len(points_px0), bool)

    def squares(self, shape, side_px0):
        return np.ones(shape, bool)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of one piece: the small slide has four."""
    monkeypatch.setattr(windows_module, "SIDE", 1)


@pytest.fixture
def ihc(small_pair) -> Path:
    return small_pair.ihc


@pytest.fixture(scope="session")
def slide(small_pair):
    """The IHC slide, open: its tissue is found once."""
    with open_slide(small_pair.ihc) as opened:
        yield opened


def assert_same_cells(one: Cells, two: Cells) -> None:
    assert len(one) == len(two) > 100
    rules = Rules()
    np.testing.assert_allclose(one.centre_um, two.centre_um, atol=0.01)
    np.testing.assert_allclose(completeness(one, rules), completeness(two, rules), atol=1e-4)
    np.testing.assert_allclose(membrane_mass(one), membrane_mass(two), atol=1e-4)
    np.testing.assert_allclose(one.area_um2, two.area_um2, atol=0.01)


_PICTURE = np.random.default_rng(5).integers(0, 256, (700, 760, 3), dtype=np.uint8)


def cut_from(first: tuple[int, int], scale: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Window of a picture that is white around, brought to another scale."""
    (y, height), (x, width) = (anchored_window(first[k], size[k], scale[k]) for k in (0, 1))
    padded = np.pad(_PICTURE, ((900, 900), (900, 900), (0, 0)), constant_values=255)
    return anchored(padded[900 + y : 900 + y + height, 900 + x : 900 + x + width], first, scale, size)


@settings(max_examples=15, deadline=None)
@given(
    scale=st.tuples(st.floats(0.84, 4.4), st.sampled_from([1.0, 2.0, 1.984, 0.9])),
    corner=st.tuples(st.integers(-40, 90), st.integers(-40, 90)),
)
def test_pixels_are_the_same_in_every_window(scale, corner) -> None:
    whole = cut_from((-40, -40), scale, (150, 150))
    part = cut_from(corner, scale, (20, 20))
    y, x = corner[0] + 40, corner[1] + 40
    np.testing.assert_array_equal(part, whole[y : y + 20, x : x + 20])


@pytest.mark.parametrize("scale", [(1.0, 1.0), (2.0, 2.0), (2.1739, 1.984), (4.3, 3.0)])
def test_pixels_are_means_over_their_areas(scale) -> None:
    exact = area_means(_PICTURE, (0, 0), scale, (150, 150))
    # What lies half way between two grey values may be rounded to either.
    assert np.abs(cut_from((0, 0), scale, (150, 150)) - exact).max() <= 0.5 + 1e-4


def test_enlarged_pixels_lie_where_they_belong() -> None:
    ramp = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(100, axis=0)
    scale = 0.4  # where half a pixel more or less makes more of a difference than rounding
    (y, height), (x, width) = anchored_window(10, 100, scale), anchored_window(10, 100, scale)
    found = anchored(ramp[y : y + height, x : x + width], (10, 10), (scale, scale), (100, 100))
    np.testing.assert_allclose(found[50, :, 0], 2 * ((np.arange(10, 110) + 0.5) * scale - 0.5), atol=0.51)


@pytest.mark.parametrize("mpp", [0.5, 0.27])
def test_cells_are_the_same_whatever_the_windows(
    ihc: Path, mpp: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_slide(ihc, mpp=mpp) as slide:
        grid = PixelGrid.of(slide)
        four = finished(read_cells(slide, Everywhere(), cache=False, threads=2))
        monkeypatch.setattr(windows_module, "SIDE", 1)
        one = finished(read_cells(slide, Everywhere(), cache=False, threads=1))
        halo = 120
        size = grid.shape[0] + 2 * halo, grid.shape[1] + 2 * halo
        (y, height), (x, width) = (anchored_window(-halo, size[k], grid.scale[k]) for k in (0, 1))
        raw = slide.read(grid.level, y, x, height, width)
        rgb = anchored(raw, (-halo, -halo), grid.scale, size)
        end = grid.shape[0] * MPP, grid.shape[1] * MPP
        at_once = measured(rgb, four.fit.stains, (-halo * MPP, -halo * MPP), (0.0, 0.0, *end))
    assert_same_cells(four.cells, one.cells)
    assert_same_cells(four.cells, at_once)
    np.testing.assert_array_equal(four.focus, one.focus)
    assert len(windows_of([(0, 0), (0, 1), (1, 0)])) == 3


def test_places_are_those_of_the_slide_where_its_pixels_are_not_quite_of_half_a_micrometre(
    ihc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_slide(ihc) as exact, open_slide(ihc, mpp=0.4998) as other:
        assert PixelGrid.of(other).scale == (1.0, 1.0)
        nominal = finished(read_cells(exact, Everywhere(), cache=False))
        monkeypatch.setattr(reading_module, "fit_slide", lambda *_: nominal.fit)
        placed = finished(read_cells(other, Everywhere(), cache=False)).cells
    np.testing.assert_allclose(placed.centre_um, nominal.cells.centre_um * (0.4998 / 0.5), rtol=1e-6)


def test_cells_are_joined_in_raster_order(slide) -> None:
    cells = finished(read_cells(slide, Everywhere(), cache=False)).cells
    order = np.random.default_rng(1).permutation(len(cells))
    parts = [cells.pick(order[:100]), Cells.none(), cells.pick(order[100:])]
    again = joined_cells(parts)
    assert parts == []
    np.testing.assert_array_equal(again.centre_um, cells.centre_um)
    np.testing.assert_array_equal(again.mass, cells.mass)
    assert len(joined_cells([])) == 0


def test_other_regions_read_nothing_again(slide, monkeypatch: pytest.MonkeyPatch) -> None:
    area = TissueArea(slide.tissue())
    all_cells = finished(read_cells(slide, area))
    assert (all_cells.measured > 0, all_cells.kept) == (True, 0)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the slide is read again")

    monkeypatch.setattr(type(slide), "squares", refuse)
    drawn = DrawnArea(shapely.box(300, 400, 900, 1100))
    some = finished(read_cells(slide, drawn))
    assert (some.measured, some.kept > 0) == (0, True)
    y, x = (all_cells.cells.centre_um / 0.5).T
    inside = (x >= 300) & (x <= 900) & (y >= 400) & (y <= 1100)
    assert 50 < inside.sum() < len(all_cells.cells)
    np.testing.assert_array_equal(some.cells.centre_um, all_cells.cells.pick(inside).centre_um)
    np.testing.assert_array_equal(some.cells.contrast, all_cells.cells.pick(inside).contrast)
    assert some.fit.values() == all_cells.fit.values()


def test_closing_cancels_and_keeps_what_was_measured(slide, small_windows: None) -> None:
    before = threading.active_count()
    with closing(read_cells(slide, Everywhere(), threads=2)) as steps:
        for step in steps:
            if step.stage == STAGE and step.done == 2:
                break
    assert threading.active_count() == before
    again = finished(read_cells(slide, Everywhere()))
    assert (again.kept, again.measured) == (2, 2)


_KILLED = """
import sys
import numpy as np
from napari_her2 import open_slide
from napari_her2.cells import windows
windows.SIDE = 1
from napari_her2.inference import cell_reading as reading_module
from napari_her2.inference.cell_reading import STAGE, read_cells
class Everywhere:
    def meets(self, boxes): return boxes[:, 0] >= 0
    def holds(self, points): return points[:, 0] >= 0
    def squares(self, shape, side): return np.ones(shape, bool)
with open_slide(sys.argv[1]) as slide:
    for step in read_cells(slide, Everywhere(), threads=1):
        print(step.stage, step.done, flush=True)
        if step.stage == STAGE and step.done == 2:
            sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing kills here without asking")
def test_a_killed_run_goes_on_where_it_was(ihc: Path, slide, small_windows: None) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(ihc)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        assert any(line.strip() == f"{STAGE} 2" for line in killed.stdout)
        os.kill(killed.pid, signal.SIGKILL)
    (store,) = _stores()
    # As if it had been killed in the middle of the second write.
    os.truncate(store, store.stat().st_size - 1000)
    again = finished(read_cells(slide, Everywhere()))
    assert (again.kept, again.measured) == (1, 3)
    whole = finished(read_cells(slide, Everywhere(), cache=False))
    assert_same_cells(again.cells, whole.cells)


def _stores() -> list[Path]:
    from napari_her2.inference.cache import cache_folder

    return list(cache_folder().glob("*.cells"))


def test_what_is_no_store_of_cells_is_read_over(slide) -> None:
    first = finished(read_cells(slide, Everywhere()))
    (store,) = _stores()
    store.write_bytes(b"something else" * 100)
    again = finished(read_cells(slide, Everywhere()))
    assert again.kept == 0
    assert_same_cells(first.cells, again.cells)


def test_a_piece_that_checks_and_is_none_ends_what_is_kept(slide) -> None:
    from napari_her2.inference.cell_store import _PIECE, _block

    first = finished(read_cells(slide, Everywhere()))
    (store,) = _stores()
    store.write_bytes(_block(_PIECE, bytes(20)) + store.read_bytes())
    again = finished(read_cells(slide, Everywhere()))
    assert again.kept == 0
    assert_same_cells(first.cells, again.cells)


def test_a_disk_that_is_full_costs_the_cache_alone(slide, monkeypatch: pytest.MonkeyPatch) -> None:
    import napari_her2.inference.block_file as store_module

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "open_own", full)
    found = finished(read_cells(slide, Everywhere()))
    assert "No space left" in found.problem
    assert len(found.cells) > 100


@pytest.fixture
def damaged(ihc: Path, tmp_path: Path) -> tuple[Path, tuple[int, int, int, int]]:
    """The slide with one compressed tile overwritten, and where that lies (y0, x0, y1, x1), level-0 px."""
    path = tmp_path / "damaged.svs"
    shutil.copy(ihc, path)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        across = -(-page.imagewidth // page.tilewidth)
        number = 2 * across + 3
        at, length, side = page.dataoffsets[number], page.databytecounts[number], page.tilewidth
    with path.open("r+b") as file:
        file.seek(at)
        file.write(np.random.default_rng(1).bytes(length))
    return path, (2 * side, 3 * side, 3 * side, 4 * side)


def test_cells_near_damage_are_left_out_and_all_others_stay(
    damaged, slide, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, (y0, x0, y1, x1) = damaged
    whole = finished(read_cells(slide, Everywhere(), cache=False))
    # Light and stains would be fitted without the sample that is damaged.
    monkeypatch.setattr(reading_module, "fit_slide", lambda *_: whole.fit)
    with open_slide(path) as other:
        found = finished(read_cells(other, Everywhere(), cache=False))
    where = shapely.box(x0 * 0.5, y0 * 0.5, x1 * 0.5, y1 * 0.5)
    y, x = whole.cells.centre_um.T
    away = shapely.distance(where, shapely.points(x, y)) > HALO_UM
    y, x = found.cells.centre_um.T
    assert shapely.distance(where, shapely.points(x, y)).min() > HALO_UM - 1
    assert 100 < away.sum() < len(whole.cells)
    # The distance is taken from pixel to pixel: a cell at the limit may fall to either side.
    assert abs(len(found.cells) - away.sum()) <= 3
    kept = {tuple(at) for at in found.cells.centre_um.tolist()}
    lost = {tuple(at) for at in whole.cells.pick(away).centre_um.tolist()} - kept
    assert len(lost) <= 3
    squares = {(int(row), int(col)) for row, col in found.damaged}
    side = found.square_um[0] / 0.5
    rows = range(int(y0 // side), math.ceil(y1 / side))
    cols = range(int(x0 // side), math.ceil(x1 / side))
    assert squares == {(row, col) for row in rows for col in cols}
    assert whole.damaged.shape == (0, 2)


def test_a_slide_that_changes_meanwhile_is_refused_and_not_kept(ihc: Path, tmp_path: Path) -> None:
    path = tmp_path / "changing.svs"
    shutil.copy(ihc, path)

    def changed(step: Progress) -> None:
        if step.stage == STAGE and not step.done:
            with path.open("ab") as file:
                file.write(b"more")

    with open_slide(path) as slide, pytest.raises(SlideChanged):
        finished(read_cells(slide, Everywhere()), changed)
    with open_slide(path) as slide:
        assert finished(read_cells(slide, Everywhere())).kept == 0


def test_a_slide_without_scale_is_refused(ihc: Path, tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    import cv2

    cv2.imwrite(str(path), np.full((300, 300, 3), 200, np.uint8))
    with open_slide(path) as slide, pytest.raises(SlideError, match="µm/px"):
        finished(read_cells(slide, Everywhere()))


def test_tissue_is_met_and_held_to_the_pixel_of_its_mask(slide) -> None:
    tissue = slide.tissue()
    area = TissueArea(tissue)
    rng = np.random.default_rng(2)
    corner = rng.uniform(-100, 1600, (200, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 200, (200, 2))], axis=1)
    down = np.array(tissue.downsample)
    met = area.meets(boxes)
    for box, meets in zip(boxes, met, strict=True):
        (y0, x0), (y1, x1) = np.floor(box[:2] / down), np.ceil(box[2:] / down)
        part = tissue.mask[max(int(y0), 0) : max(int(y1), 0), max(int(x0), 0) : max(int(x1), 0)]
        assert meets == part.any()
    inside = np.argwhere(tissue.mask)[::7] * down + 0.5 * down
    outside = np.argwhere(~tissue.mask)[::7] * down + 0.5 * down
    assert met.any()
    assert not met.all()
    assert area.holds(inside).all()
    assert not area.holds(outside).any()
    assert not area.holds(np.array([[-1.0, 5.0], [1e6, 5.0]])).any()
