"""Maps as OME-TIFF: read back by tifffile and OpenSlide-like readers, in place over the slide."""

from __future__ import annotations

import errno
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_her2.cli import app
from napari_her2.errors import JobFailed
from napari_her2.explain.colours import coloured
from napari_her2.explain.maps import TileMap
from napari_her2.export import map_images
from napari_her2.export.map_images import NUMBERS_FILE, write_map_images
from napari_her2.export.tables import write_result
from napari_her2.slide.grid import TileGrid
from napari_her2.slide.reader import open_slide
from scored import make_result

if TYPE_CHECKING:
    from click.testing import Result

NAMESPACE = {"ome": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}


def test_the_numbers_are_those_of_the_result(tmp_path) -> None:
    result = make_result()
    files = write_map_images(result, tmp_path / "out")
    assert files[0].name == NUMBERS_FILE
    shown = [of for of in result.maps if of.holds_any and of.info.layer_name]
    with tifffile.TiffFile(files[0]) as tiff:
        assert tiff.is_ome
        np.testing.assert_array_equal(tiff.series[0].asarray(), np.stack([of.values for of in shown]))
        described = ET.fromstring(tiff.ome_metadata)
    image = described.find(".//ome:Pixels", NAMESPACE)
    assert float(image.attrib["PhysicalSizeX"]) == pytest.approx(result.grid.tile_um)
    names = [one.attrib["Name"] for one in image.findall("ome:Channel", NAMESPACE)]
    assert len(names) == len(shown)
    assert all(name.startswith(of.name) for name, of in zip(names, shown, strict=True))
    assert "Research use only" in described.find(".//ome:Description", NAMESPACE).text


def test_a_picture_lies_over_the_slide(tmp_path) -> None:
    result = make_result()
    files = write_map_images(result, tmp_path / "out")
    ranks = next(of for of in result.maps if of.info.is_map and of.holds_any and of.info.layer_name)
    path = tmp_path / "out" / f"{map_images._file_name(ranks)}.ome.tif"
    assert path in files
    with open_slide(path) as picture:  # our own reader of slides, which takes its scale from the OME-XML
        grid = result.grid
        step = grid.slide_shape_px0[0] / picture.shape[0]
        assert picture.mpp == pytest.approx(
            (grid.slide_mpp[0] * round(step), grid.slide_mpp[1] * round(step))
        )
        pixels = picture.read(0, 0, 0, *picture.shape)
    rgba = coloured(ranks).astype(float)
    on_glass = np.rint(rgba[..., :3] * rgba[..., 3:] / 255 + 255 - rgba[..., 3:])
    for row, col in np.argwhere(np.isfinite(ranks.values))[::7]:
        y, x = (int((n + 0.5) * side / step) for n, side in zip((row, col), grid.tile_px0, strict=True))
        np.testing.assert_allclose(pixels[y, x], on_glass[row, col], atol=1)


def test_a_large_slide_becomes_a_bounded_pyramid(tmp_path) -> None:
    grid = TileGrid((40_003, 60_001), (0.25, 0.25), tile_px=256, mpp=0.5)
    rng = np.random.default_rng(3)
    values = rng.random(grid.shape, np.float32)
    result = make_result()
    info = next(of.info for of in result.maps if of.info.is_map and of.info.layer_name)
    scored = replace(result.slides[0], maps=(TileMap(info, values, grid),), grid=grid)
    files = write_map_images(replace(result, slides=(scored,)), tmp_path)
    with tifffile.TiffFile(files[1]) as tiff:
        levels = tiff.series[0].levels
        sides = [max(level.shape[:2]) for level in levels]
        assert sides[0] <= map_images.LONGEST_SIDE_PX
        assert sides[-1] <= 512
        assert all(b == -(-a // 2) for a, b in pairwise(sides))
        step = round(60_001 / levels[0].shape[1])
        assert tuple(levels[0].shape[:2]) == (-(-40_003 // step), -(-60_001 // step))
        assert tiff.pages[0].is_tiled
    assert sum(path.stat().st_size for path in files) < 30e6


def test_half_a_pyramid_of_numbers_is_the_mean_of_what_is_known() -> None:
    values = np.array([[[1, 3, np.nan], [5, np.nan, np.nan]]], np.float32)
    halved = map_images._mean_of_known(values)
    np.testing.assert_array_equal(halved, np.array([[[3, np.nan]]], np.float32))


def test_a_result_without_maps_is_refused(tmp_path) -> None:
    result = make_result()
    with pytest.raises(JobFailed, match="holds no map"):
        write_map_images(replace(result, slides=(replace(result.slides[0], maps=()),)), tmp_path)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tifffile.TiffWriter, "write", full)
    with pytest.raises(JobFailed, match="No space left"):
        write_map_images(make_result(), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(item) for item in arguments])


def test_the_command_writes_the_maps_of_a_result_folder(scored, tmp_path) -> None:
    folder = write_result(scored, tmp_path)
    done = run("maps", folder, "--json")
    assert not done.exit_code, done.output
    first = Path(json.loads(done.stdout)["paths"][0])
    assert first.name == NUMBERS_FILE
    with tifffile.TiffFile(first) as tiff:
        numbers = tiff.series[0].asarray()
    shown = [of for of in scored.maps if of.holds_any and of.info.layer_name]
    np.testing.assert_array_equal(numbers, np.stack([of.values for of in shown]))


def test_the_command_says_in_one_line_what_is_wrong(tmp_path) -> None:
    done = run("maps", tmp_path)
    assert done.exit_code == 1
    assert len(done.stderr.strip().splitlines()) == 1
