"""Odd slides that people really meet: each is written by its script, and read as an independent reader does.

What is right for each is said in the README beside the scripts. They make some seconds of work each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image

from napari_her2 import open_slide
from napari_her2.errors import Her2Error, SlideError
from napari_her2.inference.regions import read_regions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_her2 import Slide

pytestmark = pytest.mark.slow
openslide = pytest.importorskip("openslide", reason="the OpenSlide extra is not installed")

ARGUMENTS = {("02-ome-multifile", "make2.py"): [["raw"], ["deflate"]]}
SCRIPT_SECONDS = 600


@pytest.fixture(scope="session")
def odd(shared_data, tmp_path_factory) -> Callable[[str], Path]:
    """Folder of the files of a case, which are written when they are first asked for."""
    scripts = shared_data / "odd"
    if not scripts.is_dir():
        pytest.skip(f"the scripts of odd slides are absent: {scripts}")
    root = tmp_path_factory.mktemp("odd")

    @cache
    def written(case: str) -> str:
        """Write the files of a case; return what is missing for it, or nothing."""
        (root / case).mkdir()
        for script in sorted((scripts / case).glob("*.py")):
            for arguments in ARGUMENTS.get((case, script.name), [[]]):
                # Of 8,192 px the strips would cost a minute; the kind is the same.
                source = script.read_text("utf-8").replace("(4,4,1)", "(1,1,1)")
                path = os.pathsep.join([str(scripts), os.environ.get("PYTHONPATH", "")])
                done = subprocess.run(
                    [sys.executable, "-c", source, *arguments],
                    cwd=root / case,
                    env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
                    capture_output=True,
                    text=True,
                    timeout=SCRIPT_SECONDS,
                )
                if "ModuleNotFoundError" in done.stderr:
                    return done.stderr.strip().splitlines()[-1]
                assert done.returncode == 0, done.stderr
        return ""

    def folder(case: str) -> Path:
        if case == "11-zero-length-tiles":  # it changes a file of another case
            folder("10-aperio-headers")
        missing = written(case)
        if missing:
            pytest.skip(f"the script of {case} needs a module that is not installed ({missing})")
        return root / case

    return folder


def whole(slide: Slide, level: int = 0) -> np.ndarray:
    return slide.read(level, 0, 0, *slide.level_shapes[level])


def by_openslide(path: Path, level: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB and alpha of a level as OpenSlide reads it."""
    with openslide.OpenSlide(path) as other:
        pixels = np.asarray(other.read_region((0, 0), level, other.level_dimensions[level]))
    return pixels[..., :3], pixels[..., 3]


def by_tifffile(path: Path, page: int = 0) -> np.ndarray:
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages[page].asarray()


def difference(pixels: np.ndarray, truth: np.ndarray) -> int:
    return int(np.abs(pixels.astype(np.int16) - truth).max())


@pytest.mark.parametrize(("name", "page"), [("macro_first.ome.tif", 1), ("label_first.tif", 1)])
def test_01_the_slide_is_the_largest_tiled_series(odd, name, page):
    path = odd("01-ome-macro-first") / name
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        assert slide.shape == (2967, 2220) == tiff.pages[page].shape[:2]
        assert slide.mpp == pytest.approx((0.499, 0.499))
        assert slide.level_shapes == ((2967, 2220), (1483, 1110), (741, 555))
        assert len(slide.associated_images) == 1
        assert np.array_equal(whole(slide), tiff.pages[page].asarray())


@pytest.mark.parametrize(
    ("name", "truth", "mpp"),
    [
        (f"{stem}{letter}.ome.tif", truth, mpp)
        for stem, truth in (("", "truth"), ("raw_", "truth_raw"), ("deflate_", "truth_deflate"))
        for letter, mpp in (("a", 0.25), ("b", 0.5))
    ],
)
def test_02_each_file_of_a_set_gives_its_own_pixels_and_scale(odd, name, truth, mpp):
    folder = odd("02-ome-multifile")
    with open_slide(folder / name) as slide:
        expected = np.load(folder / f"{truth}.npz")["A" if "a.ome" in name else "B"]
        assert np.array_equal(whole(slide), expected)
        assert np.array_equal(whole(slide), by_tifffile(folder / name))
        assert slide.mpp == (mpp, mpp)


@pytest.mark.parametrize("name", ["one_area.scn", "two_areas.scn"])
def test_04_glass_between_areas_is_white_and_tissue_as_openslide_has_it(odd, name):
    path = odd("04-leica-scn") / name
    with open_slide(path) as slide:
        coarsest = len(slide.level_shapes) - 1
        truth, alpha = by_openslide(path, coarsest)
        pixels = whole(slide, coarsest)
        assert slide.shape == (8000, 6000)
        assert slide.mpp == pytest.approx((0.5, 0.5))
        assert "macro" in slide.associated_images
        assert (pixels[alpha == 0] == 255).all()
        assert (alpha == 0).mean() > 0.1
        assert difference(pixels[alpha == 255], truth[alpha == 255]) == 0


@pytest.mark.parametrize(
    ("case", "name", "shape", "levels", "mpp"),
    [
        ("05-ventana-bif", "ventana.bif", (2464, 1928), 3, 0.465),
        ("09-trestle", "trestle.tif", (2304, 1856), 2, 0.46),
    ],
)
def test_05_and_09_overlapping_tiles_are_put_together(odd, case, name, shape, levels, mpp):
    folder = odd(case)
    with open_slide(folder / name) as slide:
        assert slide.shape == shape
        assert len(slide.level_shapes) == levels
        assert slide.mpp == pytest.approx((mpp, mpp))
        assert slide.objective == 20
        assert difference(whole(slide), by_openslide(folder / name, 0)[0]) == 0
        # The script's own picture, but for the JPEG and a pixel where tiles meet.
        assert np.abs(whole(slide).astype(int) - np.load(folder / "truth.npy")).mean() < 3


@pytest.mark.parametrize(
    ("name", "mpp"),
    [
        ("cm", (0.5, 0.25)),
        ("inch", (0.25, 0.25)),
        ("mm", (0.25, 0.25)),
        ("imagej", (0.25, 0.25)),
        ("imagej_micron", (0.25, 0.25)),
        *[
            (name, None)
            for name in (
                *("none", "dpi300", "dpi600", "dpi1200", "zero_zero", "zero_den", "zero_num", "unit0"),
                *("unit9", "strip_zero_zero", "strip_unit0"),
            )
        ],
    ],
)
def test_06_resolution_tags_are_believed_only_where_they_can_be_a_slide(odd, name, mpp):
    path = odd("06-resolution-tags") / f"{name}.tif"
    with open_slide(path) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-4))
        assert np.array_equal(whole(slide), tifffile.imread(path))
        assert bool(slide.warnings) == (name.startswith("dpi"))


@pytest.mark.parametrize(
    ("name", "truth", "most"),
    [
        ("palette", "truth_palette", 0),
        ("miniswhite", "truth_grey", 0),
        ("cmyk", "truth", 1),
        ("cmyk_tiled", "truth", 1),
        ("cielab", "truth", 20),
        ("ycbcr_lzw_444", "truth", 1),
        ("ycbcr_raw_444", "truth", 1),
        ("ycbcr_raw_444_strip", "truth", 1),
        ("assoc_alpha", "truth_alpha", 1),
        ("unassoc_alpha", "truth_alpha", 1),
        ("extra_unspecified", "truth", 0),
        ("rgb_plus2", "truth", 0),
    ],
)
def test_07_colours_are_those_of_the_picture(odd, name, truth, most):
    folder = odd("07-photometric")
    with open_slide(folder / f"{name}.tif") as slide:
        pixels, expected = whole(slide), np.load(folder / f"{truth}.npy")
        assert difference(pixels, expected) <= most
        assert np.abs(pixels.astype(int) - expected).mean() < 1
        if name in ("palette", "miniswhite", "cmyk", "cmyk_tiled"):
            seen = np.asarray(Image.open(folder / f"{name}.tif").convert("RGB"))
            assert difference(pixels, seen) <= 1


@pytest.mark.parametrize(
    "name",
    [
        *(f"rgb_{codec}" for codec in ("None", "lzw", "deflate", "zstd", "jpeg", "jpeg2000", "webp", "png")),
        *("rgb_jpegxl", "rgba_lzw", "rgb_5", "grey_lzw"),
    ],
)
def test_08_what_is_not_stored_is_white_in_every_codec(odd, name):
    folder = odd("08-sparse")
    truth = np.load(folder / "truth.npy")
    if name == "grey_lzw":
        truth = truth[..., 1:2].repeat(3, axis=2)
    with open_slide(folder / f"{name}.tif") as slide, tifffile.TiffFile(folder / f"{name}.tif") as tiff:
        pixels = whole(slide)
        missing = np.array(tiff.pages[0].databytecounts).reshape(4, 4) == 0
        stored = tiff.pages[0].asarray().reshape(1024, 1024, -1)
    gaps = missing.repeat(256, axis=0).repeat(256, axis=1)
    assert gaps.sum() > 256 * 256
    assert (pixels[gaps] == 255).all()
    assert np.abs(pixels[~gaps].astype(int) - truth[~gaps]).mean() < 8  # some codecs lose
    if name != "rgba_lzw":  # tifffile's own pixels of the tiles that there are
        assert difference(pixels[~gaps], stored[..., :3][~gaps]) <= 1


def aperio(value: float | None, objective: float | None = 20, word: str = "") -> tuple:
    return value, objective, word


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        *[
            (name, aperio(0.499))
            for name in (
                *("plain", "decimal_comma", "no_value", "empty_prop", "equals_in_value", "mpp_units"),
                *("appmag_x", "gbk", "utf8", "latin1", "no_thumb", "leica_gt450"),
            )
        ],
        ("dup_keys", aperio(0.25, 20, "objective")),
        ("contradict", aperio(0.499, 40, "objective")),
        ("contradict2", aperio(4.99, 20, "objective")),
        ("mpp_zero", aperio(None, 20, "ignored")),
        ("mpp_only_appmag", aperio(None)),
        ("grundium", aperio(0.48)),
    ],
)
def test_10_an_aperio_header_is_read_however_it_is_written(odd, name, facts):
    path = odd("10-aperio-headers") / f"{name}.svs"
    mpp, objective, word = facts
    with open_slide(path) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx((mpp, mpp)))
        assert slide.objective == objective
        assert [word in warning for warning in slide.warnings] == ([True] if word else [])
        assert slide.level_shapes == ((2048, 2048), (512, 512))
        assert slide.associated_images == (() if name == "no_thumb" else ("thumbnail",))
        if name in ("plain", "no_thumb"):
            assert difference(whole(slide), by_openslide(path, 0)[0]) == 0


@pytest.mark.parametrize("kind", ["count0", "both0"])
@pytest.mark.parametrize("level", [0, 1])
def test_11_a_missing_tile_is_white_or_made_from_the_finer_level(odd, kind, level):
    path = odd("11-zero-length-tiles") / f"l{level}_{kind}.svs"
    truth, alpha = by_openslide(path, level)
    truth = np.where(alpha[..., None] == 0, 255, truth)
    with open_slide(path) as slide:
        assert slide.warnings == ()
        assert difference(whole(slide, level), truth) <= (0 if level == 0 else 1)
        assert ((alpha == 0).sum() == 3 * 256 * 256) == (level == 0)


@pytest.mark.parametrize("name", ["fluor2", "fluor4", "fluor5"])
def test_13_fluorescence_is_refused_as_such(odd, name):
    with pytest.raises(SlideError, match="fluorescence"):
        open_slide(odd("13-ome-variants") / f"{name}.ome.tif")


@pytest.mark.parametrize(
    ("name", "mpp", "levels"),
    [
        *[
            (name, 0.25, 3)
            for name in (
                *("interleaved", "planar_rgb_channels", "planar_separate", "nm", "mm", "ome_vs_tag"),
                "no_physical_res",
            )
        ],
        ("pixel_unit", None, 3),
        ("refframe", None, 3),
        ("no_physical", None, 3),
        ("only_x", None, 3),
        ("one", 1.0, 3),
        ("zstack3", 0.25, 1),
        ("time1", 0.25, 1),
    ],
)
def test_13_ome_variants_keep_their_scale_and_their_levels(odd, name, mpp, levels):
    path = odd("13-ome-variants") / f"{name}.ome.tif"
    with open_slide(path) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx((mpp, mpp)))
        assert len(slide.level_shapes) == levels
        truth = tifffile.imread(path)
        if name.startswith("planar"):
            truth = np.moveaxis(truth, 0, -1)
        assert np.array_equal(whole(slide), truth.reshape(-1, 1024, 1024, 3)[0])


def test_13_more_than_8_bits_are_refused_and_of_two_pages_one_is_read(odd):
    folder = odd("13-ome-variants")
    with pytest.raises(SlideError, match="8-bit"):
        open_slide(folder / "uint16.ome.tif")
    with open_slide(folder / "two_pages.tif") as slide:
        assert np.array_equal(whole(slide), by_tifffile(folder / "two_pages.tif"))
        assert any("2 images" in warning for warning in slide.warnings)


@pytest.mark.parametrize(
    ("name", "area"),
    [
        *[
            (name, 1e6)
            for name in (
                *("fc", "list", "feature", "bare", "line_and_poly", "collection", "bom", "utf16", "outside"),
                *("negative", "threed", "unclosed", "nullgeom", "ignore"),
            )
        ],
        ("hole", 3e6),
        ("multi", 1.36e6),
        ("ellipse", np.pi * 400 * 200),
        ("um", 499**2),
        ("bow", 5e5),
        ("tiny", 100),
    ],
)
def test_17_every_file_that_holds_polygons_is_read(odd, name, area):
    polygons = read_regions(odd("17-geojson") / f"{name}.geojson")
    assert shapely.union_all(polygons).area == pytest.approx(area, rel=5e-3)


def test_17_a_compressed_file_is_read(odd):
    (polygon,) = read_regions(odd("17-geojson") / "fc.geojson.gz")
    assert polygon.area == 1e6


@pytest.mark.parametrize("name", ["nan", "only_line", "twopoints", "empty", "text", "num", "strings"])
def test_17_what_encloses_nothing_is_refused_in_one_line(odd, name):
    with pytest.raises(Her2Error) as caught:
        read_regions(odd("17-geojson") / f"{name}.geojson")
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["single_strip_lzw", "single_strip_raw", "strips64_deflate"])
def test_19_strips_hold_the_picture(odd, name):
    folder = odd("19-strips")
    with open_slide(folder / f"{name}.tif") as slide:
        assert np.array_equal(whole(slide), np.load(folder / "truth.npy"))
        assert slide.mpp == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("name", ["anon_40k.svs", "anon_40k.tif"])
def test_23_all_levels_are_found_without_a_thumbnail(odd, name):
    path = odd("23-svs-no-thumbnail") / name
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        assert [shape[::-1] for shape in slide.level_shapes] == list(other.level_dimensions)
        assert len(slide.level_shapes) == 7
        assert set(slide.associated_images) == set(other.associated_images)
        assert difference(whole(slide, 6), by_openslide(path, 6)[0]) == 0
