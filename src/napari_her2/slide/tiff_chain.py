"""The chain of directories of a TIFF, walked just to know whether the file is whole.

Copies that were cut off often still open: a TIFF keeps its directories (levels, label, overview) in a
chain through the whole file, and readers stop silently where the chain breaks.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from napari_her2.slide.files import ByteFile

_MAX_DIRECTORIES = 10_000


def chain_state(file: ByteFile) -> Literal["whole", "cut", "none"]:
    """Walk the directories of a TIFF.

    Parameters
    ----------
    file : ByteFile
        A TIFF or BigTIFF.

    Returns
    -------
    {"whole", "cut", "none"}
        "none": not even the first directory is in the file; "cut": a later one is not.
    """
    head = file.read_at(0, 16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    if len(head) < (16 if big else 8):
        return "none"
    (place,) = struct.unpack(order + "Q", head[8:16]) if big else struct.unpack(order + "I", head[4:8])
    count_code, entry_bytes, link_code = ("Q", 20, "Q") if big else ("H", 12, "I")
    seen: set[int] = set()
    while place and place not in seen and len(seen) < _MAX_DIRECTORIES:
        start = file.read_at(place, struct.calcsize(count_code)) if place < file.size else b""
        if len(start) < struct.calcsize(count_code):
            return "cut" if seen else "none"
        (entries,) = struct.unpack(order + count_code, start)
        behind = place + len(start) + entries * entry_bytes
        link = file.read_at(behind, struct.calcsize(link_code)) if behind < file.size else b""
        if len(link) < struct.calcsize(link_code):
            return "cut" if seen else "none"
        seen.add(place)
        (place,) = struct.unpack(order + link_code, link)
    return "whole" if seen else "none"
