"""Weights that others made: safetensors, or checkpoints of PyTorch read without running anything in them.

A checkpoint is a pickle, and a pickle can run any program. It is therefore read with ``weights_only``, which
builds tensors and plain containers and refuses everything else, never in another way, and only where a person
named that file. What comes out are tensors by name; whoever asked checks that they are those wanted.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_her2.errors import ModelError
from napari_her2.models.weights_file import read_weights
from napari_her2.models.weights_header import MAX_FILE_BYTES, open_weights, unreadable
from napari_her2.number_words import size_in_words
from napari_her2.outside import shown

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TypeVar

    _Of = TypeVar("_Of")

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
"""Names of checkpoints of PyTorch."""
WRAPPERS = ("state_dict", "model_state_dict", "model", "teacher", "net", "weights")
"""Below which programs keep the weights among other things."""
_MAX_TENSORS = 100_000
_MAX_DEPTH = 4
# What PyTorch does not build, by its module and name.
_NAMED = re.compile(r"GLOBAL ([A-Za-z_]\w*\.[\w.]*)")


def read_checkpoint(path: Path, *, wrappers: tuple[str, ...] = WRAPPERS) -> dict[str, Tensor]:
    """Read the tensors of a file of weights.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or a checkpoint of PyTorch (`PICKLES`).
    wrappers : tuple of str
        Names below which the tensors may lie, the first that is there; none takes the outermost mapping.

    Returns
    -------
    dict of str to Tensor
        On the CPU, by their names in the file (`without_prefix` takes prefixes off).

    Raises
    ------
    ModelError
        If the file cannot be read, is cut off or damaged, is too large, would run code, or holds no tensors.
    """
    if path.suffix.lower() not in PICKLES:
        return dict(read_weights(path).tensors)
    return _tensors_in(_unpickled(path), wrappers, path)


def without_prefix(tensors: Mapping[str, _Of], *prefixes: str) -> dict[str, _Of]:
    """Take prefixes off the names, as wrappers leave them ("module." of DataParallel, "model." of Lightning).

    A prefix is taken off where every name has it, as often as one of them is there.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Or to what a header says of them.
    *prefixes : str

    Returns
    -------
    dict
    """
    found = dict(tensors)
    while found:
        common = next((prefix for prefix in prefixes if all(name.startswith(prefix) for name in found)), "")
        if not common:
            break
        found = {name.removeprefix(common): tensor for name, tensor in found.items()}
    return found


def _unpickled(path: Path) -> Any:  # noqa: ANN401 - of any checkpoint
    try:
        opened = open_weights(path)
    except OSError as error:
        raise unreadable(path, error) from error
    with opened as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how it was saved, which its user cannot change
        start = file.read(2)
        try:
            _check_size(path, file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        except ModelError:
            raise
        except pickle.UnpicklingError as error:
            raise _refused(path, start, error) from error
        except MemoryError as error:
            raise ModelError(f"{path.name} does not fit into memory: close other programs.") from error
        except Exception as error:  # damaged pickles raise whatever comes to them
            raise ModelError(
                f"{path.name} is damaged or cut off, or no checkpoint of PyTorch: get it again."
            ) from error


def _check_size(path: Path, file: Any) -> None:  # noqa: ANN401 - an open file
    """Refuse an archive that unpacks to more than a model can hold."""
    file.seek(0)
    if not zipfile.is_zipfile(file):
        return
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(item.file_size for item in archive.infolist())
    if unpacked > MAX_FILE_BYTES:
        raise ModelError(
            f"{path.name} unpacks to {size_in_words(unpacked)}, a model has at most "
            f"{size_in_words(MAX_FILE_BYTES)}: get it again."
        )


def _refused(path: Path, start: bytes, error: BaseException) -> ModelError:
    if not start.startswith((b"PK", b"\x80")):
        return ModelError(f"{path.name} is no checkpoint of PyTorch: check the path, or get the file again.")
    named = _NAMED.search(str(error))
    if named is not None:
        return ModelError(
            f"{path.name} holds more than tensors ({shown(named[1], 60)}), which could run code, and was not "
            f"opened: ask its author for safetensors, or for a file with the tensors alone."
        )
    return ModelError(
        f"{path.name} is a pickle that PyTorch does not write, which could run code, or damaged; it was not "
        f"opened: ask its author for safetensors."
    )


def _tensors_in(value: Any, wrappers: tuple[str, ...], path: Path) -> dict[str, Tensor]:  # noqa: ANN401
    for _ in range(_MAX_DEPTH):
        inner = (
            next((value[key] for key in wrappers if isinstance(value.get(key), Mapping)), None)
            if isinstance(value, Mapping)
            else None
        )
        if inner is None:
            break
        value = inner
    if not isinstance(value, Mapping):
        raise ModelError(f"{path.name} holds no tensors by name: save the state_dict of the model alone.")
    if len(value) > _MAX_TENSORS:
        raise ModelError(f"{path.name} holds {len(value):,} entries: it is no model. Get the file again.")
    found = {str(name): item for name, item in value.items() if isinstance(item, Tensor)}
    if not found:
        names = ", ".join(shown(str(name), 30) for name in list(value)[:5]) or "nothing"
        raise ModelError(f"{path.name} holds no tensors by name, but {names}: save its state_dict alone.")
    for name, tensor in found.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise ModelError(
                f"{path.name} holds {shown(name, 60)!r} in a packed form: save it as plain tensors."
            )
    return {name: tensor.detach() for name, tensor in found.items()}
