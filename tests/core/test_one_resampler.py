"""Whatever reads a slide at an asked µm/px makes the pixels of the tile stream: no scale is rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import torch

from napari_her2 import open_slide
from napari_her2.explain import region_cam
from napari_her2.explain.region_cam import lay_fields, region_cam_steps
from napari_her2.models.preprocessing import TilePreparation
from napari_her2.slide import area
from napari_her2.slide.area import area_steps, read_area
from napari_her2.slide.resample import area_means, choose_level
from napari_her2.slide.sources import FileTiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_her2.slide.reader import Slide

FRACTIONAL = 0.2503
SCALES = [(0.5, 256), (0.33, 200), (0.2503, 128), (0.2, 96), (2.0, 64)]
"""µm/px and side of tiles: two of fractional scale, the slide's own, enlarged, of a coarser level."""


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slide]:
    """Noise, on which half a pixel shows; no level is a whole number of times coarser than the first."""
    noise = np.random.default_rng(3).integers(0, 256, (1310, 1523, 3), np.uint8)
    path = tmp_path_factory.mktemp("fractional") / "noise.tif"
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate((noise, noise[::4, ::4])):
            file.write(
                level,
                tile=(128, 128),
                photometric="rgb",
                compression="deflate",
                subfiletype=int(number > 0),
                resolution=(1e4 / FRACTIONAL, 1e4 / FRACTIONAL),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    with open_slide(path) as opened:
        yield opened


def scored(slide: Slide, tile_px: int, mpp: float) -> tuple[np.ndarray, np.ndarray]:
    """Every tile of a slide as scoring reads it, and its (row, column)."""
    batches = list(slide.tiles(tile_px=tile_px, mpp=mpp, tissue_only=False))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.index for b in batches])


def finished(steps):
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize(("mpp", "tile_px"), SCALES)
def test_squares_that_begin_where_tiles_do_are_those_tiles(slide, mpp, tile_px):
    images, index = scored(slide, tile_px, mpp)
    places = slide.tile_grid(tile_px, mpp).places_of_um(index * (tile_px * mpp))
    found = list(slide.squares(places, tile_px=tile_px, mpp=mpp, batch_size=5))
    assert np.array_equal(np.concatenate([batch.images for batch in found]), images)
    assert np.concatenate([batch.number for batch in found]).tolist() == list(range(len(index)))


def test_squares_may_begin_between_tiles(slide):
    (batch,) = slide.squares(np.array([[0.5, 1.25]]), tile_px=128, mpp=FRACTIONAL)
    assert np.array_equal(batch.images[0], slide.read(0, 64, 160, 128, 128))


@pytest.mark.parametrize(("mpp", "tile_px"), SCALES)
def test_areas_that_begin_where_tiles_do_are_those_tiles(slide, mpp, tile_px):
    """Held whole, or far from the level's scale in blocks, where single precision may round otherwise."""
    images, index = scored(slide, tile_px, mpp)
    far = min(choose_level(slide.known_mpp, slide.level_downsamples, mpp)[1]) >= 4
    for image, (row, col) in zip(images, index.tolist(), strict=True):
        origin_um = row * tile_px * mpp, col * tile_px * mpp
        found = read_area(slide, origin_um=origin_um, size_px=tile_px, mpp=mpp).rgb
        assert np.abs(found.astype(int) - image).max() <= int(far)
        assert (found != image).mean() < 1e-3


@pytest.mark.parametrize(("mpp", "tile_px"), SCALES[:2])
def test_grad_cam_explains_the_tiles_that_scoring_reads(slide, mpp, tile_px, monkeypatch):
    images, index = scored(slide, tile_px, mpp)
    seen = []
    monkeypatch.setattr(
        region_cam, "grad_cam", lambda model, tiles, *_: seen.append(tiles) or tiles.mean(dim=1)[:, :8, :8]
    )

    model = torch.nn.Linear(1, 1)
    preparation = TilePreparation(tile_px=tile_px, out_px=tile_px)
    options = {"overlap": 0, "cells": 8, "classes": ["0"], "layer": "any", "threads": 1}
    finished(region_cam_steps(slide, model, preparation, None, mpp, 0, 4, **options))
    corners = lay_fields(slide, None, tile_px=tile_px, mpp=mpp, overlap=0, cells=8).corners()
    explained = dict(zip(map(tuple, (corners / 8).astype(int).tolist()), torch.cat(seen), strict=True))
    for image, place in zip(images, map(tuple, index.tolist()), strict=True):
        assert torch.equal(explained[place], preparation(torch.from_numpy(image)[None])[0])


@pytest.mark.parametrize("scale", [(5.3, 7.01), (4.0, 4.0), (61.7, 33.3)])
def test_an_area_has_the_same_pixels_in_whatever_blocks_it_is_read(slide, scale, monkeypatch):
    shape = tuple(int(side // value) for side, value in zip(slide.shape, scale, strict=True))
    exact = np.rint(area_means(slide.read(0, 0, 0, *slide.shape), (0, 0), scale, shape))
    for block_px in (1024, 300):
        monkeypatch.setattr(area, "_BLOCK_PX", block_px)
        found = finished(area_steps(slide, 0, (0, 0), shape, scale)).rgb
        assert np.array_equal(found, exact)


def test_means_of_areas_are_those_of_exact_integration():
    pixels = np.random.default_rng(4).integers(0, 256, (40, 50, 3), np.uint8)
    start, scale = (0.25, 1.5), (3.75, 4.5)
    fine = pixels.repeat(4, axis=0).repeat(4, axis=1).astype(float)  # quarters of pixels
    expected = fine[1:151, 6:186].reshape(10, 15, 10, 18, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(area_means(pixels, start, scale, (10, 10)), expected, atol=1e-9)


def test_no_tile_of_the_file_is_decoded_twice(slide, monkeypatch):
    decoded = []
    decode = FileTiles.tile
    monkeypatch.setattr(
        FileTiles, "tile", lambda self, row, col: decoded.append((row, col)) or decode(self, row, col)
    )
    rows, cols = -(-slide.shape[0] // 128), -(-slide.shape[1] // 128)
    for mpp in (0.5, 0.9):
        decoded.clear()
        finished(area_steps(slide, 0, (0, 0), (300, 300), (mpp / FRACTIONAL,) * 2))
        assert len(decoded) == len(set(decoded))
    decoded.clear()
    finished(area_steps(slide, 0, (0, 0), (100, 100), (13.1, 15.23)))
    assert len(decoded) == len(set(decoded)) == rows * cols
