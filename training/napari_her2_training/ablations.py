"""Measures over the folds of a run, and the table of a run beside its variants."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.export.atomic import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Measured = dict[str, dict[str, dict[str, float]]]
"""Part of the cases, head, measure: its value."""
Summary = dict[str, dict[str, dict[str, dict[str, float | None]]]]
"""Part of the cases, head, measure: "mean" and "std" over the folds."""

DDOF = 1
"""Standard deviations are those of a sample: folds are few. With one fold there is none."""
IN_TABLE = ("macro AUC", "accuracy", "macro F1")


def summary(folds: Sequence[Measured]) -> Summary:
    """Mean and standard deviation (ddof 1) over folds.

    Parameters
    ----------
    folds : sequence of Measured

    Returns
    -------
    Summary
        Over the folds that tell a measure.
    """
    found: Summary = {}
    for part, heads in folds[0].items():
        found[part] = {}
        for head, measures in heads.items():
            found[part][head] = {}
            for name in measures:
                values = [
                    fold[part][head][name] for fold in folds if name in fold.get(part, {}).get(head, {})
                ]
                deviation = float(np.std(values, ddof=DDOF)) if len(values) > DDOF else None
                found[part][head][name] = {"mean": float(np.mean(values)), "std": deviation}
    return found


def write_table(path: Path, rows: Mapping[str, Summary]) -> None:
    """Write variants as CSV: a row for each, each part of the cases and each head.

    Parameters
    ----------
    path : Path
        Appears whole or not at all.
    rows : mapping of str to Summary
        By the name of the variant.

    Raises
    ------
    JobFailed
        If it cannot be written.
    """
    columns = [f"{name}{what}" for name in IN_TABLE for what in ("", " std (ddof 1)")]
    with whole_file(path) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["variant", "cases", "head", *columns])
        for variant, parts in rows.items():
            for part, heads in parts.items():
                for head, measures in heads.items():
                    values = [
                        measures.get(name, {}).get(what) for name in IN_TABLE for what in ("mean", "std")
                    ]
                    writer.writerow([variant, part, head, *map(_shown, values)])


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
