"""The header of a safetensors file: what it claims, checked without PyTorch and before a tensor is read.

A safetensors file is eight bytes with the length of a JSON header, the header (name, type, shape and
place of each tensor, and a map of texts called ``__metadata__``), and the tensors. Nothing in it can run.
Pickles, which can, are recognised and refused.
"""

from __future__ import annotations

import json
import math
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from napari_her2.errors import ModelError
from napari_her2.number_words import size_in_words
from napari_her2.outside import open_without_waiting, shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_FILE_BYTES = 16 * 2**30
"""Of a model; the largest public encoders of tissue have 5 GB."""
LENGTH_BYTES = 8
_MAX_TENSORS = 100_000
_MAX_AXES = 8
_TYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
_PICKLE = "a pickle (a PyTorch checkpoint)"
_FOREIGN = (
    (b"PK\x03\x04", _PICKLE),  # torch.save since 1.6: a zip of pickles
    (b"\x80", _PICKLE),  # pickle protocol 2 and later, followed by its number
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a compressed archive"),
    (b"<", "a web page, probably an error message saved in its place"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
)


@dataclass(frozen=True, slots=True)
class TensorClaim:
    """What a header says of a tensor.

    Parameters
    ----------
    kind : str
        "F32", "I64", ..., as safetensors names them.
    shape : tuple of int
    """

    kind: str
    shape: tuple[int, ...]

    def is_floating_point(self) -> bool:
        """Whether it holds decimal numbers."""
        return "F" in self.kind

    @property
    def nbytes(self) -> int:
        """Size of its values in the file."""
        return math.prod(self.shape) * _TYPE_BYTES[self.kind]


@dataclass(frozen=True, slots=True)
class WeightsHeader:
    """The header of a safetensors file.

    Parameters
    ----------
    metadata : mapping of str to str
    tensors : mapping of str to TensorClaim
        Together they fill the file exactly.
    """

    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorClaim]


def read_header(path: Path) -> WeightsHeader:
    """Read what a file claims to hold; the tensors are not touched.

    Parameters
    ----------
    path : Path

    Returns
    -------
    WeightsHeader

    Raises
    ------
    ModelError
        If the file cannot be read, is not safetensors, is larger than a model can be, or its claims do not
        fit the file.
    """
    try:
        with open_weights(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = header_length(file.read(LENGTH_BYTES), size, path)
            header = parsed_header(file.read(length), size - LENGTH_BYTES - length, path)
            _check_stored(file.fileno(), size, path)
    except OSError as error:
        raise unreadable(path, error) from error
    return header


def open_weights(path: Path) -> BinaryIO:
    """Open a regular file; a pipe, a device or a folder is refused without waiting for it."""
    try:
        file = open_without_waiting(path)
    except ValueError as error:
        raise ModelError(f"{shown(str(path))} cannot be the name of a file: check the path.") from error
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE_BYTES:
        return file
    file.close()
    if stat.S_ISREG(status.st_mode):
        raise ModelError(
            f"{path.name} has {size_in_words(status.st_size)}, a model has at most "
            f"{size_in_words(MAX_FILE_BYTES)}: check the path, or get the file again."
        )
    what = "a folder" if stat.S_ISDIR(status.st_mode) else "no file"
    raise ModelError(f"{path} could not be read (it is {what}): check the path.")


def header_length(start: bytes, size: int, path: Path) -> int:
    """Length of the header by the first bytes of a file, or what the file is instead."""
    if size == 0:
        raise ModelError(f"{path.name} is empty: get the file again.")
    length = int.from_bytes(start, "little") if len(start) == LENGTH_BYTES else MAX_HEADER_BYTES + 1
    if 2 <= length <= MAX_HEADER_BYTES:
        if length + LENGTH_BYTES > size:
            raise ModelError(f"{path.name} is cut off ({size} bytes): get the file again.")
        return length
    for magic, what in _FOREIGN:
        if start.startswith(magic[:LENGTH_BYTES]):
            raise ModelError(f"{path.name} is {what}. {_advice(what)}")
    raise _foreign(path)


def parsed_header(header: bytes, space: int, path: Path) -> WeightsHeader:
    """Read a header and check its claims.

    Parameters
    ----------
    header : bytes
    space : int
        Bytes in the file behind the header.
    path : Path
        Named in messages.

    Returns
    -------
    WeightsHeader
    """
    try:
        values = json.loads(header, parse_int=_size)
    except (ValueError, RecursionError) as error:
        raise _foreign(path) from error
    metadata = values.pop("__metadata__", {}) if isinstance(values, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _foreign(path)
    if len(values) > _MAX_TENSORS:
        raise ModelError(f"{path.name} claims {len(values):,} tensors: it is no model. Get the file again.")
    claims: dict[str, TensorClaim] = {}
    places: list[tuple[int, int]] = []
    for name, entry in values.items():
        claim, place = _claim(entry)
        if claim is None or place is None:
            raise ModelError(
                f"{path.name} is damaged: its tensor {shown(name, 80)!r} is not described as one. "
                f"Get the file again."
            )
        claims[name] = claim
        places.append(place)
    _check_places(places, space, path)
    return WeightsHeader(metadata, claims)


def unreadable(path: Path, error: OSError) -> ModelError:
    """Return the error for a file that the system does not give."""
    if isinstance(error, FileNotFoundError):
        return ModelError(f"There is no file {path}: check the path.")
    return ModelError(f"{path} could not be read ({error.strerror or error}): check the path and its rights.")


def _claim(entry: Any) -> tuple[TensorClaim | None, tuple[int, int] | None]:  # noqa: ANN401 - JSON
    """Return the description of a tensor and its place behind the header; None where it is none."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        return None, None
    kind, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _TYPE_BYTES or not _are_sizes(shape, _MAX_AXES):
        return None, None
    if not _are_sizes(place, 2) or len(place) != 2:
        return None, None
    if place[1] - place[0] != math.prod(shape) * _TYPE_BYTES[kind]:
        return None, None
    return TensorClaim(kind, tuple(shape)), (place[0], place[1])


def _check_places(places: list[tuple[int, int]], space: int, path: Path) -> None:
    """Refuse tensors that overlap, leave gaps, or end elsewhere than the file."""
    end = 0
    for first, last in sorted(places):
        if first != end:
            raise ModelError(f"{path.name} is damaged: its tensors overlap. Get the file again.")
        end = last
    if end > space:
        raise ModelError(f"{path.name} is cut off ({space:,} of {end:,} bytes): get the file again.")
    if end < space:
        raise ModelError(
            f"{path.name} is damaged: it goes on for {space - end:,} bytes behind its last tensor. "
            f"Get the file again."
        )


def _check_stored(descriptor: int, size: int, path: Path) -> None:
    """Refuse a file of which the disk holds less than half: a copy or a download that never ended."""
    if not hasattr(os, "SEEK_DATA") or size < 2**20:
        return
    stored, place = 0, 0
    try:
        while place < size and stored < size / 2:
            begin = os.lseek(descriptor, place, os.SEEK_DATA)
            place = os.lseek(descriptor, begin, os.SEEK_HOLE)
            stored += place - begin
    except OSError:  # no data behind this place, or a system that cannot tell
        if place == 0:
            return
    if stored < size / 2:
        raise ModelError(
            f"{path.name} is mostly empty: {stored:,} of its {size:,} bytes were ever written. "
            f"Get the file again."
        )


def _are_sizes(values: Any, most: int) -> bool:  # noqa: ANN401 - JSON
    return (
        isinstance(values, list)
        and len(values) <= most
        and all(type(value) is int and 0 <= value <= MAX_FILE_BYTES for value in values)
    )


def _size(digits: str) -> int:
    # Python takes time in the square of the digits.
    if len(digits) > 19:
        raise ValueError("a number of more than 19 digits")
    return int(digits)


def _foreign(path: Path) -> ModelError:
    return ModelError(f"{path.name} is not a safetensors file. {_advice('')}")


def _advice(what: str) -> str:
    if what == _PICKLE:
        return (
            "Pickles can run any program when they are loaded, so napari-her2 never loads them: ask the "
            "author for safetensors, or convert it where you trust it."
        )
    return "Models and weights are safetensors files: check the path, or get the file again."
