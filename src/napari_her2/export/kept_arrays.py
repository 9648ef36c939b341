"""Arrays in a zip file, as .npy: written as they are, read only as large as they claim, and no larger.

What a file states of its sizes is compared before memory is taken: the header of each array with the size of
its member, and all of them with what the file itself may hold when it is unpacked.
"""

from __future__ import annotations

import math
import zipfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MOST_BYTES = 8 << 30
"""Of all that a file holds, unpacked."""
_FREE_BYTES, _MOST_TIMES = 1 << 30, 50
"""Unpacked, a file holds so many bytes at most, and beyond them so many times its own size."""
_MOST_MEMBERS = 10_000
_MOST_AXES, _MOST_HEADER = 8, 4096
_AT_ONCE = 1 << 20
_KINDS = "biuf"
PACKING: dict[str, int] = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 1}
"""How a file is opened to be written: a higher level takes several times as long, and saves little."""


def write_member(archive: zipfile.ZipFile, name: str, content: bytes | NDArray[Any]) -> None:
    """Write bytes, or an array as .npy, as a member of a zip file.

    Raises
    ------
    ValueError
        If the array holds anything but numbers.
    """
    # A name alone has no date: the same content is the same bytes.
    with archive.open(name, "w", force_zip64=True) as member:
        if isinstance(content, bytes):
            member.write(content)
            return
        if content.dtype.kind not in _KINDS:
            raise ValueError(f"an array of {content.dtype} is not kept")
        np.lib.format.write_array(member, content, version=(1, 0), allow_pickle=False)


def members_of(archive: zipfile.ZipFile, file_bytes: int) -> Mapping[str, zipfile.ZipInfo]:
    """List the members of a zip file by name.

    Parameters
    ----------
    archive : ZipFile
    file_bytes : int
        Size of the file.

    Raises
    ------
    ValueError
        If they claim more than such a file may hold, are encrypted, or packed in another way.
    """
    found = archive.infolist()
    if len(found) > _MOST_MEMBERS:
        raise ValueError("it has too many parts")
    if sum(info.file_size for info in found) > min(MOST_BYTES, _FREE_BYTES + _MOST_TIMES * file_bytes):
        raise ValueError("it claims to be too large when unpacked")
    for info in found:
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("it is packed in a way that we do not use")
    members = {info.filename: info for info in found}
    if len(members) != len(found):
        raise ValueError("it has two parts of one name")
    return members


def read_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    """Read a member of at most so many bytes.

    Raises
    ------
    ValueError
        If it is larger, or shorter than it claims.
    """
    if info.file_size > most:
        raise ValueError(f"{info.filename:.40} is too large")
    content = archive.read(info)
    if len(content) != info.file_size:
        raise ValueError("it is cut off")
    return content


def read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Read an array.

    Raises
    ------
    ValueError
        If it holds anything but numbers, or its size is not that of its member.
    """
    with archive.open(info) as member:
        shape, dtype, columns_first = _header(member)
        size = math.prod(shape) * dtype.itemsize
        if size != info.file_size - member.tell():
            raise ValueError("an array is not as large as it claims")
        content = bytearray(size)
        view, done = memoryview(content), 0
        while done < size:
            part = member.read(min(size - done, _AT_ONCE))
            view[done : done + len(part)] = part
            if not part:
                raise ValueError("it is cut off")
            done += len(part)
        if member.read(1):  # which also compares the checksum
            raise ValueError("an array is not as large as it claims")
    order = "F" if columns_first else "C"
    return np.frombuffer(content, dtype).reshape(shape, order=order)  # type: ignore[call-overload, no-any-return]


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    if np.lib.format.read_magic(member) != (1, 0):
        raise ValueError("an array is of an unknown kind")
    shape, columns_first, dtype = np.lib.format.read_array_header_1_0(member, max_header_size=_MOST_HEADER)
    if dtype.kind not in _KINDS or len(shape) > _MOST_AXES or min(shape, default=0) < 0:
        raise ValueError("an array holds no numbers")
    return shape, dtype, columns_first
