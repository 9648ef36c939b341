"""Codecs, layouts and header fields: images written with tifffile come back pixel for pixel."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from napari_her2.slide.facts import checked_mpp, ome_facts
from napari_her2.slide.sources import FileTiles

IMAGE = np.random.default_rng(5).integers(0, 255, (150, 210, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (64, 48)},
        {"tile": (64, 48), "compression": "lzw"},
        {"tile": (64, 48), "compression": "deflate", "predictor": True},
        {"tile": (64, 48), "compression": "zstd"},
        {"tile": (64, 48), "compression": "jpeg2000"},
        {"tile": (64, 48), "bigtiff": True, "byteorder": ">"},
    ],
)
def test_tiled_lossless_images_are_decoded_directly(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="rgb", **options)
    with open_slide(tmp_path / "a.tif") as slide:
        assert np.array_equal(slide.read(0, 0, 0, *slide.shape), IMAGE)
        assert isinstance(slide._backend.levels[0], FileTiles)


@pytest.mark.parametrize(
    "options",
    [
        {"rowsperstrip": 32, "compression": "lzw"},
        {"tile": (64, 48), "planarconfig": "separate"},
        {"tile": (64, 48), "compression": "png"},
    ],
)
def test_strips_planes_and_other_codecs_are_read_as_well(tmp_path, options):
    image = IMAGE.transpose(2, 0, 1) if "planarconfig" in options else IMAGE
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", **options)
    with open_slide(tmp_path / "a.tif") as slide:
        assert np.array_equal(slide.read(0, 20, 30, 100, 90), IMAGE[20:120, 30:120])


def test_transparency_is_laid_over_white(tmp_path):
    alpha = np.zeros((*IMAGE.shape[:2], 1), np.uint8)
    alpha[:75] = 255
    image = np.concatenate([IMAGE, alpha], axis=2)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extrasamples=["unassalpha"], tile=(64, 64))
    with open_slide(tmp_path / "a.tif") as slide:
        pixels = slide.read(0, 0, 0, *slide.shape)
    assert np.array_equal(pixels[:75], IMAGE[:75])
    assert (pixels[75:] == 255).all()


def test_grey_becomes_rgb(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE[..., 0], tile=(64, 64), photometric="minisblack")
    with open_slide(tmp_path / "a.tif") as slide:
        assert np.array_equal(slide.read(0, 0, 0, *slide.shape), IMAGE[..., :1].repeat(3, 2))


def test_deeper_than_8_bits_is_refused_in_words(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE.astype(np.uint16), photometric="rgb", tile=(64, 64))
    with pytest.raises(SlideError, match="not an 8-bit brightfield image"):
        open_slide(tmp_path / "a.tif", backend="tiffslide")


def test_aperio_jpeg2000_in_ycbcr_has_the_right_colours(tmp_path):
    openslide = pytest.importorskip("openslide", reason="the OpenSlide extra is not installed")
    smooth = np.indices((256, 256)).transpose(1, 2, 0)
    rgb = np.dstack([smooth, 255 - smooth[..., :1]]).astype(np.float64)
    weights = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    ycbcr = np.clip(np.rint(rgb @ weights.T + [0, 128, 128]), 0, 255).astype(np.uint8)
    code = imagecodecs.jpeg2k_encode(ycbcr, level=0, codecformat="J2K", mct=False, reversible=True)
    path = tmp_path / "a.svs"
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            iter([bytes(code)]),
            shape=(256, 256, 3),
            dtype=np.uint8,
            tile=(256, 256),
            compression=33003,
            photometric="rgb",
            metadata=None,
            description="Aperio Image Library v10\n256x256 (256x256) J2K/YUV16|AppMag = 20|MPP = 0.5",
        )
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        pixels = slide.read(0, 0, 0, 256, 256)
        theirs = np.asarray(other.read_region((0, 0), 0, (256, 256)))[..., :3]
        assert slide.mpp == (0.5, 0.5)
    assert np.abs(pixels.astype(int) - rgb).max() <= 3
    assert np.abs(pixels.astype(int) - theirs).max() <= 2


@settings(max_examples=10, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    tile=st.sampled_from([(16, 16), (32, 16), (64, 80)]),
)
def test_any_shape_and_tile_size_comes_back(tmp_path_factory, shape, tile):
    path = tmp_path_factory.mktemp("any") / "a.tif"
    image = IMAGE[: shape[0], : shape[1]]
    tifffile.imwrite(path, image, photometric="rgb", tile=tile, compression="lzw")
    with open_slide(path) as slide:
        assert np.array_equal(slide.read(0, 0, 0, *shape), image)


@pytest.mark.parametrize("value", [0, -1, 0.0001, 352.8, float("inf"), "abc"])
def test_an_absurd_resolution_counts_as_not_stated_with_a_warning(value):
    mpp, source, warnings = checked_mpp(value, value, "Aperio header")
    assert mpp is None
    assert source == "not stated"
    assert "ignored" in warnings[0]


def test_an_absurd_resolution_in_a_file_is_ignored(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        IMAGE,
        photometric="rgb",
        tile=(64, 64),
        resolution=(72, 72),
        resolutionunit="INCH",
    )
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.mpp is None
        assert "352.8" in slide.warnings[0]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ('PhysicalSizeX="0.25" PhysicalSizeY="0.26"', (0.26, 0.25)),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.2"', (0.2, 0.25)),
        (
            'PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1" PhysicalSizeYUnit="pixel"',
            (None, None),
        ),
        ("", (None, None)),
    ],
)
def test_ome_xml_units_are_understood(attributes, expected):
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Instrument ID="I:0">'
        '<Objective ID="O:0" NominalMagnification="40.0"/></Instrument>'
        '<Image ID="Image:0"><Pixels SizeX="10" SizeY="9" PhysicalSizeX="9" PhysicalSizeY="9"/></Image>'
        '<Image ID="Image:1"><ObjectiveSettings ID="O:0"/>'
        f'<Pixels SizeX="70" SizeY="50" {attributes}/></Image></OME>'
    )
    y, x, objective = ome_facts(xml, (50, 70))
    assert (y, x) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert objective == 40
    assert ome_facts(xml, (1, 1)) is None
    assert ome_facts("<no xml", (50, 70)) is None
