"""The files that trainings write: whole or not at all."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.export.csv_cells import write_records
from napari_her2.outside import MiB, Reading
from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


OWN_FILES = Reading(limit=64 * MiB, advice="train again in another folder, or get the file back", nan=True)
"""How files of finished trainings are read: they may have been through other hands."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    with whole_file(path) as file:
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same columns, whole or not at all; numbers with four decimals, None as nothing."""
    written = [{key: f"{v:.4f}" if isinstance(v, float) else v for key, v in row.items()} for row in rows]
    with whole_file(path) as whole:
        write_records(whole, rows[0], written)


@contextmanager
def array_file(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> Iterator[NDArray[np.generic]]:
    """Fill a ``.npy`` file piece by piece; it appears whole or not at all.

    Yields
    ------
    array
        Mapped to the file.

    Raises
    ------
    JobFailed
        If the place cannot be written, or the disk is full.
    """
    with whole_file(path) as file:
        array = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
        yield array
        array.flush()
