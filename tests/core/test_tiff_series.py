"""TIFFs of makers whose pages belong together in a way of their own: Hamamatsu, Akoya, Philips."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from napari_her2.slide.tiff_backend import TiffBackend

if TYPE_CHECKING:
    from pathlib import Path

openslide = pytest.importorskip("openslide", reason="the OpenSlide extra is not installed")


def picture(height: int, width: int) -> np.ndarray:
    """Bright, smooth and coloured, as stained tissue on glass is."""
    y, x = np.indices((height, width))
    waves = np.stack([np.sin(y / 17) + np.cos(x / 23), np.cos(y / 11 + x / 31), np.sin(x / 13)], axis=-1)
    return (180 + 30 * waves).clip(0, 255).astype(np.uint8)


def levels_of(image: np.ndarray) -> list[np.ndarray]:
    sizes = [(image.shape[1] >> times, image.shape[0] >> times) for times in (1, 2)]
    return [image, *(cv2.resize(image, size, interpolation=cv2.INTER_AREA) for size in sizes)]


def ycc(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("YCbCr"))


def assert_as_openslide_reads_it(path: Path) -> None:
    """Every level that both know, whole and in windows that begin anywhere."""
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        assert slide.backend.startswith("tiffslide")
        for number, shape in enumerate(slide.level_shapes):
            assert other.level_dimensions[number] == shape[::-1]
            truth = np.asarray(other.read_region((0, 0), number, shape[::-1]))[..., :3]
            assert np.array_equal(slide.read(number, 0, 0, *shape), truth)
            assert np.array_equal(slide.read(number, 13, 21, 40, 55), truth[13:53, 21:76])


# Hamamatsu


def jpeg(image: np.ndarray, restart: int) -> tuple[bytes, list[int]]:
    """A picture as NDPI holds it, and where each stretch between restart markers begins."""
    stream = io.BytesIO()
    more = {"restart_marker_blocks": restart} if restart else {}
    Image.fromarray(image).save(stream, "JPEG", quality=95, subsampling=0, **more)
    data = stream.getvalue()
    scan = data.index(b"\xff\xda")
    start = scan + 2 + struct.unpack(">H", data[scan + 2 : scan + 4])[0]
    marks = [at + 2 for at in range(start, len(data) - 1) if data[at] == 255 and 0xD0 <= data[at + 1] <= 0xD7]
    return data, [start, *marks]


def ndpi(path: Path, restart: int) -> list[np.ndarray]:
    """Write a small NDPI: classic TIFF with links of 64 bits, and each level one JPEG strip."""
    levels = levels_of(picture(256, 512))
    pages = [(level, 20 / (1 << number), 4 * restart) for number, level in enumerate(levels)]
    pages.append((picture(64, 200), -1.0, 0))  # the macro image
    file, link = bytearray(b"II*\0" + bytes(8)), 4
    for image, lens, interval in pages:
        data, starts = jpeg(image, interval // 4)
        file += bytes(len(file) % 2)
        place = len(file)
        file += data + bytes(len(data) % 2)
        height, width = image.shape[:2]
        pixels_per_cm = round(200 * lens * 5) if lens > 0 else 1
        values = {
            (256, "I"): [width],
            (257, "I"): [height],
            (258, "H"): [8, 8, 8],
            (259, "H"): [7],
            (262, "H"): [6],
            (271, "s"): b"Hamamatsu\0",
            (273, "I"): [place],
            (277, "H"): [3],
            (278, "I"): [height],
            (279, "I"): [len(data)],
            (282, "R"): [pixels_per_cm, 1],
            (283, "R"): [pixels_per_cm, 1],
            (296, "H"): [3],
            (65420, "I"): [1],
            (65421, "f"): [lens],
            (65422, "i"): [0],
            (65423, "i"): [0],
            (65424, "i"): [0],
            **({(65426, "I"): starts} if interval else {}),
        }
        kinds = {"H": 3, "I": 4, "R": 5, "s": 2, "i": 9, "f": 11}
        here, outside = len(file), bytearray()
        after = here + 2 + 12 * len(values) + 8 + 4 * len(values)  # the high words of offsets come last
        entries = struct.pack("<H", len(values))
        for (code, kind), value in values.items():
            count = len(value) // (2 if kind == "R" else 1)
            content = value if kind == "s" else struct.pack(f"<{len(value)}{kind.replace('R', 'I')}", *value)
            entries += struct.pack("<HHI", code, kinds[kind], count)
            if len(content) <= 4:
                entries += content.ljust(4, b"\0")
            else:
                entries += struct.pack("<I", after + len(outside))
                outside += content + bytes(len(content) % 2)
        struct.pack_into("<Q", file, link, here)
        link = here + len(entries)
        file += entries + bytes(8 + 4 * len(values)) + outside
    path.write_bytes(file)
    return levels


@pytest.mark.parametrize("restart", [0, 8, 16])
@pytest.mark.parametrize("name", ["a.ndpi", "renamed.tif"])
def test_an_ndpi_is_read_with_and_without_restart_markers(tmp_path, name, restart):
    path = tmp_path / name
    levels = ndpi(path, restart)
    assert_as_openslide_reads_it(path)
    with open_slide(path) as slide:
        assert slide.level_shapes == tuple(level.shape[:2] for level in levels)
        assert slide.mpp == pytest.approx((0.5, 0.5))
        assert slide.objective == 20
        assert slide.associated_images == ("macro",)
        assert slide.associated_image("macro").shape == (64, 200, 3)


def test_the_rows_of_an_ndpi_are_read_in_bands_and_not_eight_at_a_time(tmp_path):
    ndpi(tmp_path / "a.ndpi", 8)
    with tifffile.TiffFile(tmp_path / "a.ndpi") as tiff:
        assert (tiff.pages[0].tilelength, tiff.pages[0].tilewidth) == (8, 64)
    backend = TiffBackend(tmp_path / "a.ndpi")
    assert backend.levels[0].tile_shape == (256, 256)
    backend.close()


# Akoya


def qptiff(path: Path, channels: list[np.ndarray], **options: object) -> None:
    """Full resolution, thumbnail, coarser levels, overview and label, as Phenoptics writes them."""

    def said(kind: str) -> str:
        return (
            '<?xml version="1.0" encoding="utf-16"?><PerkinElmer-QPI-ImageDescription><ImageType>'
            f"{kind}</ImageType></PerkinElmer-QPI-ImageDescription>"
        )

    stacks = [levels_of(channel) for channel in channels]
    common = {"software": "PerkinElmer-QPI", "metadata": None}
    scale = {"resolution": (2e4, 2e4), "resolutionunit": 3}
    with tifffile.TiffWriter(path) as writer:
        for number in range(3):
            for stack in stacks:
                writer.write(
                    stack[number],
                    tile=(64, 64),
                    compression="lzw",
                    description=said("ReducedResolution" if number else "FullResolution"),
                    subfiletype=min(number, 1),
                    **common,
                    **scale,
                    **options,
                )
            if number == 0:
                small = picture(60, 80)
                writer.write(small, photometric="rgb", description=said("Thumbnail"), **common)
        for kind, size in (("Overview", (70, 40)), ("Label", (40, 40))):
            writer.write(picture(*size), photometric="rgb", description=said(kind), **common)


def test_a_qptiff_in_colour_is_read_with_its_levels_and_further_images(tmp_path):
    path = tmp_path / "a.qptiff"
    qptiff(path, [picture(256, 320)], photometric="rgb")
    assert_as_openslide_reads_it(path)
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx((0.5, 0.5))
        assert {name: slide.associated_image(name).shape[:2] for name in slide.associated_images} == {
            "thumbnail": (60, 80),
            "macro": (70, 40),
            "label": (40, 40),
        }


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_qptiff_of_fluorescence_is_refused_as_such(tmp_path, count):
    dark = [(255 - picture(256, 320)[..., channel % 3]) // 3 for channel in range(count)]
    qptiff(tmp_path / "a.qptiff", dark, photometric="minisblack")
    with pytest.raises(SlideError, match="fluorescence"):
        open_slide(tmp_path / "a.qptiff")


# Philips

PIXELS = (
    '<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" '
    'Element="0x0030" PMSVR="IDoubleArray">&quot;{0}&quot; &quot;{0}&quot;</Attribute></DataObject>'
)
PHILIPS = (
    '<?xml version="1.0" encoding="UTF-8" ?>\n<DataObject ObjectType="DPUfsImport"><Attribute '
    'Name="DICOM_MANUFACTURER" Group="0x0008" Element="0x0070" PMSVR="IString">PHILIPS</Attribute><Attribute '
    'Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray"><Array>'
    '<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" '
    'Element="0x1004" PMSVR="IString">WSI</Attribute><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" '
    'Element="0x0030" PMSVR="IDoubleArray">&quot;0.00025&quot; &quot;0.00025&quot;</Attribute><Attribute '
    'Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" Element="0x8B01" '
    'PMSVR="IDataObjectArray"><Array>{levels}</Array></Attribute></DataObject></Array></Attribute>'
    "</DataObject>"
)


def test_a_philips_tiff_is_read_without_the_padding_of_its_levels(tmp_path):
    path = tmp_path / "a.tiff"
    levels = levels_of(picture(384, 640))
    said = PHILIPS.format(levels="".join(PIXELS.format(0.00025 * 2**number) for number in range(3)))
    options = {
        "photometric": "ycbcr",
        "compression": "jpeg",
        "software": "Philips DP v1.0",
        "metadata": None,
    }
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number, level in enumerate(levels):  # the sides stated are whole tiles
            padding = [(0, -level.shape[0] % 128), (0, -level.shape[1] % 128), (0, 0)]
            padded = np.pad(level, padding, constant_values=255)
            description = "" if number else said
            kind = min(number, 1)
            writer.write(ycc(padded), tile=(128, 128), description=description, subfiletype=kind, **options)
        for name in ("Macro", "Label"):
            writer.write(ycc(picture(64, 80)), rowsperstrip=16, description=name, subfiletype=1, **options)
    assert_as_openslide_reads_it(path)
    with open_slide(path) as slide:
        assert slide.level_shapes == ((384, 640), (192, 320), (96, 160))
        assert slide.mpp == pytest.approx((0.25, 0.25))
        assert slide.associated_images == ("macro", "label")
