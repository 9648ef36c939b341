"""What a header claims is checked before a library believes it: no hang, no abort, no gigabytes."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest
import tifffile

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from napari_her2.slide.files import ByteFile
from napari_her2.slide.tiff_chain import MAX_DIRECTORIES, read_headers
from napari_her2.slide.tiff_colour import rgb

if TYPE_CHECKING:
    from pathlib import Path

TILE = 64
IMAGE = np.random.default_rng(3).integers(0, 255, (TILE * 2, TILE * 3, 3)).astype(np.uint8)
WIDTH, LENGTH, BITS, SAMPLES, ROWS = 256, 257, 258, 277, 278
TILE_WIDTH, TILE_LENGTH, TILE_BYTES = 322, 323, 325


def written(path: Path, **options) -> Path:
    tifffile.imwrite(path, IMAGE, photometric="rgb", metadata=None, **options)
    return path


def tiled(path: Path, **options) -> Path:
    return written(path, tile=(TILE, TILE), **options)


def state(path: Path, changes: dict[int, int]) -> None:
    """Rewrite the values of tags of the first directory, as LONG."""
    with tifffile.TiffFile(path) as tiff:
        places = [(tiff.pages[0].tags[code].offset, value) for code, value in changes.items()]
    with path.open("r+b") as file:
        for place, value in places:
            file.seek(place + 2)
            file.write(struct.pack("<HII", 4, 1, value))


def link(path: Path, of: int, to: int) -> None:
    """Let directory `of` be followed by directory `to`."""
    with tifffile.TiffFile(path) as tiff:
        offsets = [page.offset for page in tiff.pages]
    with path.open("r+b") as file:
        file.seek(offsets[of])
        (entries,) = struct.unpack("<H", file.read(2))
        file.seek(offsets[of] + 2 + 12 * entries)
        file.write(struct.pack("<I", offsets[to]))


def two_directories(path: Path) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for image in (IMAGE, IMAGE[::2, ::2]):
            writer.write(image, photometric="rgb", tile=(16, 16), metadata=None)
    return path


@pytest.mark.parametrize("to", [0, 1])
def test_a_list_of_images_that_runs_in_a_circle_is_refused(tmp_path, to):
    path = two_directories(tmp_path / "circle.tif")
    link(path, 1, to)
    with pytest.raises(SlideError, match="runs in a circle; copy it again"):
        open_slide(path)


def chained(path: Path, count: int) -> Path:
    """A TIFF whose directories, of one entry each, follow each other."""
    size = 2 + 12 + 4
    with path.open("wb") as file:
        file.write(struct.pack("<2sHI", b"II", 42, 8))
        for number in range(count):
            following = 8 + size * (number + 1) if number + 1 < count else 0
            file.write(struct.pack("<HHHIII", 1, WIDTH, 4, 1, 16, following))
    return path


def test_a_hundred_thousand_images_are_refused_as_no_slide(tmp_path):
    with pytest.raises(SlideError, match="more than 2,000 images"):
        open_slide(chained(tmp_path / "chain.tif", 100_000))
    file = ByteFile(chained(tmp_path / "shorter.tif", MAX_DIRECTORIES))
    assert read_headers(file).state == "whole"


def test_sub_directories_that_lead_back_end_the_walk(tmp_path):
    path = tmp_path / "sub.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"tile": (16, 16), "photometric": "rgb"}
        writer.write(IMAGE, subifds=1, **options)
        writer.write(IMAGE[::2, ::2], subfiletype=1, **options)
    with tifffile.TiffFile(path) as tiff:
        first = tiff.pages[0]
        tag, own = first.tags[330], first.offset
    with path.open("r+b") as file:
        file.seek(tag.valueoffset)
        file.write(struct.pack("<Q" if tag.dtype in (16, 18) else "<I", own))
    try:
        with open_slide(path) as slide:
            assert np.array_equal(slide.read(0, 0, 0, *slide.shape), IMAGE)
    except SlideError as error:
        assert "copy it again" in str(error) or "export" in str(error)  # noqa: PT017 - refused in words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({WIDTH: 768, LENGTH: 1 << 30}, "768 x 1,073,741,824 px, more than fits on glass"),
        (
            {WIDTH: 20_000, LENGTH: 20_000, TILE_WIDTH: 20_000, TILE_LENGTH: 20_000},
            "tiles of 20,000 x 20,000 px",
        ),
        ({TILE_WIDTH: 214_016, TILE_LENGTH: 214_016}, "tiles of 214,016 x 214,016 px"),
        ({WIDTH: 1_000_000, LENGTH: 1_000_000}, "more than a file of"),
        ({TILE_WIDTH: 0}, "tiles of 0 x 64 px"),
        ({SAMPLES: 60_000}, "60,000 channels"),
    ],
)
@pytest.mark.parametrize("backend", ["auto", "tiffslide", "openslide"])
def test_tiles_and_images_larger_than_a_slide_or_its_file_are_refused(tmp_path, changes, words, backend):
    path = tiled(tmp_path / "claim.tif", compression="deflate")
    state(path, changes)
    with pytest.raises(SlideError, match=words):
        open_slide(path, backend=backend)


@pytest.mark.parametrize("backend", ["auto", "openslide"])
def test_openslide_meets_no_tile_that_is_longer_than_the_file(tmp_path, backend):
    pytest.importorskip("openslide")
    path = tiled(tmp_path / "long.tif", compression="deflate", bigtiff=False)
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags[TILE_BYTES].offset
    with path.open("r+b") as file:
        file.seek(place + 2)
        file.write(struct.pack("<H", 16))  # pairs of lengths are read as one, of 64 bits
    with pytest.raises(SlideError, match=r"longer than the whole file|cut off") as refused:
        open_slide(path, backend=backend)
    if backend == "openslide":
        assert "longer than the whole file" in str(refused.value)


def test_a_damaged_colour_profile_is_none(tmp_path):
    pytest.importorskip("openslide")
    path = tiled(tmp_path / "profile.tif", compression="deflate", iccprofile=b"no profile" * 20)
    with open_slide(path, backend="openslide") as slide:
        assert slide.icc_profile is None
        assert np.array_equal(slide.read(0, 0, 0, *slide.shape), IMAGE)


def test_single_bits_in_a_codec_of_whole_bytes_are_refused(tmp_path):
    path = tmp_path / "bits.tif"
    tifffile.imwrite(
        path, IMAGE[..., 0], photometric="minisblack", metadata=None, tile=(TILE, TILE), compression="jpeg"
    )
    with open_slide(path, mpp=0.5) as slide:
        assert slide.read(0, 0, 0, 1, 1).shape == (1, 1, 3)
    state(path, {BITS: 1})
    with pytest.raises(SlideError, match="not an 8-bit brightfield image"):
        open_slide(path, mpp=0.5)


@pytest.mark.parametrize(("code", "value"), [(WIDTH, -64), (LENGTH, -1), (LENGTH, 0), (WIDTH, 0)])
def test_an_image_without_pixels_is_refused(tmp_path, code, value):
    path = tiled(tmp_path / "signed.tif", compression="deflate")
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags[code].offset
    with path.open("r+b") as file:
        file.seek(place + 2)
        file.write(struct.pack("<HIi", 9, 1, value))  # a signed LONG
    with pytest.raises(SlideError, match="copy it again"):
        open_slide(path)


def test_a_huge_image_in_one_compressed_piece_is_refused_with_what_to_do(tmp_path):
    path = written(tmp_path / "strip.tif", rowsperstrip=128, compression="deflate")
    state(path, {WIDTH: 100_000, LENGTH: 100_000, ROWS: 100_000})
    with pytest.raises(SlideError, match=r"in one compressed piece.*save it as a tiled TIFF"):
        open_slide(path)


def test_an_uncompressed_image_in_one_piece_is_bounded_by_its_file(tmp_path):
    path = written(tmp_path / "strip.tif", rowsperstrip=128)
    with open_slide(path) as slide:
        assert np.array_equal(slide.read(0, 0, 0, *slide.shape), IMAGE)


PEAK_OF_A_READ = """
import resource, sys
from napari_her2 import open_slide
from napari_her2.errors import SlideError
slide = open_slide(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    slide.read(0, 0, 0, 64, 64)
except SlideError as error:
    print(error)
taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(taken * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module")
@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000"])
def test_a_tile_that_holds_a_picture_of_many_times_its_size_is_damage_and_is_not_decoded(
    tmp_path, compression
):
    picture = np.full((6000, 6000, 3), 200, np.uint8)
    if compression == "jpeg":
        code = imagecodecs.jpeg8_encode(picture, level=50)
    else:
        code = imagecodecs.jpeg2k_encode(picture, level=20, codecformat="J2K")
    path = tmp_path / "frame.tif"
    tifffile.imwrite(
        path,
        iter([bytes(code)]),
        shape=(TILE, TILE, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        compression=compression,
        photometric="rgb",
        metadata=None,
    )
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_A_READ, str(path)],
        capture_output=True,
        timeout=120,
        check=True,
        text=True,
    )
    said, taken = done.stdout.strip().splitlines()
    assert "damaged at y 0, x 0" in said
    assert int(taken) < 80_000_000  # the picture would be 108 MB


def test_a_jpeg_tile_smaller_than_its_place_at_the_edge_is_read(tmp_path):
    small = np.full((40, 30, 3), 120, np.uint8)
    code = bytes(imagecodecs.jpeg8_encode(small, level=95))
    tifffile.imwrite(
        tmp_path / "edge.tif",
        iter([code]),
        shape=small.shape,
        dtype=np.uint8,
        tile=(TILE, TILE),
        compression="jpeg",
        photometric="ycbcr",
        subsampling=(2, 2),
    )
    with open_slide(tmp_path / "edge.tif") as slide:
        assert np.abs(slide.read(0, 0, 0, 40, 30).astype(int) - small).max() <= 2


def test_a_large_picture_with_transparency_is_blended_without_gigabytes():
    pixels = np.zeros((3000, 3000, 4), np.uint8)
    pixels[:1500, :, 3] = 255
    tracemalloc.start()
    try:
        blended = rgb(pixels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (blended[:1500] == 0).all()
    assert (blended[1500:] == 255).all()
    assert peak < 2 * blended.nbytes
