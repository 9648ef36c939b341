"""The table of a run beside its variants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.export.csv_cells import write_table
from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_her2_training.measures.arms import Measured

IN_TABLE = ("macro AUC", "accuracy", "macro F1")


def write_variants(path: Path, rows: Mapping[str, Mapping[str, Mapping[str, Measured]]]) -> None:
    """Write variants as CSV: a row for each, each part of the cases and each head.

    Parameters
    ----------
    path : Path
        Appears whole or not at all.
    rows : mapping of str to mapping of str to mapping of str to Measured
        By the name of the variant, the head, and the part of the cases.

    Raises
    ------
    JobFailed
        If it cannot be written.
    """
    columns = [f"{name}{what}" for name in IN_TABLE for what in ("", " std (ddof 1)")]
    cells = [
        (variant, part, head, *_cells(of_head[part]))
        for variant, heads in rows.items()
        for part in dict.fromkeys(part for of_head in heads.values() for part in of_head)
        for head, of_head in heads.items()
        if part in of_head
    ]
    with whole_file(path) as scratch:
        write_table(scratch, ("variant", "cases", "head", *columns), cells)


def _cells(measured: Measured) -> list[str]:
    found = [measured.measures.get(name) for name in IN_TABLE]
    values = [number for one in found for number in ((None, None) if one is None else (one.value, one.sd))]
    return ["" if value is None else f"{value:.4f}" for value in values]
