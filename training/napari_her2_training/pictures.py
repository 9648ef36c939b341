"""Small pictures from outside, PNG, JPEG or TIFF: as large as their headers say, which is looked at first."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cv2
import numpy as np
import simplejpeg  # type: ignore[import-untyped]

from napari_her2.errors import JobFailed
from napari_her2.outside import MiB, Reading, shown

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_SIDE_PX = 8192
_PICTURES = Reading(limit=256 * MiB, advice="get it again, or take it out")
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


def place(path: Path, folders: int) -> str:
    """Name of a file with the folders above it that tell it from others, as messages write it."""
    return shown("/".join(path.parts[-1 - folders :]))


def read_picture(path: Path, kind: str = "image", *, folders: int = 1) -> NDArray[np.uint8]:
    """Decode a picture.

    Parameters
    ----------
    path : Path
    kind : str
        What it should be, in words.
    folders : int
        How many folders above the file messages name: its class, or its stain and its part.

    Returns
    -------
    (H, W, 3) uint8
        RGB.

    Raises
    ------
    JobFailed
        Naming the file, where it cannot be read, is damaged, or is no small picture.
    """
    name = place(path, folders)
    data = _PICTURES.raw(path)
    try:
        height, width = _size(data)
        if max(height, width) > MAX_SIDE_PX:
            raise JobFailed(
                f"{name} has {width:,} x {height:,} px, a patch has at most {MAX_SIDE_PX:,}: cut it smaller."
            )
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    except (cv2.error, ValueError, struct.error) as error:
        raise _damaged(name, kind) from error
    if found is None:
        raise _damaged(name, kind)
    return np.asarray(found, np.uint8)


def _size(data: bytes) -> tuple[int, int]:
    """Height and width by the header; nothing for the formats that the decoder itself bounds."""
    if data.startswith(_PNG):
        width, height = struct.unpack_from(">II", data, 16)
        return height, width
    if data.startswith(_JPEG):
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        return int(height), int(width)
    return 0, 0


def _damaged(name: str, kind: str) -> JobFailed:
    return JobFailed(f"{name} is damaged, or no {kind}: get it again, or take it out.")
