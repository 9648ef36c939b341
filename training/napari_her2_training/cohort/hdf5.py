"""Datasets of HDF5 files from outside: their values lie in the file itself, no more than it can hold."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import h5py

from napari_her2.errors import JobFailed
from napari_her2.outside import is_regular, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)
"""What h5py raises on files that are damaged."""
_MOST_PACKED = 1100
"""Numbers in the place of one: no codec of HDF5 packs tighter, gzip reaches 1,032."""
_ALWAYS = 2**20


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file to read.

    Parameters
    ----------
    path : Path

    Raises
    ------
    JobFailed
        If the file is damaged or no HDF5 file.
    """
    if not is_regular(path):
        raise JobFailed(f"{shown(str(path))} is no file: check the path.")
    try:
        file = h5py.File(path, "r")
    except HDF5_ERRORS as error:
        raise damaged_hdf5(path, error) from error
    with file:
        yield file


@contextmanager
def open_dataset(path: Path, name: str) -> Iterator[h5py.Dataset]:
    """Open a dataset of numbers in a file; see `open_hdf5` and `checked_dataset`."""
    with open_hdf5(path) as file:
        try:
            found = checked_dataset(file, name, path)
        except HDF5_ERRORS as error:
            raise damaged_hdf5(path, error) from error
        yield found


def damaged_hdf5(path: Path, error: Exception) -> JobFailed:
    """Return the error for a file that HDF5 cannot read."""
    reason = shown(str(error).strip().partition("\n")[0])
    return JobFailed(f"{path.name} is damaged, or no HDF5 file ({reason}): get it again.")


def checked_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """Return a dataset of numbers, after a look at what it claims.

    Parameters
    ----------
    file : h5py.File
    name : str
        Of the dataset, right in the file: no link leads anywhere else.
    path : Path
        Of the file, for messages.

    Raises
    ------
    JobFailed
        If there is no such dataset, or one that lies in other files or claims more than was ever written to
        it.
    """
    link = file.get(name, getlink=True)
    if link is not None and not isinstance(link, h5py.HardLink):
        raise JobFailed(f"{path.name} has only a link for its dataset {name!r}: copy the data into it.")
    found = None if link is None else file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise JobFailed(f"{path.name} has no dataset {name!r}: write it as CLAM, TRIDENT or STAMP do.")
    if found.external or found.is_virtual:
        raise JobFailed(f"{path.name} keeps its dataset {name!r} in other files: copy the data into it.")
    if found.shape is None or found.dtype.hasobject:
        raise JobFailed(f"{path.name} holds no numbers in its dataset {name!r}: write it anew.")
    claimed = math.prod(found.shape) * found.dtype.itemsize
    stored = found.id.get_storage_size()
    if claimed > max(_ALWAYS, stored * _MOST_PACKED) or (claimed and not stored):
        raise JobFailed(
            f"The dataset {name!r} of {path.name} claims {claimed:,} bytes, of which {stored:,} were ever "
            f"written: write it again."
        )
    return found
