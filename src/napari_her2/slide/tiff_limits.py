"""What the header of a TIFF may claim: what a slide can be, and what its file can hold.

Libraries believe a header and reserve what it asks for: OpenSlide ends the whole process where that is not
to be had. So the claims are checked before any of them opens the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.errors import SlideError
from napari_her2.slide import tiff_chain as tags

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.slide.tiff_chain import Directory, TiffHeaders

MAX_SIDE_PX = 2_000_000
"""Glass of 75 mm at 0.05 µm/px, with margin."""
MAX_TILE_BYTES = 1 << 27
"""A decoded tile of 4,096 x 4,096 px in four channels, twice; every thread holds one or two."""
MAX_STRIP_BYTES = 1 << 29
"""A decoded strip; many writers put a whole image into one."""
_MAX_SAMPLES, _MAX_BITS = 100, 64
_UNCOMPRESSED = 1


def refuse_impossible(path: Path, size: int, headers: TiffHeaders) -> None:
    """Refuse a TIFF whose directories cannot be those of a slide.

    Parameters
    ----------
    path : Path
        Names the file in the message.
    size : int
        Bytes of the file.
    headers : TiffHeaders

    Raises
    ------
    SlideError
        A directory is missing, the chain has no end, or an image claims more than it can be.
    """
    if headers.state == "none":
        raise SlideError(
            f"{path.name} ends before the directory that describes it, so it was cut off or is no slide: "
            f"copy it again from its source."
        )
    if headers.state == "circle":
        raise SlideError(
            f"{path.name} is damaged: its list of images runs in a circle; copy it again from its source."
        )
    if headers.state == "endless":
        raise SlideError(
            f"{path.name} lists more than {tags.MAX_DIRECTORIES:,} images, which no slide has: export the "
            f"slide alone as a tiled TIFF."
        )
    for directory in headers.directories:
        claim = _impossible(directory, size, ndpi=path.suffix.lower() == ".ndpi")
        if claim:
            raise SlideError(f"{path.name} {claim}.")


def refuse_overlong(path: Path, headers: TiffHeaders) -> None:
    """Refuse a TIFF of which a tile or strip is longer than the file, before OpenSlide reserves its length.

    Our own reader takes such a tile for damaged and reads the others.

    Parameters
    ----------
    path : Path
    headers : TiffHeaders

    Raises
    ------
    SlideError
    """
    longest = max(
        (
            directory.integer(code)
            for directory in headers.directories
            for code in (tags.STRIP_BYTES, tags.TILE_BYTES)
        ),
        default=0,
    )
    if longest > path.stat().st_size:
        raise SlideError(
            f"{path.name} claims a tile of {longest:,} bytes, longer than the whole file, so it is damaged: "
            f"copy it again from its source."
        )


def _impossible(directory: Directory, size: int, *, ndpi: bool) -> str:
    """Name the claim of a directory that cannot be believed, and what to do; empty where there is none."""
    height, width = directory.shape
    again = "copy it again from its source"
    samples, bits = directory.integer(tags.SAMPLES, 1), directory.integer(tags.BITS, 1)
    if samples > _MAX_SAMPLES or bits > _MAX_BITS:
        return f"claims {samples:,} channels of {bits:,} bits, which no slide has: {again}"
    if min(height, width) < 0:
        return f"claims an image of {width:,} x {height:,} px, so it is damaged: {again}"
    if max(height, width) > MAX_SIDE_PX:
        return f"claims an image of {width:,} x {height:,} px, more than fits on glass: {again}"
    tiled = tags.TILE_WIDTH in directory.numbers or tags.TILE_LENGTH in directory.numbers
    if tiled:
        piece = (directory.integer(tags.TILE_LENGTH), directory.integer(tags.TILE_WIDTH))
    else:
        piece = (min(height, directory.integer(tags.ROWS_PER_STRIP, height)), width)
    if tiled and min(piece) < 1:
        return f"claims tiles of {piece[1]:,} x {piece[0]:,} px, so it is damaged: {again}"
    together = 1 if directory.integer(tags.PLANAR, 1) == 2 else max(1, samples)
    piece_bytes = piece[0] * piece[1] * together * -(-max(1, bits) // 8)
    if tiled and piece_bytes > MAX_TILE_BYTES:
        return (
            f"claims tiles of {piece[1]:,} x {piece[0]:,} px, too large to be decoded one by one: save it "
            f"as a TIFF with tiles of 256 to 4,096 px"
        )
    held = directory.integer(tags.COMPRESSION, 1) == _UNCOMPRESSED and piece_bytes <= size
    if not tiled and piece_bytes > MAX_STRIP_BYTES and not held and not ndpi:
        return (
            f"holds {piece[1]:,} x {piece[0]:,} px in one compressed piece, too much to be decoded at once: "
            f"save it as a tiled TIFF"
        )
    pieces = -(-height // max(1, piece[0])) * -(-width // max(1, piece[1]))
    if pieces > size:  # each takes two bytes at least, for its place and its length
        return f"claims {pieces:,} tiles or strips, more than a file of {size:,} bytes can list: {again}"
    return ""
