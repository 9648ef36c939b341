"""Features of tiles that others computed: HDF5 of CLAM, TRIDENT and STAMP, and tensors as WSMCL has them.

Nothing in these files is trusted: tensors are loaded without running what a pickle may hold, and shape,
type and values are checked.
"""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2.errors import JobFailed
from napari_her2.number_words import size_in_words
from napari_her2.outside import is_regular
from napari_her2_training.cohort.feature_file import FeatureFile, MadeBy
from napari_her2_training.cohort.feature_hdf5 import read_hdf5

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2_training.cohort.manifest import Case, Stain

HDF5_SUFFIXES = (".h5", ".hdf5")
TENSOR_SUFFIXES = (".pth", ".pt")
MAX_BYTES = 8 * 2**30
"""Of the features of a slide: a million tiles of 2,048 numbers."""
_LOADING_ERRORS = (
    OSError, RuntimeError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    AssertionError, ArithmeticError, MemoryError, struct.error,
)  # fmt: skip
"""What PyTorch raises on files that are damaged."""


def holds_features(path: Path) -> bool:
    """Whether a file is one of features, by its name, rather than a slide."""
    return path.suffix.lower() in (*HDF5_SUFFIXES, *TENSOR_SUFFIXES)


def from_files(cases: Sequence[Case], stain: Stain) -> bool:
    """Whether the slides of a stain are given as features.

    Raises
    ------
    JobFailed
        Naming the first row that differs from those before it.
    """
    given = [(case, holds_features(path)) for case in cases if (path := getattr(case, stain)) is not None]
    for case, features in given:
        if features != given[0][1]:
            kinds = ("slides", "features")
            raise JobFailed(
                f"Row {case.row} of the manifest: {stain} {case.slide(stain).name} is one of "
                f"{kinds[features]}, those before it are {kinds[not features]}. Give all of a column alike."
            )
    return bool(given) and given[0][1]


def read_feature_file(path: Path) -> FeatureFile:
    """Read the features of the tiles of a slide, in the order of the file, and what it states of them.

    Parameters
    ----------
    path : Path
        HDF5 with a dataset ``features`` (CLAM, TRIDENT) or ``feats`` (STAMP), or a tensor saved by PyTorch.

    Returns
    -------
    FeatureFile

    Raises
    ------
    JobFailed
        With what is wrong with the file.
    """
    coords, unit, made_by = None, "px0", MadeBy("tensor")
    if path.suffix.lower() in HDF5_SUFFIXES:
        features, coords, unit, made_by = read_hdf5(path, MAX_BYTES)
    else:
        features = _tensor(path)
    if features.ndim == 3 and len(features) == 1:  # CLAM's extraction of some encoders keeps the batch axis
        features = features[0]
    return FeatureFile(_small(features, path), _places(coords, len(features), path), unit, made_by)


def _small(features: NDArray[np.generic], path: Path) -> NDArray[np.float16]:
    """Check features, and bring them to float16."""
    if features.ndim != 2 or features.dtype.kind != "f":
        raise JobFailed(
            f"{path.name} holds {features.dtype!s:.60} of shape {features.shape}, not one row of decimal "
            f"numbers a tile: extract its features again."
        )
    if not len(features) or not features.shape[1]:
        raise JobFailed(f"{path.name} holds no tile: leave the case out.")
    with np.errstate(over="ignore"):
        small: NDArray[np.float16] = features.astype(np.float16)
    if not np.isfinite(small).all():
        raise JobFailed(
            f"{path.name} holds values that are not numbers, or beyond ±65,504: extract its features again."
        )
    return small


def _places(coords: NDArray[np.generic] | None, tiles: int, path: Path) -> NDArray[np.float64] | None:
    """Check that there is a place for each tile."""
    if coords is None:
        return None
    if coords.ndim == 3 and len(coords) == 1:
        coords = coords[0]
    if coords.ndim != 2 or coords.shape[1] != 2 or coords.dtype.kind not in "iuf":
        raise JobFailed(
            f"{path.name} holds coordinates of shape {coords.shape}, not (x, y) of each tile: extract its "
            f"features again."
        )
    if len(coords) != tiles:
        raise JobFailed(
            f"{path.name} holds {tiles:,} features and {len(coords):,} coordinates, which cannot belong "
            f"together: extract its features again."
        )
    places = coords.astype(np.float64)
    if not np.isfinite(places).all():
        raise JobFailed(f"{path.name} holds coordinates that are not numbers: extract its features again.")
    return places


def _tensor(path: Path) -> NDArray[np.generic]:
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            # It warns of kinds of tensors that are refused below anyhow.
            warnings.simplefilter("ignore", UserWarning)
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise JobFailed(
            f"{path.name} holds more than a tensor. A pickle can run any program when it is loaded, so only "
            f"tensors are: save the features alone, with torch.save(features, file)."
        ) from error
    except _LOADING_ERRORS as error:
        raise JobFailed(f"{path.name} is damaged, or no tensor of PyTorch: get it again.") from error
    if not isinstance(found, torch.Tensor):
        raise JobFailed(
            f"{path.name} holds {type(found).__name__} instead of a tensor: save the features alone."
        )
    plain = found.layout == torch.strided and found.device.type == "cpu" and not found.is_quantized
    # One number can be stored, and shown as a billion: only as many as the file holds are taken.
    if not plain or found.numel() * found.element_size() > found.untyped_storage().nbytes():
        raise JobFailed(f"{path.name} holds no plain table of numbers: save it with features.contiguous().")
    found = found.detach()
    return found.float().numpy() if found.is_floating_point() else found.numpy()


def _check_archive(path: Path) -> None:
    """Refuse what PyTorch would unpack into more memory than the file is large."""
    if not is_regular(path):
        raise JobFailed(f"{path.name} is no file: check the path.")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise _too_large(path, size)
    try:
        if not zipfile.is_zipfile(path):  # as PyTorch wrote until 1.5
            return
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise JobFailed(f"{path.name} is damaged, or no tensor of PyTorch: get it again.") from error
    packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
    if packed or sum(part.file_size for part in parts) > size:
        raise JobFailed(f"{path.name} is packed as PyTorch never does it: save the features alone.")


def _too_large(path: Path, count: int) -> JobFailed:
    return JobFailed(
        f"{path.name} holds {size_in_words(count)} of features, more than {size_in_words(MAX_BYTES)}: "
        f"check how they were extracted."
    )
