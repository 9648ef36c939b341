"""Weights in safetensors files: recognised, read and written with every claim of the file checked.

A safetensors file is eight bytes with the length of a JSON header, the header (name, type, shape and
place of each tensor, and a map of texts called ``__metadata__``), and the tensors. Nothing in it can run.
Pickles, which can, are recognised and refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from safetensors import SafetensorError

from napari_her2.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

MAX_HEADER_BYTES = 4 * 1024 * 1024
_LENGTH_BYTES = 8
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
_PICKLE = "a pickle (a PyTorch checkpoint)"
_FOREIGN = (
    (b"PK\x03\x04", _PICKLE),  # torch.save since 1.6: a zip of pickles
    (b"\x80", _PICKLE),  # pickle protocol 2 and later, followed by its number
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a compressed archive"),
    (b"<", "a web page, probably an error message saved in its place"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
)


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


def read_metadata(path: Path) -> Mapping[str, str]:
    """Read the texts in the header, without the tensors.

    Parameters
    ----------
    path : Path

    Returns
    -------
    mapping of str to str

    Raises
    ------
    ModelError
        If the file cannot be read or is not safetensors.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _header_length(file.read(_LENGTH_BYTES), size, path)
            header = file.read(length)
    except OSError as error:
        raise _unreadable(path, error) from error
    return _metadata(header, path)


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
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    length = _header_length(data[:_LENGTH_BYTES], len(data), path)
    metadata = _metadata(data[_LENGTH_BYTES : _LENGTH_BYTES + length], path)
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path.name} is damaged or cut off ({error}): get the file again.") from error
    return WeightsFile(metadata, tensors, hashlib.sha256(data).hexdigest())


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
    blobs, offset = [], 0
    for name in sorted(tensors, key=lambda key: (-tensors[key].element_size(), key)):
        blob = _tensor_bytes(tensors[name])
        header[name] = {
            "dtype": _TYPE_NAMES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    write_whole(path, len(text).to_bytes(_LENGTH_BYTES, "little") + text + b"".join(blobs))


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
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # a temporary file is private; a model is not
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise ModelError(
            f"{path} could not be written ({error.strerror or error}): choose a folder that can be "
            f"written to and has space."
        ) from error


def check_tensors(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are not exactly those wanted, or hold values that are not numbers.

    Parameters
    ----------
    wanted : mapping of str to Tensor
        Of the module that takes them; may be on the meta device.
    given : mapping of str to Tensor
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
        if found.shape != tensor.shape or found.is_floating_point() != tensor.is_floating_point():
            raise ModelError(
                f"The weights in {source} do not fit the model: {key!r} is {_words(found)} instead of "
                f"{_words(tensor)}. Get the right file."
            )
        if found.is_floating_point() and not bool(torch.isfinite(found.float()).all()):
            raise ModelError(
                f"The weights in {source} are damaged: {key!r} holds values that are not numbers. "
                f"Get the file again."
            )


def weights_digest(tensors: Mapping[str, Tensor], told: str = "") -> str:
    """SHA-256 over names, types, shapes and values of tensors, whatever file they came from.

    Parameters
    ----------
    tensors : mapping of str to Tensor
    told : str
        Anything else that should change the digest.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(told.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_tensor_bytes(tensor))
    return digest.hexdigest()


def _tensor_bytes(tensor: Tensor) -> bytes:
    # contiguous() also undoes channels_last, which is a layout of memory and not part of the weights.
    plain = tensor.detach().cpu().contiguous(memory_format=torch.contiguous_format)
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


def _words(tensor: Tensor) -> str:
    return f"{'float' if tensor.is_floating_point() else 'integer'} of shape {tuple(tensor.shape)}"


def _header_length(start: bytes, size: int, path: Path) -> int:
    if size == 0:
        raise ModelError(f"{path.name} is empty: get the file again.")
    length = int.from_bytes(start, "little") if len(start) == _LENGTH_BYTES else MAX_HEADER_BYTES + 1
    if 2 <= length <= MAX_HEADER_BYTES:
        if length + _LENGTH_BYTES > size:
            raise ModelError(f"{path.name} is cut off ({size} bytes): get the file again.")
        return length
    for magic, what in _FOREIGN:
        if start.startswith(magic[:_LENGTH_BYTES]):
            raise ModelError(f"{path.name} is {what}. {_advice(what)}")
    raise ModelError(f"{path.name} is not a safetensors file. {_advice('')}")


def _advice(what: str) -> str:
    if what == _PICKLE:
        return (
            "Pickles can run any program when they are loaded, so napari-her2 never loads them: ask the "
            "author for safetensors, or convert it where you trust it."
        )
    return "Models and weights are safetensors files: check the path, or get the file again."


def _metadata(header: bytes, path: Path) -> Mapping[str, str]:
    try:
        parsed = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} is not a safetensors file. {_advice('')}") from error
    found = parsed.get("__metadata__", {}) if isinstance(parsed, dict) else None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ModelError(f"{path.name} is not a safetensors file. {_advice('')}")
    return {str(key): value for key, value in found.items()}


def _unreadable(path: Path, error: OSError) -> ModelError:
    if isinstance(error, FileNotFoundError):
        return ModelError(f"There is no file {path}: check the path.")
    return ModelError(f"{path} could not be read ({error.strerror or error}): check the path and its rights.")
