"""Features in HDF5 files, in the layouts of CLAM, TRIDENT, STAMP and of our own: values and what is stated.

An attribute is a claim like any other: it is read only where it is a short text or a single number.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import Her2Error, JobFailed
from napari_her2.models.card import EncoderSpec
from napari_her2.number_words import size_in_words
from napari_her2.outside import Reading, shown
from napari_her2_training.cohort.feature_file import MadeBy
from napari_her2_training.cohort.hdf5 import HDF5_ERRORS, checked_dataset, damaged_hdf5, open_hdf5

if TYPE_CHECKING:
    from pathlib import Path

    import h5py
    from numpy.typing import NDArray

FEATURES, STAMP_FEATURES, COORDS = "features", "feats", "coords"
_MOST_ATTRIBUTE_BYTES = 4096
_MOST_NAME = 100
_UM_PX_BY_MAGNIFICATION = 10.0
"""Ten µm per pixel divided by a magnification is what TRIDENT takes for its µm per pixel."""
_SPECS = Reading(limit=_MOST_ATTRIBUTE_BYTES)
_TILE_PX, _MPP = (8, 4096), (0.01, 100.0)


def read_hdf5(
    path: Path, most_bytes: int
) -> tuple[NDArray[np.generic], NDArray[np.generic] | None, str, MadeBy]:
    """Read the features of a file, its coordinates, their unit, and how it says they were made.

    Parameters
    ----------
    path : Path
    most_bytes : int
        Of the features.

    Raises
    ------
    JobFailed
        If the file is damaged, has no features of tiles, or claims more than it holds.
    """
    with open_hdf5(path) as file:
        try:
            name = STAMP_FEATURES if _has(file, STAMP_FEATURES) and not _has(file, FEATURES) else FEATURES
            found = checked_dataset(file, name, path)
            coords = checked_dataset(file, COORDS, path) if _has(file, COORDS) else None
            for part in (found, coords):
                _check_size(part, most_bytes, path)
            kind = _text(file, "feat_type")
            if kind not in ("", "tile"):
                raise JobFailed(
                    f"{path.name} holds features of a whole {shown(kind, 20)}, and a bag needs those of its "
                    f"tiles: extract tile features."
                )
            made_by = _stamp(file) if name == STAMP_FEATURES else _clam(file, found, coords)
            unit = "um" if name == STAMP_FEATURES else "px0"
            return np.asarray(found[()]), None if coords is None else np.asarray(coords[()]), unit, made_by
        except HDF5_ERRORS as error:
            raise damaged_hdf5(path, error) from error


def _check_size(found: h5py.Dataset | None, most_bytes: int, path: Path) -> None:
    size = 0 if found is None else math.prod(found.shape) * found.dtype.itemsize
    if size > most_bytes:
        raise JobFailed(
            f"{path.name} holds {size_in_words(size)} of features, more than {size_in_words(most_bytes)}: "
            f"check how they were extracted."
        )


def _has(file: h5py.File, name: str) -> bool:
    """Whether a name is there, without following where a link leads."""
    return file.get(name, getlink=True) is not None


def _stamp(file: h5py.File) -> MadeBy:
    tile_px, tile_um = _number(file, "tile_size_px", _TILE_PX), _number(file, "tile_size_um", (0.1, 1e5))
    mpp = None if tile_px is None or tile_um is None else tile_um / tile_px
    return _made_by("STAMP", _text(file, "extractor"), tile_px, mpp)


def _clam(file: h5py.File, features: h5py.Dataset, coords: h5py.Dataset | None) -> MadeBy:
    encoder = _text(features, "encoder") or _text(file, "encoder")
    if coords is None:
        return _made_by("CLAM", encoder, None, None)
    tile_px, mpp = _number(coords, "patch_size", _TILE_PX), _number(coords, "mpp", _MPP)
    if mpp is not None:
        return replace(_made_by("napari-her2", encoder, tile_px, mpp), spec=_spec(file))
    magnification = _number(coords, "target_magnification", (0.1, 200.0))
    if magnification is not None:
        return _made_by("TRIDENT", encoder, tile_px, _UM_PX_BY_MAGNIFICATION / magnification)
    # The tiles of CLAM are so many pixels of a level whose scale the file does not tell.
    return _made_by("CLAM", encoder, tile_px, None)


def _spec(file: h5py.File) -> EncoderSpec | None:
    """Return the encoder that our own files state; None where they state none, or none that can be."""
    text = _text(file, "encoder_spec", _MOST_ATTRIBUTE_BYTES)
    if not text:
        return None
    try:
        values = _SPECS.parsed_json(text, "encoder_spec")
        return EncoderSpec(**values) if isinstance(values, dict) else None
    except (Her2Error, TypeError):
        return None


def _made_by(layout: str, encoder: str, tile_px: float | None, mpp: float | None) -> MadeBy:
    fits = mpp is not None and _MPP[0] <= mpp <= _MPP[1]
    whole = None if tile_px is None else round(tile_px)
    return MadeBy(layout, encoder, whole, mpp if fits else None)


def _attribute(of: h5py.HLObject, name: str) -> object:
    """Value of an attribute that is small; None where there is none."""
    if name not in of.attrs:
        return None
    found = of.attrs.get_id(name)
    if found.get_storage_size() > _MOST_ATTRIBUTE_BYTES:
        return None
    value: object = of.attrs[name]
    if isinstance(value, np.ndarray):
        return value.reshape(-1)[0] if value.size == 1 else None
    return value


def _text(of: h5py.HLObject, name: str, most: int = _MOST_NAME) -> str:
    value = _attribute(of, name)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    text = value.strip()
    return text if text.isprintable() and len(text) <= most else ""


def _number(of: h5py.HLObject, name: str, limits: tuple[float, float]) -> float | None:
    value = _attribute(of, name)
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    number = float(value)
    return number if limits[0] <= number <= limits[1] else None
