"""Features of tiles that others computed: HDF5 as CLAM and TRIDENT write it, and tensors as WSMCL has them.

Nothing in these files is trusted: tensors are loaded without running what a pickle may hold, and shape,
type and values are checked.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import h5py
import numpy as np
import torch

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2_training.cohort.manifest import Case, Stain

HDF5_SUFFIXES = (".h5", ".hdf5")
TENSOR_SUFFIXES = (".pth", ".pt")
DATASET = "features"


def holds_features(path: Path) -> bool:
    """Whether a file is one of features, by its name, rather than a slide."""
    return path.suffix.lower() in (*HDF5_SUFFIXES, *TENSOR_SUFFIXES)


def from_files(cases: Sequence[Case], stain: Stain) -> bool:
    """Whether the slides of a stain are given as features.

    Parameters
    ----------
    cases : sequence of Case
    stain : {"he", "ihc"}

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


def read_features(path: Path) -> NDArray[np.float16]:
    """Read the features of the tiles of a slide, in the order of the file.

    Parameters
    ----------
    path : Path
        HDF5 with a dataset ``features``, or a tensor saved by PyTorch.

    Returns
    -------
    (N, D) float16

    Raises
    ------
    JobFailed
        With what is wrong with the file.
    """
    features = _hdf5(path) if path.suffix.lower() in HDF5_SUFFIXES else _tensor(path)
    if features.ndim == 3 and len(features) == 1:  # CLAM's extraction of some encoders keeps the batch axis
        features = features[0]
    if features.ndim != 2 or features.dtype.kind != "f":
        raise JobFailed(
            f"{path.name} holds {features.dtype} of shape {features.shape}, not one row of decimal numbers "
            f"a tile: extract its features again."
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


def _hdf5(path: Path) -> NDArray[np.generic]:
    try:
        with h5py.File(path, "r") as file:
            found = file.get(DATASET)
            if not isinstance(found, h5py.Dataset):
                raise JobFailed(f"{path.name} has no dataset {DATASET!r}: write it as CLAM and TRIDENT do.")
            features: NDArray[np.generic] = found[()]
    except OSError as error:
        raise JobFailed(f"{path.name} is damaged, or no HDF5 file ({error}): get it again.") from error
    return np.asarray(features)


def _tensor(path: Path) -> NDArray[np.generic]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise JobFailed(
            f"{path.name} holds more than a tensor. A pickle can run any program when it is loaded, so only "
            f"tensors are: save the features alone, with torch.save(features, file)."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise JobFailed(f"{path.name} is damaged, or no tensor of PyTorch: get it again.") from error
    if not isinstance(found, torch.Tensor):
        raise JobFailed(
            f"{path.name} holds {type(found).__name__} instead of a tensor: save the features alone."
        )
    return found.float().numpy() if found.is_floating_point() else found.numpy()
