"""Maps over regions: without seams, the same from wherever they are looked at, and never over damage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2.errors import JobFailed
from napari_her2.explain import region_cam
from napari_her2.explain.gradcam import grad_cam, upsample_maps
from napari_her2.explain.region_cam import CamMap, Canvas, FieldLayout, lay_fields, region_cam_steps
from napari_her2.models.field_model import FieldModel
from napari_her2.models.preprocessing import TilePreparation
from napari_her2.slide.grid import TileGrid
from napari_her2.slide.reader import open_slide
from napari_her2.slide.tissue import TissueMask

CLASSES = ("0", "1+", "2+", "3+")
TILE_PX, MPP = 64, 0.5
LAYER = "backbone.blocks.2"  # 4 x 4 of a field of 32 px; the default one would be 1 x 1


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return FieldModel(predictor="tinynet-e", channels_from="H&E", field_px=32).eval()


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory):
    """Noise of 330 x 400 px at 0.5 µm/px, in compressed tiles of 64 px."""
    path = tmp_path_factory.mktemp("slides") / "noise.svs"
    coarse = np.random.default_rng(2).integers(40, 255, (11, 14, 3), np.uint8)
    pixels = np.repeat(np.repeat(coarse, 32, axis=0), 32, axis=1)[:330, :400]
    header = "Aperio Image Library v1.0\n400x330 (64x64)|AppMag = 20|MPP = 0.5"
    tifffile.imwrite(
        path, pixels, tile=(64, 64), photometric="rgb", description=header, metadata=None, compression="zlib"
    )
    return path


@pytest.fixture
def slide(slide_path):
    with open_slide(slide_path) as opened:
        yield opened


def finish(steps):
    """What a generator of steps returns, and what it yielded."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as stop:
            return stop.value, seen


def explained(slide, model, region=None, class_index=1, mpp=MPP, tile_px=TILE_PX, **options):
    preparation = TilePreparation(tile_px=tile_px, out_px=32)
    options = {"batch_size": 5, "cells": 8, "classes": CLASSES, "layer": LAYER, "threads": 1} | options
    return finish(region_cam_steps(slide, model, preparation, region, mpp, class_index, **options))


@dataclass
class Shape:
    """As much of a slide as the layout asks for."""

    shape: tuple[int, int]
    name: str = "made up"

    def tile_grid(self, tile_px, mpp):
        return TileGrid(self.shape, (0.25, 0.26), tile_px, mpp)


layouts = st.builds(
    lambda shape, corner, size, overlap, cells: lay_fields(
        Shape(shape),
        (corner[0] * shape[0], corner[1] * shape[1], 1 + size[0] * shape[0], 1 + size[1] * shape[1]),
        tile_px=96,
        mpp=0.5,
        overlap=overlap,
        cells=cells,
    ),
    st.tuples(st.integers(200, 900), st.integers(200, 900)),
    st.tuples(st.floats(0, 0.65), st.floats(0, 0.65)),
    st.tuples(st.floats(0, 1.2), st.floats(0, 1.2)),
    st.floats(0, 0.9),
    st.sampled_from([2, 8, 16]),
)


@settings(max_examples=60, deadline=None)
@given(layouts, st.floats(1e-3, 1e3))
def test_where_all_fields_agree_there_is_no_seam(layout, value):
    canvas = Canvas(layout)
    corners = layout.corners()
    for corner in corners:
        canvas.add(corner, np.full((layout.side, layout.side), value, np.float32))
    blended = canvas.blended()
    assert blended.shape == layout.shape
    known = np.isfinite(blended)
    np.testing.assert_allclose(blended[known], value, rtol=1e-5)
    # All of the region, but for the strip of less than a step at the lower and right edge of the slide.
    ends = [(n - layout.side) // layout.step * layout.step + layout.side for n in layout.lattice.shape]
    # A region that begins in that strip has nothing: a negative end would count from the other side.
    held = [max(end - low, 0) for end, low in zip(ends, layout.low, strict=True)]
    assert known[: held[0], : held[1]].all()
    assert known.sum() == np.prod(
        [max(min(high, end) - low, 0) for low, high, end in zip(layout.low, layout.high, ends, strict=True)]
    )


@settings(max_examples=40, deadline=None)
@given(layouts)
def test_every_field_lies_on_the_slide_and_reaches_into_the_region(layout):
    corners = layout.corners()
    inside = {
        (row, column)
        for row in range(0, layout.lattice.shape[0] - layout.side + 1, layout.step)
        for column in range(0, layout.lattice.shape[1] - layout.side + 1, layout.step)
        if row < layout.high[0] and row + layout.side > layout.low[0]
        if column < layout.high[1] and column + layout.side > layout.low[1]
    }
    assert set(map(tuple, corners.tolist())) == inside
    assert len(corners) == len(inside)


def test_a_step_between_fields_becomes_a_slope():
    layout = FieldLayout(TileGrid((64, 96), (0.5, 0.5), 1, 0.5), 64, 32, (0, 0), (64, 96))
    canvas = Canvas(layout)
    canvas.add(np.array([0, 0]), np.zeros((64, 64), np.float32))
    canvas.add(np.array([0, 32]), np.ones((64, 64), np.float32))
    row = canvas.blended()[30]
    # Raised cosines half a field apart add up to one.
    rise = np.sin(np.pi * (np.arange(32) + 0.5) / 64) ** 2
    np.testing.assert_allclose(row, np.concatenate([np.zeros(32), rise, np.ones(32)]), atol=1e-5)


def test_a_map_is_that_of_its_fields(slide, model):
    """Without overlap a field stands alone, so that its pixels, cut by hand, explain its place."""
    found, seen = explained(slide, model, overlap=0)
    assert found.values.shape == (41, 50)
    assert seen[0] == (0, 30)
    assert seen[-1] == (30, 30)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    brightest = np.nanmax(found.values)
    assert brightest > 0
    for row, column in ((0, 0), (3, 4)):
        pixels = slide.read(0, row * 64, column * 64, 64, 64).astype(np.float32) / 255
        small = torch.from_numpy(pixels.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))).permute(2, 0, 1)
        expected = upsample_maps(grad_cam(model, small[None], 1, LAYER), (8, 8))[0]
        place = found.values[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
        np.testing.assert_allclose(place, expected, atol=1e-4 * brightest)
    assert np.isnan(found.values[40:]).all()
    assert np.isnan(found.values[:, 48:]).all()


def test_a_place_has_one_value_in_whichever_region(slide, model):
    whole, _ = explained(slide, model)
    part, _ = explained(slide, model, (70, 101.5, 90, 40))
    assert part.origin_px0 == (64, 96)
    assert part.pixel_px0 == (8, 8)
    assert part.values.shape == (12, 6)
    np.testing.assert_allclose(part.values, whole.values[8:20, 12:18], atol=1e-5 * np.nanmax(whole.values))
    assert (part.name, part.class_name, part.layer_name) == (
        "Grad-CAM 1+ (backbone.blocks.2)",
        "1+",
        "backbone.blocks.2",
    )


def test_a_slide_at_another_scale_is_brought_to_size(slide, model):
    """Averaged over twice the pixels, then over the field: the same field as averaged at once."""
    coarse, _ = explained(slide, model, mpp=1.0, tile_px=32, overlap=0, cells=4)
    fine, _ = explained(slide, model, overlap=0, cells=4)
    assert coarse.pixel_px0 == fine.pixel_px0
    np.testing.assert_allclose(coarse.values, fine.values, atol=0.02 * np.nanmax(fine.values))


def test_nothing_is_painted_over_damage(slide_path, tmp_path, model):
    path = tmp_path / "damaged.svs"
    content = bytearray(slide_path.read_bytes())
    with tifffile.TiffFile(slide_path) as file:
        page = file.pages[0]
        number = 2 * 7 + 3  # the compressed tile at row 2, column 3 of 7
        start, length = page.dataoffsets[number], page.databytecounts[number]
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    with open_slide(slide_path) as whole, open_slide(path) as damaged:
        expected, _ = explained(whole, model)
        found, seen = explained(damaged, model)
    assert seen[-1][0] == seen[-1][1]
    assert np.isnan(found.values[16:24, 24:32]).all()
    # Fields every 32 px that touch 128 to 192 down and 192 to 256 across: three each way.
    assert sorted(map(tuple, found.damaged_px0.tolist())) == [
        (y, x) for y in (96, 128, 160) for x in (160, 192, 224)
    ]
    far = np.ones_like(found.values, bool)
    far[12:28, 20:36] = False
    # Fields are batched otherwise around the damage, and kernels round by the size of the batch.
    np.testing.assert_allclose(
        found.values[far], expected.values[far], rtol=0, atol=1e-5 * np.nanmax(expected.values)
    )
    around = np.isnan(found.values[12:28, 20:36])
    assert around.sum() == 64  # the damaged tile alone: sound fields reach all around it


def test_fields_without_tissue_are_left_out(slide, model):
    tissue = TissueMask(np.arange(50)[None].repeat(42, axis=0) < 24, (8, 8))
    found, seen = explained(slide, model, tissue=tissue)
    # Fields at columns 0 to 16 are all tissue, that at 20 is half.
    assert np.isfinite(found.values[:40, :28]).all()
    assert np.isnan(found.values[:, 28:]).all()
    assert seen[0] == (0, 9 * 6)
    none, seen = explained(slide, model, tissue=TissueMask(np.zeros((42, 50), bool), (8, 8)), layer=None)
    assert seen == [(0, 0)]
    assert np.isnan(none.values).all()
    assert none.contrast_limits == (0, 1)
    assert none.layer_name == model.predictor.cam_layer


def test_regions_that_cannot_be_are_refused(slide, model):
    with pytest.raises(JobFailed, match="no part of noise"):
        explained(slide, model, (500, 0, 10, 10))
    with pytest.raises(JobFailed, match="smaller than one field"):
        explained(slide, model, tile_px=512)
    with pytest.raises(ValueError, match="map pixels"):
        explained(slide, model, cells=7)
    with pytest.raises(ValueError, match="overlap"):
        explained(slide, model, overlap=1)


def test_closing_stops_the_reading(slide, model, monkeypatch):
    calls = []
    monkeypatch.setattr(region_cam, "grad_cam", lambda *a: calls.append(a) or torch.ones(len(a[1]), 2, 2))
    steps = region_cam_steps(
        slide, model, TilePreparation(tile_px=64, out_px=32), None, MPP, 0, 2, classes=CLASSES, cells=8
    )
    next(steps)
    next(steps)
    steps.close()
    assert len(calls) == 1


def test_limits_are_those_of_the_whole_map():
    values = np.full((10, 100), np.nan, np.float32)
    values[0] = np.arange(100)

    def limits(of):
        return CamMap(of, (0, 0), (1, 1), "0", "layer", np.empty((0, 2), np.int64)).contrast_limits

    assert limits(values) == (0, pytest.approx(98.505))
    assert limits(np.zeros((2, 2), np.float32)) == (0, 1)
    faint = np.zeros((100, 100), np.float32)
    faint[0, 0] = 0.5
    assert limits(faint) == (0, 0.5)
