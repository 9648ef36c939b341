"""A cell in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.cells.rules import CLASSES

if TYPE_CHECKING:
    from napari_her2.cells.reading import CellReading


def cell_in_words(reading: CellReading, number: int) -> str:
    """Word what a cell is, whether it counts, and why it may not.

    Parameters
    ----------
    reading : CellReading
    number : int
        Of the cell, from 0; shown from 1.

    Returns
    -------
    str
        "1,234: 2+ · complete 72 % · mass 0.55 · region Tumour 1".
    """
    mass = float(reading.raw_mass[number]) / reading.rules.gain
    parts = [
        f"{number + 1:,}: {CLASSES[reading.classes[number]]}",
        f"complete {100 * float(reading.completeness[number]):.0f} %",
        f"mass {mass:.2f}",
    ]
    region = int(reading.region[number])
    if region < 0:
        parts.append("not counted: outside the tumour regions")
    elif reading.left_out[number]:
        parts.append("not counted: taken for a lymphocyte or stroma")
    elif region < len(reading.region_names):
        parts.append(f"region {reading.region_names[region]}")
    return " · ".join(parts)
