"""Weights in safetensors files: read and written, with every claim of the file checked."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from safetensors import SafetensorError

from napari_her2.errors import ModelError
from napari_her2.models.weights_header import (
    LENGTH_BYTES,
    TensorClaim,
    header_length,
    open_weights,
    parsed_header,
    read_header,
    unreadable,
)
from napari_her2.whole_files import replaced_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import Tensor

_ALIGNMENT = 8
_TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, slots=True, eq=False)
class WeightsFile:
    """A whole safetensors file, read once, so that what was checked is what is used.

    Parameters
    ----------
    metadata : mapping of str to str
    tensors : mapping of str to Tensor
    sha256 : str
        Of the bytes of the file, hexadecimal.
    """

    metadata: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    sha256: str


def read_weights(path: Path) -> WeightsFile:
    """Read metadata and tensors, all checked.

    Parameters
    ----------
    path : Path

    Returns
    -------
    WeightsFile

    Raises
    ------
    ModelError
        If the file cannot be read, is not safetensors, or is damaged.
    """
    read_header(path)  # before memory is taken for what it only claims to hold
    try:
        with open_weights(path) as file:
            data = file.read()
    except OSError as error:
        raise unreadable(path, error) from error
    length = header_length(data[:LENGTH_BYTES], len(data), path)
    start = LENGTH_BYTES + length
    header = parsed_header(data[LENGTH_BYTES:start], len(data) - start, path)
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path.name} is damaged or cut off ({error}): get the file again.") from error
    return WeightsFile(header.metadata, tensors, hashlib.sha256(data).hexdigest())


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file: whole or not at all, and the same bytes for the same content.

    Parameters
    ----------
    path : Path
    tensors : mapping of str to Tensor
    metadata : mapping of str to str

    Raises
    ------
    ModelError
        If the file cannot be written.
    """
    # The library writes metadata in the order of a hash table, which changes from run to run.
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    names, offset = sorted(tensors, key=lambda key: (-tensors[key].element_size(), key)), 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _TYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    start = len(text).to_bytes(LENGTH_BYTES, "little") + text
    # One tensor at a time: the largest encoders have 5 GB, and need not be held twice.
    _write(path, itertools.chain([start], (_tensor_bytes(tensors[name]) for name in names)))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Parameters
    ----------
    path : Path
        Its folder is made when missing.
    data : bytes

    Raises
    ------
    ModelError
        If it cannot be written; what was there before stays.
    """
    _write(path, [data])


def _write(path: Path, parts: Iterable[bytes]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path) as file, file.open("wb") as out:
            for part in parts:
                out.write(part)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise ModelError(
            f"{path} could not be written ({error.strerror or error}): choose a folder that can be "
            f"written to and has space."
        ) from error


def check_tensors(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor] | Mapping[str, TensorClaim], source: str
) -> None:
    """Refuse weights that are not exactly those wanted, or hold values that are not numbers.

    Parameters
    ----------
    wanted : mapping of str to Tensor
        Of the module that takes them; may be on the meta device.
    given : mapping of str to Tensor or TensorClaim
        The tensors, or what the header of their file says of them.
    source : str
        Named in the message.

    Raises
    ------
    ModelError
        If tensors are missing, unexpected, of another shape or kind, or not finite.
    """
    missing, unexpected = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or unexpected:
        what = f"{missing[0]!r:.80} is missing" if missing else f"{unexpected[0]!r:.80} has no place"
        raise ModelError(
            f"The weights in {source} do not fit the model: {what} ({len(missing)} tensors missing, "
            f"{len(unexpected)} too many). Get the right file."
        )
    for key, tensor in wanted.items():
        found = given[key]
        if (
            tuple(found.shape) != tuple(tensor.shape)
            or found.is_floating_point() != tensor.is_floating_point()
        ):
            raise ModelError(
                f"The weights in {source} do not fit the model: {key!r} is {_words(found)} instead of "
                f"{_words(tensor)}. Get the right file."
            )
        if isinstance(found, TensorClaim) or not found.is_floating_point():
            continue
        if not bool(torch.isfinite(found.float()).all()):
            raise ModelError(
                f"The weights in {source} are damaged: {key!r} holds values that are not numbers. "
                f"Get the file again."
            )


def weights_digest(tensors: Mapping[str, Tensor], salt: str = "") -> str:
    """SHA-256 over names, types, shapes and values of tensors, whatever file they came from.

    Parameters
    ----------
    tensors : mapping of str to Tensor
    salt : str
        Anything else that should change the digest.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(salt.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_tensor_bytes(tensor))
    return digest.hexdigest()


def _tensor_bytes(tensor: Tensor) -> bytes:
    # contiguous() also undoes channels_last, which is a layout of memory and not part of the weights.
    plain = tensor.detach().cpu().contiguous(memory_format=torch.contiguous_format)
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


def _words(tensor: Tensor | TensorClaim) -> str:
    return f"{'float' if tensor.is_floating_point() else 'integer'} of shape {tuple(tensor.shape)}"
