"""TIFF headers to damage: generic, Aperio, OME and Leica files of a few kilobytes, classic and BigTIFF."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tifffile

from fuzz import Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MAX_READ = 512
_APERIO = "Aperio Image Library v12.0.0\r\n256x192 (64x64) JPEG/RGB Q=70|AppMag = 20|MPP = 0.5"
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8, 18: 8}
_NUMBERS = (
    *(0, 1, 2, 3, 7, 8, 15, 16, 63, 64, 255, 256, 1000, 20_000, 65_535, 65_536, 1 << 20, 1 << 24),
    *((1 << 30) - 1, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1),
)
_CODES = (
    *(254, 256, 257, 258, 259, 262, 266, 270, 273, 277, 278, 279, 282, 283, 284, 296, 305, 317, 320, 322),
    *(323, 324, 325, 330, 338, 339, 347, 530, 700, 32997, 33003, 34675, 65420, 65421, 0, 65535),
)
_COMPRESSIONS = (
    *(0, 1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 33003, 33005, 34712, 34887, 34925, 50000, 50001, 50002),
)
_PHOTOMETRICS = (0, 1, 2, 3, 4, 5, 6, 8, 32803, 34892)
_TEXTS = (b"NaN", b"1e999", b"-1", b"0,5", b"0" * 300, b"|", b"=", b"\xff\xfe", b"<", b"&", b'"', b"9" * 400)


class Place(NamedTuple):
    """Something of a directory: where it lies in the file, its size in bytes, and the tag it belongs to."""

    what: str
    offset: int
    size: int
    code: int = 0


def seeds(folder: Path) -> list[Path]:
    """Write the whole files."""
    y, x = np.indices((192, 256))
    rng = np.random.default_rng(0)
    image = np.stack([y, x, 255 - y], axis=-1) // 2 + rng.integers(0, 60, (192, 256, 3))
    image = image.astype(np.uint8)
    tiled = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
    scale = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    plain: dict[str, dict[str, object]] = {
        "jpeg": {"compression": "jpeg", **tiled, **scale},
        "deflate": {"compression": "deflate", "predictor": True, **tiled, **scale},
        "big": {"compression": "lzw", "bigtiff": True, **tiled, **scale},
        "swapped": {"byteorder": ">", **tiled, **scale},
        "jpeg2000": {"compression": "jpeg2000", **tiled, **scale},
        "strips": {"rowsperstrip": 32, "photometric": "rgb", "metadata": None, **scale},
        "webp": {"compression": "webp", **tiled, **scale},
        "png": {"compression": "png", **tiled, **scale},
        "jpegxl": {"compression": "jpegxl", **tiled, **scale},
        "planes": {"compression": "zstd", "planarconfig": "separate", **tiled},
        "strip": {"compression": "deflate", "rowsperstrip": 192, "photometric": "rgb", "metadata": None},
        "cmyk": {**tiled, "photometric": "separated"},
        "grey": {"compression": "jpeg", **tiled, "photometric": "minisblack"},
    }
    shaped = {"planes": image.transpose(2, 0, 1), "grey": image[..., 0]}
    shaped["cmyk"] = np.concatenate([image, image[..., :1]], axis=2)
    paths = []
    for name, options in plain.items():
        paths.append(folder / f"{name}.tif")
        tifffile.imwrite(paths[-1], shaped.get(name, image), **options)
    return [
        *paths,
        _aperio(folder / "aperio.tif", image),
        _ome(folder / "ome.tif", image),
        _leica(folder / "leica.tif", image),
    ]


def _aperio(path: Path, image: np.ndarray) -> Path:
    options = {"compression": "jpeg", "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(image, tile=(64, 64), description=_APERIO, **options)
        writer.write(image[::4, ::4], rowsperstrip=16, description=_APERIO.split("|")[0], **options)
        writer.write(image[::2, ::2], tile=(64, 64), description=_APERIO.split("|")[0], **options)
        writer.write(image[:40, :40], rowsperstrip=40, description="Aperio\r\nlabel 40x40", photometric="rgb")
    return path


def _ome(path: Path, image: np.ndarray) -> Path:
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"tile": (64, 64), "photometric": "rgb", "compression": "zstd"}
        writer.write(image, subifds=1, metadata={"axes": "YXS", **sizes}, **options)
        writer.write(image[::2, ::2], subfiletype=1, **options)
    return path


def _leica(path: Path, image: np.ndarray) -> Path:
    def area(name: str, first: int, sizes: list[tuple[int, int]], view: tuple[int, int, int, int]) -> str:
        levels = "".join(
            f'<dimension sizeX="{w}" sizeY="{h}" r="{r}" ifd="{first + r}" />'
            for r, (w, h) in enumerate(sizes)
        )
        return (
            f'<image name="{name}"><creationDate>2020</creationDate><device model="Leica" version="1" />'
            f'<pixels sizeX="{sizes[0][0]}" sizeY="{sizes[0][1]}">{levels}</pixels>'
            f'<view sizeX="{view[2]}" sizeY="{view[3]}" offsetX="{view[0]}" offsetY="{view[1]}" />'
            f"<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>"
            f"<illuminationSettings><numericalAperture>0.4</numericalAperture><illuminationSource>brightfield"
            f"</illuminationSource></illuminationSettings></scanSettings></image>"
        )

    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection '
        'name="c" sizeX="400000" sizeY="400000"><barcode>MQ==</barcode>'
        + area("macro", 0, [(64, 48)], (0, 0, 400_000, 400_000))
        + area("area", 1, [(256, 192), (64, 48)], (50_000, 60_000, 128_000, 96_000))
        + "</collection></scn>"
    )
    options = {"compression": "jpeg", "photometric": "rgb", "tile": (64, 64), "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(image[::4, ::4], description=xml, **options)
        writer.write(image, **options)
        writer.write(image[::4, ::4], **options)
    return path


def places(data: bytes) -> list[Place]:
    """Find what to damage: links, counts of entries, entries, and values that lie elsewhere."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    word, head, entry_bytes, room = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    found = [Place("link", 8 if big else 4, room)]
    (place,) = struct.unpack_from(order + word, data, found[0].offset)
    while place:
        count_bytes = struct.calcsize(head)
        (count,) = struct.unpack_from(order + head, data, place)
        found.append(Place("entries", place, count_bytes))
        for number in range(count):
            at = place + count_bytes + number * entry_bytes
            code, kind = struct.unpack_from(order + "HH", data, at)
            (items,) = struct.unpack_from(order + word, data, at + 4)
            found.append(Place("entry", at, entry_bytes, code))
            size = items * _TYPE_BYTES.get(kind, 1)
            if size > room:
                (elsewhere,) = struct.unpack_from(order + word, data, at + 4 + room)
                found.append(Place("value", elsewhere, size, code))
        link = place + count_bytes + count * entry_bytes
        found.append(Place("link", link, room))
        (place,) = struct.unpack_from(order + word, data, link)
    return found


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one to four ways."""
    out = bytearray(data)
    known = places(data)
    order = "little" if data[:2] == b"II" else "big"
    for _ in range(int(rng.integers(1, 5))):
        change = _CHANGES[int(rng.integers(len(_CHANGES)))]
        change(out, known, order, rng)
    return bytes(out)


def _pick(rng: np.random.Generator, values: tuple[int, ...]) -> int:
    return int(values[int(rng.integers(len(values)))])


def _of(known: list[Place], what: str, rng: np.random.Generator) -> Place:
    fitting = [place for place in known if place.what == what]
    return fitting[int(rng.integers(len(fitting)))]


def _put(out: bytearray, offset: int, size: int, value: int, order: str) -> None:
    if offset + size <= len(out):
        out[offset : offset + size] = (value % (1 << 8 * size)).to_bytes(size, order)  # type: ignore[arg-type]


def _loop(out: bytearray, known: list[Place], order: str, rng: np.random.Generator) -> None:
    target = _of(known, "entries", rng).offset
    link = _of(known, "link", rng)
    _put(out, link.offset, link.size, target, order)


def _link(out: bytearray, known: list[Place], order: str, rng: np.random.Generator) -> None:
    link = _of(known, "link", rng)
    _put(out, link.offset, link.size, int(rng.integers(len(out) + 100)), order)


def _entries(out: bytearray, known: list[Place], order: str, rng: np.random.Generator) -> None:
    place = _of(known, "entries", rng)
    _put(out, place.offset, place.size, _pick(rng, _NUMBERS), order)


def _value(out: bytearray, known: list[Place], order: str, rng: np.random.Generator) -> None:
    place = _of(known, "entry", rng)
    room = 8 if place.size == 20 else 4
    special = {259: _COMPRESSIONS, 262: _PHOTOMETRICS}.get(place.code, _NUMBERS)
    wide = bool(rng.integers(2))
    _put(out, place.offset + 4 + room, room if wide else 2, _pick(rng, special), order)


def _entry(out: bytearray, known: list[Place], order: str, rng: np.random.Generator) -> None:
    place = _of(known, "entry", rng)
    room = 8 if place.size == 20 else 4
    part = int(rng.integers(3))
    if part == 0:
        _put(out, place.offset, 2, _pick(rng, _CODES), order)
    elif part == 1:
        _put(out, place.offset + 2, 2, int(rng.integers(20)), order)
    else:
        _put(out, place.offset + 4, room, _pick(rng, _NUMBERS), order)


def _elsewhere(out: bytearray, known: list[Place], order: str, rng: np.random.Generator) -> None:
    """Numbers or text of a value that lies outside its directory."""
    place = _of(known, "value", rng)
    if place.code in (270, 305, 700):
        text = _TEXTS[int(rng.integers(len(_TEXTS)))]
        at = place.offset + int(rng.integers(place.size))
        out[at : at + len(text)] = text[: max(0, place.offset + place.size - at)]
        return
    size = _pick(rng, (1, 2, 4, 8))
    _put(
        out,
        place.offset + size * int(rng.integers(-(-place.size // size))),
        size,
        _pick(rng, _NUMBERS),
        order,
    )


def _noise(out: bytearray, known: list[Place], order: str, rng: np.random.Generator) -> None:
    place = known[int(rng.integers(len(known)))]
    for _ in range(int(rng.integers(1, 8))):
        at = place.offset + int(rng.integers(max(1, place.size)))
        if at < len(out):
            out[at] = int(rng.integers(256))


def _pixels(out: bytearray, known: list[Place], order: str, rng: np.random.Generator) -> None:
    """Bytes anywhere: mostly compressed data, among them the sizes in their own headers."""
    for _ in range(int(rng.integers(1, 40))):
        out[int(rng.integers(len(out)))] = int(rng.integers(256))


def _frame(out: bytearray, known: list[Place], order: str, rng: np.random.Generator) -> None:
    """Change the size that a compressed tile states itself."""
    for marker, skip, size in (
        (b"\xff\xc0", 5, 2),
        (b"\xff\x51", 6, 4),
        (b"IHDR", 4, 4),
        (b"\x9d\x01\x2a", 3, 2),
    ):
        at = out.find(marker, int(rng.integers(len(out))))
        if at >= 0:
            _put(out, at + skip + size * int(rng.integers(2)), size, _pick(rng, _NUMBERS), "big")


def _cut(out: bytearray, known: list[Place], order: str, rng: np.random.Generator) -> None:
    del out[int(rng.integers(8, len(out))) :]
    out.extend(b"\0" * 8)


_CHANGES: tuple[Callable[[bytearray, list[Place], str, np.random.Generator], None], ...] = (
    *(_value,) * 5,
    *(_entry,) * 4,
    *(_elsewhere,) * 3,
    *(_loop, _link, _entries, _noise, _pixels, _frame, _cut),
)


def use(path: Path) -> None:
    """Open the slide, look at it, read a window of every level and every associated image."""
    from napari_her2 import open_slide
    from napari_her2.errors import SlideError

    with open_slide(path) as slide:
        slide.thumbnail(128)
        for level, (height, width) in enumerate(slide.level_shapes):
            for y, x in ((0, 0), (height // 2, width // 2), (max(0, height - 64), max(0, width - 64))):
                try:
                    slide.read(level, y, x, min(height, _MAX_READ), min(width, _MAX_READ))
                except SlideError:
                    continue
        for name in slide.associated_images:
            try:
                slide.associated_image(name)
            except SlideError:
                continue
        slide.corrupt_regions()


KIND = Kind(seeds, mutated, use)
