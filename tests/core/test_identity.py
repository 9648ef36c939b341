"""Which slide it is: files that share size, head and tail are told apart, and copies are not."""

from __future__ import annotations

import json
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile

from napari_her2 import open_slide
from napari_her2.cohort import Case, score_cohort_steps
from napari_her2.inference.device import choose_device
from napari_her2.inference.embed import embed_steps
from napari_her2.slide.content_hash import head_sha256
from napari_her2.slide.identity import content_sha256

SIDE, TILE, STRIP = 1024, 256, 64
PADDED = 256 * 1024  # bytes of every stored part: sixteen of them, so that 6 to 9 are in neither end
DIFFERENT = range(6, 10)
MIB = 1 << 20


def finish(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def lay(pixels, side):
    """The parts of an image in their order: tiles, or strips where ``side`` is the whole width."""
    rows = TILE if side == TILE else STRIP
    return [
        np.ascontiguousarray(pixels[y : y + rows, x : x + side])
        for y in range(0, SIDE, rows)
        for x in range(0, SIDE, side)
    ]


@pytest.fixture(scope="module")
def tissue(small_pair):
    with open_slide(small_pair.he) as slide:
        thumbnail = slide.tissue().mask
        y, x = (np.argwhere(thumbnail).mean(axis=0) * slide.tissue().downsample).astype(int)
        return slide.read(0, int(y) - SIDE // 2, int(x) - SIDE // 2, SIDE, SIDE)


ENCODERS = {
    "none": lambda part: part.tobytes(),
    "jpeg": lambda part: imagecodecs.jpeg8_encode(part, 90, subsampling="444"),
    "jpeg2000": lambda part: imagecodecs.jpeg2k_encode(part, level=60, codecformat="j2k"),
    "lzw": imagecodecs.lzw_encode,
    "deflate": imagecodecs.zlib_encode,
}
CODES = {"jpeg": 7, "jpeg2000": 34712, "lzw": 5, "deflate": 8}


def write_tiff(path, pixels, *, codec, strips, **options):
    parts = lay(pixels, SIDE if strips else TILE)
    data = [ENCODERS[codec](part) for part in parts]
    if codec != "none":
        # Behind its end the data of a tile are nobody's: as long in both slides.
        assert max(map(len, data)) < PADDED
        data = [part.ljust(PADDED, b"\0") for part in data]
    layout = {"rowsperstrip": STRIP} if strips else {"tile": (TILE, TILE)}
    extra = {"compression": CODES[codec]} if codec in CODES else {}
    tifffile.imwrite(
        path,
        iter(data),
        shape=pixels.shape,
        dtype=np.uint8,
        photometric="ycbcr" if codec == "jpeg" else "rgb",
        subsampling=(1, 1) if codec == "jpeg" else None,
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
        **layout,
        **extra,
        **options,
    )


def write_png(path, pixels):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(lines, 0))
        + chunk(b"teXt", b"x" * MIB)
        + chunk(b"IEND", b"")
    )


def write_jpeg(path, pixels):
    comments = (b"\xff\xfe" + struct.pack(">H", 65_002) + bytes(65_000)) * 17
    data = imagecodecs.jpeg8_encode(pixels, 90)
    gap = 3 * MIB - len(data)
    rest = 60_000 + gap % 60_000
    sizes = [60_000] * (gap // 60_000 - 1) + [rest // 2, rest - rest // 2]
    padding = b"".join(b"\xff\xfe" + struct.pack(">H", size - 2) + bytes(size - 4) for size in sizes)
    path.write_bytes(data[:2] + comments + data[2:-2] + padding + comments + data[-2:])


OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{SIDE}" '
    f'SizeY="{SIDE}" SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.5"><Channel '
    'ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
)
KINDS = {
    f"{codec}-{'strips' if strips else 'tiles'}": lambda path, pixels, codec=codec, strips=strips: write_tiff(
        path, pixels, codec=codec, strips=strips
    )
    for codec in ENCODERS
    for strips in (False, True)
}
KINDS |= {
    "bigtiff": lambda path, pixels: write_tiff(path, pixels, codec="lzw", strips=False, bigtiff=True),
    "ome": lambda path, pixels: write_tiff(
        path, pixels, codec="deflate", strips=False, description=OME, metadata=None
    ),
    "png": write_png,
    "jpg": write_jpeg,
}
ENDINGS = {"png": ".png", "jpg": ".jpg", "ome": ".ome.tif"}


def make_twins(kind, tissue, folder):
    """Two slides of one name, of one size, and of one first and last MiB."""
    strips = kind.endswith("strips") or kind in ("png", "jpg")
    parts = lay(tissue, SIDE if strips else TILE)
    parts = [part[:, ::-1] if at in DIFFERENT else part for at, part in enumerate(parts)]
    rows = parts if strips else [np.hstack(parts[at : at + 4]) for at in range(0, 16, 4)]
    paths = []
    for name, pixels in (("first", tissue), ("second", np.vstack(rows))):
        path = folder / name / f"core{ENDINGS.get(kind, '.tif')}"
        path.parent.mkdir()
        KINDS[kind](path, pixels)
        paths.append(path)
    first, second = paths
    assert first.stat().st_size == second.stat().st_size
    assert head_sha256(first) == head_sha256(second)
    return first, second


def embed(path, bundle, *, cache=True):
    with open_slide(path, mpp=0.5) as slide:
        grid = slide.tile_grid(bundle.card.tile_px, bundle.card.mpp)
        keep = np.zeros(grid.shape, bool)
        keep[4:7] = True  # in the middle
        return finish(embed_steps(slide, bundle.encoder, grid, keep, choose_device("cpu"), cache=cache))


@pytest.mark.parametrize("kind", KINDS)
def test_a_slide_that_differs_in_its_middle_alone_has_its_own_features(kind, tissue, tiny_bundle, tmp_path):
    first, second = make_twins(kind, tissue, tmp_path)
    of_first, of_second = embed(first, tiny_bundle), embed(second, tiny_bundle)
    assert of_second.cached == 0
    assert np.array_equal(of_second.features, embed(second, tiny_bundle, cache=False).features)
    assert not np.array_equal(of_second.features, of_first.features)


@pytest.mark.parametrize("kind", ["none-tiles", "png"])
def test_a_slide_that_differs_in_its_middle_alone_is_not_finished(kind, tissue, tiny_model, tmp_path):
    first, second = make_twins(kind, tissue, tmp_path)
    for path, expected in ((first, "done"), (first, "skipped"), (second, "failed")):
        steps = score_cohort_steps(
            [Case(path, mpp=0.5)], tiny_model, tmp_path / "out", device="cpu", skip_finished=True
        )
        (outcome,) = finish(steps).outcomes
        assert outcome.state == expected
    assert "another slide of the same name" in str(outcome.error)
    second = second.rename(first)
    steps = score_cohort_steps([Case(first, mpp=0.5)], tiny_model, tmp_path / "new", device="cpu")
    (outcome,) = finish(steps).outcomes
    values = json.loads((outcome.written / "result.json").read_text("utf-8"))
    assert values["slide_sha256"] == content_sha256(first)
    assert values["slide_sha256_head"] == head_sha256(first)


def test_a_copy_is_the_same_slide_and_one_changed_byte_anywhere_is_another(tmp_path):
    rng = np.random.default_rng(0)
    content = rng.bytes(35 * MIB + 17)  # three chunks, the last of them short
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    seen = {content_sha256(path)}
    (tmp_path / "b.svs").write_bytes(content)
    assert content_sha256(tmp_path / "b.svs") in seen
    for place in (0, 16 * MIB - 1, 16 * MIB, 20 * MIB, 32 * MIB, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        seen.add(content_sha256(path))
    path.write_bytes(content[16 * MIB : 32 * MIB] + content[: 16 * MIB] + content[32 * MIB :])
    seen.add(content_sha256(path))
    path.write_bytes(content + b"\0")
    seen.add(content_sha256(path))
    assert len(seen) == 9
