"""Makers whose slides tiffslide only half knows: tiles that overlap, areas apart on the glass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_her2 import open_slide
from napari_her2.errors import SlideError

if TYPE_CHECKING:
    from pathlib import Path

openslide = pytest.importorskip("openslide", reason="the OpenSlide extra is not installed")

TILE = 128
PLAIN = {"photometric": "rgb", "compression": "deflate", "metadata": None}


@pytest.fixture(scope="module")
def canvas() -> np.ndarray:
    y, x = np.indices((700, 600))
    noise = np.random.default_rng(0).integers(0, 40, (700, 600, 3))
    return (np.stack([y / 4, x / 4, 120 + 0 * y], axis=-1) + noise).astype(np.uint8)


def overlapping(canvas: np.ndarray, grid: tuple[int, int], step: tuple[int, int]) -> np.ndarray:
    """Tiles that overlap, laid side by side as scanners store them."""
    rows = [
        np.hstack(
            [
                canvas[row * step[0] : row * step[0] + TILE, col * step[1] : col * step[1] + TILE]
                for col in range(grid[1])
            ]
        )
        for row in range(grid[0])
    ]
    return np.vstack(rows)


def ventana(path: Path, canvas: np.ndarray) -> Path:
    rows, cols, over = 4, 3, (24, 16)
    step = (TILE - over[0], TILE - over[1])

    def number(row: int, col: int) -> int:  # from below, to and fro
        up = rows - 1 - row
        return up * cols + (col if up % 2 == 0 else cols - 1 - col) + 1

    joint = (
        '<TileJointInfo FlagJoined="1" Confidence="100" Direction="{}" Tile1="{}" Tile2="{}" OverlapX="{}" '
    )
    joint += 'OverlapY="{}"/>'
    across = [
        joint.format("RIGHT", number(row, col), number(row, col + 1), over[1], 0)
        for row in range(rows)
        for col in range(cols - 1)
    ]
    up = [
        joint.format("UP", number(row, col), number(row - 1, col), 0, over[0])
        for row in range(1, rows)
        for col in range(cols)
    ]
    scan = '<iScan Magnification="20" ScanRes="0.465" ScannerModel="iScan HT" UnitNumber="1"/>'
    encode = (
        f'<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" NumRows="{rows}" '
        f'NumCols="{cols}" Width="{TILE}" Height="{TILE}" Pos-X="0" Pos-Y="0">{"".join(across + up)}'
        f'</ImageInfo></SlideStitchInfo><AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    label = np.full((60, 30, 3), 200, np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        xmp = [(700, 7, len(scan), scan.encode(), True)]
        writer.write(
            label, rowsperstrip=60, description="Label Image", extratags=xmp, photometric="rgb", metadata=None
        )
        xmp = [(700, 7, len(encode), encode.encode(), True)]
        for level in range(2):
            writer.write(
                overlapping(canvas, (rows, cols), step)[:: 2**level, :: 2**level],
                tile=(TILE, TILE),
                description=f"level={level} mag={20 // 2**level} quality=90",
                extratags=xmp if level == 0 else (),
                **{**PLAIN, "compression": "jpeg"},
            )
    return path


def trestle(path: Path, canvas: np.ndarray) -> Path:
    text = "Background Color=E6E6E6;Objective Power=20;OverlapsXY= 32 32;JPEG Quality=75"
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            overlapping(canvas, (4, 3), (TILE - 32, TILE - 32)),
            tile=(TILE, TILE),
            description=text,
            software="MedScan",
            resolution=(0.46, 0.46),
            resolutionunit="INCH",
            **PLAIN,
        )
    return path


def leica(path: Path, canvas: np.ndarray, areas: int) -> Path:
    """An overview of the glass, and areas of 256 px at 0.5 µm/px on it."""
    places = [(100, 200), (600, 700)][:areas]
    nm, glass = 500, 1200

    def image(name: str, first: int, sizes: list[int], y: int, x: int, side: int, power: float) -> str:
        levels = "".join(
            f'<dimension sizeX="{px}" sizeY="{px}" r="{number}" ifd="{first + number}" />'
            for number, px in enumerate(sizes)
        )
        return (
            f'<image name="{name}"><creationDate>2020</creationDate><device model="SCN400" version="1" />'
            f'<pixels sizeX="{sizes[0]}" sizeY="{sizes[0]}">{levels}</pixels><view sizeX="{side * nm}" '
            f'sizeY="{side * nm}" offsetX="{x * nm}" offsetY="{y * nm}" spacingZ="0" /><scanSettings>'
            f"<objectiveSettings><objective>{power}</objective></objectiveSettings><illuminationSettings>"
            f"<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>"
            f"</illuminationSettings></scanSettings></image>"
        )

    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection '
        f'name="c" sizeX="{glass * nm}" sizeY="{glass * nm}"><barcode>MQ==</barcode>'
        + image("macro", 0, [75], 0, 0, glass, 0.6)
        + "".join(image(f"area{n}", 1 + 2 * n, [256, 64], y, x, 256, 20) for n, (y, x) in enumerate(places))
        + "</collection></scn>"
    )
    options = {"tile": (64, 64), **PLAIN, "compression": "jpeg"}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(np.full((75, 75, 3), 235, np.uint8), description=xml, **options)
        for _ in places:
            writer.write(canvas[:256, :256], **options)
            writer.write(canvas[:256:4, :256:4], **options)
    return path


def same_as_openslide(slide, path: Path) -> bool:
    """Whether every level equals OpenSlide's, over white."""
    with openslide.OpenSlide(path) as other:
        assert slide.level_shapes == tuple((h, w) for w, h in other.level_dimensions)
        for level, (height, width) in enumerate(slide.level_shapes):
            theirs = np.asarray(other.read_region((0, 0), level, (width, height)))
            alpha = theirs[..., 3:] / 255
            over_white = theirs[..., :3] * alpha + 255 * (1 - alpha)
            if np.abs(slide.read(level, 0, 0, height, width) - over_white).max() > 1:
                return False
    return True


def test_overlapping_tiles_of_ventana_are_put_together(tmp_path, canvas):
    path = ventana(tmp_path / "ventana.bif", canvas)
    with open_slide(path) as slide:
        assert slide.shape == (104 * 3 + TILE, 112 * 2 + TILE)
        assert (slide.mpp, slide.mpp_source, slide.objective) == ((0.465, 0.465), "Ventana header", 20)
        assert "slides of Ventana" in slide.warnings[0]
        assert same_as_openslide(slide, path)
        pixels = slide.read(0, 0, 0, *slide.shape).astype(int)
        assert np.abs(pixels - canvas[: slide.shape[0], : slide.shape[1]]).mean() < 12  # it is JPEG


def test_overlapping_tiles_of_trestle_are_put_together(tmp_path, canvas):
    path = trestle(tmp_path / "trestle.tif", canvas)
    with open_slide(path) as slide:
        assert slide.shape == (96 * 3 + TILE, 96 * 2 + TILE)
        assert (slide.mpp, slide.objective) == ((0.46, 0.46), 20)
        assert np.array_equal(slide.read(0, 0, 0, *slide.shape), canvas[: slide.shape[0], : slide.shape[1]])


@pytest.mark.parametrize("areas", [1, 2])
def test_glass_between_areas_of_leica_is_white_and_the_macro_is_listed(tmp_path, canvas, areas):
    path = leica(tmp_path / "areas.scn", canvas, areas)
    with open_slide(path) as slide:
        assert slide.shape == (1200, 1200)
        assert (slide.mpp, slide.mpp_source, slide.objective) == ((0.5, 0.5), "Leica header", 20)
        assert "macro" in slide.associated_images
        assert slide.associated_image("macro").shape == (75, 75, 3)
        assert (slide.read(0, 0, 0, 100, 1200) == 255).all()
        assert (slide.read(1, 120, 0, 20, 300) == 255).all()
        assert slide.read(0, 110, 210, 50, 50).mean() < 200
        assert same_as_openslide(slide, path)


@pytest.mark.parametrize("make", [ventana, trestle, lambda path, canvas: leica(path, canvas, 2)])
def test_without_openslide_they_are_refused_with_the_extra_to_install(tmp_path, canvas, monkeypatch, make):
    path = make(tmp_path / "slide.tif", canvas)
    monkeypatch.setattr("napari_her2.slide.backends.find_spec", lambda name: None)
    with pytest.raises(
        SlideError, match=r"only OpenSlide puts together.*pip install 'napari-her2\[openslide\]'"
    ):
        open_slide(path)


def test_whoever_insists_on_tiffslide_is_told_that_the_image_is_wrong(tmp_path, canvas):
    with open_slide(ventana(tmp_path / "ventana.bif", canvas), backend="tiffslide") as slide:
        assert any("Ventana" in warning and "wrong" in warning for warning in slide.warnings)


def test_what_tiffslide_warns_of_is_told_in_words(tmp_path, monkeypatch):
    import warnings

    from tiffslide.tiffslide import _PropertyParser

    parse = _PropertyParser.parse_generic_tiff

    def warning_parser(self):
        warnings.warn("hamamatsu-format metadata parsing only partially implemented!", stacklevel=2)
        warnings.warn("the colours may be off!", stacklevel=2)
        return parse(self)

    monkeypatch.setattr(_PropertyParser, "parse_generic_tiff", warning_parser)
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb", tile=(32, 32), metadata=None
    )
    with open_slide(tmp_path / "a.tif") as slide:
        assert len(slide.warnings) == 2
        assert "only a part of Hamamatsu headers" in slide.warnings[0]
        assert "the colours may be off" in slide.warnings[1]
