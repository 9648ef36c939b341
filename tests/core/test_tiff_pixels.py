"""Pixels of a TIFF, whatever its colours, codec and layout: others read them alike."""

from __future__ import annotations

import io
import itertools
import threading
from typing import TYPE_CHECKING

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from napari_her2.slide import decode, tiff_levels
from napari_her2.slide.files import DamagedTile

if TYPE_CHECKING:
    from pathlib import Path

from tiff_pictures import IMAGE, RNG, halved, picture, whole

# Colours


@pytest.mark.parametrize("kind", ["uint16", "12 in 16", "float32"])
def test_other_than_8_bits_is_refused_by_every_library(tmp_path, kind):
    scale = {"uint16": 257, "12 in 16": 16, "float32": 1 / 255}[kind]
    pixels = (IMAGE.astype(float) * scale).astype("float32" if kind == "float32" else "uint16")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(64, 64))
    with pytest.raises(SlideError, match="8-bit"):
        open_slide(tmp_path / "a.tif")


CODECS = [None, "lzw", "deflate", "packbits", "zstd"]


@pytest.mark.parametrize("compression", CODECS)
@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 50}])
@pytest.mark.parametrize(
    "kind", ["palette", "inverted", "cmyk", "premultiplied", "straight", "unspecified", "two more"]
)
def test_colours_are_those_that_pil_shows(tmp_path, kind, compression, layout):
    path = tmp_path / "a.tif"
    alpha = np.full(IMAGE.shape[:2], 255, np.uint8)
    alpha[:, :160] = 128
    pil = Image.fromarray(IMAGE)
    options: dict[str, object] = {"photometric": "rgb"}
    truth = IMAGE
    if kind == "palette":
        reduced = pil.quantize(256)
        pixels, truth = np.asarray(reduced), np.asarray(reduced.convert("RGB"))
        table = np.zeros((256, 3), np.uint16)
        colours = np.array(reduced.getpalette()).reshape(-1, 3)
        table[: len(colours)] = colours * 257
        options = {"photometric": "palette", "colormap": table.T}
    elif kind == "inverted":
        pixels, truth = 255 - IMAGE[..., 0], IMAGE[..., :1].repeat(3, 2)
        options = {"photometric": "miniswhite"}
    elif kind == "cmyk":
        ink = pil.convert("CMYK")
        pixels, truth = np.asarray(ink), np.asarray(ink.convert("RGB"))
        options = {"photometric": "separated"}
    elif kind in ("premultiplied", "straight"):
        white = Image.new("RGBA", pil.size, "white")
        seen = Image.fromarray(np.dstack([IMAGE, alpha]))
        truth = np.asarray(Image.alpha_composite(white, seen).convert("RGB"))
        scaled = (IMAGE * (alpha[..., None] / 255)).round().astype(np.uint8)
        pixels = np.dstack([scaled if kind == "premultiplied" else IMAGE, alpha])
        options["extrasamples"] = ["assocalpha" if kind == "premultiplied" else "unassalpha"]
    else:
        more = [np.zeros_like(alpha)] * (1 if kind == "unspecified" else 2)
        pixels, options["extrasamples"] = np.dstack([IMAGE, *more]), ["unspecified"] * len(more)
    tifffile.imwrite(path, pixels, compression=compression, metadata=None, **layout, **options)
    assert np.abs(whole(path).astype(int) - truth).max() <= 1


@pytest.mark.parametrize("kind", ["ycbcr", "cielab"])
@pytest.mark.parametrize("compression", ["none", "lzw"])
def test_colour_differences_without_jpeg_are_converted(tmp_path, kind, compression):
    path = tmp_path / "a.tif"
    if kind == "ycbcr":
        stored, code = np.asarray(Image.fromarray(IMAGE).convert("YCbCr")), 6
    else:
        stored, code = cv2.cvtColor(IMAGE, cv2.COLOR_RGB2LAB), 8
        stored = stored ^ np.array([0, 128, 128], np.uint8)
    tags = [(530, "H", 2, (1, 1), True)] if kind == "ycbcr" else []
    tifffile.imwrite(
        path, stored, photometric="rgb", tile=(64, 64), compression=compression, extratags=tags, metadata=None
    )
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags["PhotometricInterpretation"].valueoffset
    with path.open("r+b") as file:
        file.seek(place)
        file.write(code.to_bytes(2, "little"))
    assert np.abs(whole(path).astype(int) - IMAGE).mean() < 1


# What is not stored


def zero_tile(path: Path, page: int, number: int, *, offset_too: bool) -> None:
    with tifffile.TiffFile(path) as tiff:
        tags = [tiff.pages[page].tags[code] for code in (325, 324)]
        places = [(tag.valueoffset, {3: 2, 4: 4, 16: 8}[tag.dtype]) for tag in tags]
    with path.open("r+b") as file:
        for place, size in places if offset_too else places[:1]:
            file.seek(place + number * size)
            file.write(bytes(size))


@pytest.mark.parametrize("offset_too", [False, True])
@pytest.mark.parametrize(
    "compression", [None, "lzw", "deflate", "zstd", "jpeg", "jpeg2000", "webp", "png", "jpegxl"]
)
def test_what_is_not_stored_is_white_in_every_codec(tmp_path, compression, offset_too):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, photometric="rgb", tile=(64, 64), compression=compression, metadata=None)
    stored = whole(path)
    zero_tile(path, 0, 6, offset_too=offset_too)
    with open_slide(path) as slide:
        pixels = slide.read(0, 0, 0, *slide.shape)
        assert slide.warnings == ()
    gap = slice(64, 128), slice(64, 128)
    assert (pixels[gap] == 255).all()
    stored[gap] = 255
    assert np.array_equal(pixels, stored)


@pytest.mark.parametrize("samples", [1, 2, 4, 5])
def test_what_is_not_stored_is_white_with_any_number_of_samples(tmp_path, samples):
    path = tmp_path / "a.tif"
    pixels = np.dstack([IMAGE, IMAGE])[..., :samples].squeeze()
    grey = samples < 3
    extra = {1: [], 2: ["unassalpha"], 4: ["unassalpha"], 5: ["unspecified"] * 2}[samples]
    more = {"extrasamples": extra, "planarconfig": "contig"} if extra else {}
    tifffile.imwrite(
        path, pixels, photometric="minisblack" if grey else "rgb", tile=(64, 64), metadata=None, **more
    )
    zero_tile(path, 0, 6, offset_too=True)
    assert (whole(path)[64:128, 64:128] == 255).all()


@pytest.mark.parametrize("offset_too", [False, True])
def test_a_gap_in_a_coarse_level_is_made_from_the_finer_one(tmp_path, offset_too):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for times in (0, 1, 2):
            level = halved(IMAGE, times) if times else IMAGE
            writer.write(level, photometric="rgb", tile=(64, 64), metadata=None, subfiletype=min(times, 1))
    for page, number in ((1, 1), (2, 0)):  # the coarsest from one that is made itself
        zero_tile(path, page, number, offset_too=offset_too)
    zero_tile(path, 0, 0, offset_too=True)
    truth = IMAGE.copy()
    truth[:64, :64] = 255
    assert np.array_equal(whole(path, 1)[:64, 64:128], halved(truth)[:64, 64:128])
    seen, expected = whole(path, 2), halved(IMAGE, 2)
    assert np.abs(seen.astype(int) - expected).max() <= 2  # the level between is stored at this corner
    with open_slide(path) as slide:
        assert slide.warnings == ()


# Strips


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_one_strip_for_the_whole_image_is_decoded_once(tmp_path, monkeypatch, compression):
    path = tmp_path / "a.tif"
    image = picture(1200, 700)
    tifffile.imwrite(
        path, image, photometric="rgb", rowsperstrip=1200, compression=compression, metadata=None
    )
    monkeypatch.setattr(tiff_levels, "_LARGE_PIXELS", 1 << 16)
    decoded = []
    plain = decode.raw_decoder

    def counted(*arguments, **named):
        decoder = plain(*arguments, **named)
        return lambda data, number=0: decoded.append(len(data)) or decoder(data, number)

    monkeypatch.setattr(decode, "raw_decoder", counted)
    with open_slide(path) as slide:
        for y in range(0, 1200, 100):
            assert np.array_equal(slide.read(0, y, 50, 100, 300), image[y : y + 100, 50:350])
        threads = [threading.Thread(target=slide.read, args=(0, 0, 0, 300, 300)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if compression:
        assert len(decoded) == 1
    else:
        assert max(decoded) < path.stat().st_size / 4


# JPEG 2000


def j2k(image: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG2000", no_jp2=True, **options)
    return stream.getvalue()


def test_empty_packets_of_jpeg_2000_are_no_damage():
    blank = np.full((256, 256, 3), 240, np.uint8)
    layers = list(range(400, 0, -2))
    plain = j2k(blank, quality_layers=layers, num_resolutions=6, irreversible=True)
    body = plain.removesuffix(b"\xff\xd9")
    # OpenJPEG calls a packet present that includes nothing (0x80); others call it empty (0x00).
    count = len(body) - len(body.rstrip(b"\x80"))
    data = body[:-count] + bytes(count) + b"\xff\xd9"
    assert count > 256
    decoder = decode.jpeg2000_decoder((256, 256), stored_as_ycbcr=False)
    assert np.array_equal(decoder(data, 0), imagecodecs.jpeg2k_decode(plain))


def test_zeroed_jpeg_2000_with_many_layers_is_still_damage():
    noise = RNG.integers(0, 255, (256, 256, 3)).astype(np.uint8)
    data = j2k(noise, quality_layers=list(range(40, 0, -2)), num_resolutions=6, irreversible=True)
    third = len(data) // 3
    decoder = decode.jpeg2000_decoder((256, 256), stored_as_ycbcr=False)
    with pytest.raises(DamagedTile, match="corrupt"):
        decoder(data[:third] + bytes(third) + data[2 * third :], 0)


# Any layout


LAYOUTS = [{"tile": (16, 32)}, {"tile": (64, 64)}, *({"rowsperstrip": rows} for rows in (1, 7, 999))]
WHOLE_PICTURES = ("png", "webp", "jpeg2000")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    layout=st.sampled_from(LAYOUTS),
    compression=st.sampled_from([None, "lzw", "deflate", "zstd", "packbits", *WHOLE_PICTURES]),
    kind=st.sampled_from(["rgb", "planes", "grey", "inverted", "two more", "two more planes"]),
    predictor=st.booleans(),
    order=st.sampled_from("<>"),
    big=st.booleans(),
    levels=st.integers(1, 3),
)
def test_any_layout_equals_tifffile(
    tmp_path_factory, shape, layout, compression, kind, predictor, order, big, levels
):
    path = tmp_path_factory.mktemp("any") / "a.tif"
    image = IMAGE[: shape[0], : shape[1]]
    levels = levels if min(shape) > 7 else 1  # two grey images of one size are channels
    options: dict[str, object] = {"photometric": "rgb", "planarconfig": "contig"}
    if compression in WHOLE_PICTURES:
        layout = {"tile": (64, 64)}
        kind = "rgb" if compression == "webp" or kind.startswith("two") else kind
    if kind.startswith("two"):
        image = np.dstack([image, image[..., :2]])
        options["extrasamples"] = ["unspecified"] * 2
    if kind in ("grey", "inverted"):
        image, options = image[..., 0], {"photometric": "minisblack" if kind == "grey" else "miniswhite"}
    if kind.endswith("planes"):
        image, options["planarconfig"] = np.moveaxis(image, -1, 0), "separate"
    axes = (-2, -1) if kind.endswith("planes") or image.ndim == 2 else (0, 1)
    with tifffile.TiffWriter(path, byteorder=order, bigtiff=big) as writer:
        for number in range(levels):  # every second, fourth pixel: any smaller picture will do
            step = 1 << number
            cut = [slice(None)] * image.ndim
            cut[axes[0]] = cut[axes[1]] = slice(0, None, step)
            writer.write(
                np.ascontiguousarray(image[tuple(cut)]),
                compression=compression,
                predictor=predictor and compression in ("lzw", "deflate", "zstd"),
                metadata=None,
                subfiletype=min(number, 1),
                **({"compressionargs": {"lossless": True}} if compression == "webp" else {}),
                **layout,
                **options,
            )
    with tifffile.TiffFile(path) as tiff:
        stored = [page.asarray() for page in tiff.pages]
    with open_slide(path) as slide:
        sizes = [truth.shape[axes[0]] * truth.shape[axes[1]] for truth in stored]
        assert len(slide.level_shapes) == 1 + sum(a > b for a, b in itertools.pairwise(sizes))
        for number, (height, width) in enumerate(slide.level_shapes):
            truth = stored[number]
            truth = np.moveaxis(truth, 0, -1) if kind.endswith("planes") else truth
            truth = truth[..., None].repeat(3, axis=2) if truth.ndim == 2 else truth[..., :3]
            truth = 255 - truth if kind == "inverted" else truth
            assert np.array_equal(slide.read(number, 0, 0, height, width), truth)
