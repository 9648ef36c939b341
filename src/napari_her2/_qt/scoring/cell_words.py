"""What the dock says of cells: of all that count, and of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2._napari.plain_text import one_line
from napari_her2.cells.deciding import why
from napari_her2.cells.rules import CLASSES, Rules, stained
from napari_her2.cells.table import SECTORS
from napari_her2.number_words import counted

REGIONS_MOST = 12
"""So many regions are told one by one; all of them stand in the files."""

if TYPE_CHECKING:
    from napari_her2.cells.reading import CellReading
    from napari_her2.cells.summary import Summary


def summary_lines(reading: CellReading, summary: Summary) -> tuple[str, ...]:
    """Tell what the counted cells come to.

    Parameters
    ----------
    reading : CellReading
    summary : Summary
        Of the reading.

    Returns
    -------
    tuple of str
    """
    of = "cells of the tumour" if reading.region_names else "cells, tumour or not (no region is drawn)"
    lines = [f"{summary.cells:,} {of}"]
    if summary.left_out:
        share, other = f"{summary.left_out_percent:.1f} %", summary.score_with_left_out
        otherwise = f"; with them the score would be {other}" if other else ""
        lines.append(f"{summary.left_out:,} lymphocytes and stromal cells left out ({share}){otherwise}")
    if summary.cells:
        zero = "0: " if summary.score == CLASSES[0] else "Membranes: "
        lines += [
            " · ".join(f"{name}: {summary.percentages[name]:.1f} %" for name in CLASSES),
            f"{zero}no staining {summary.no_staining:.1f} %, with membrane staining "
            f"{summary.membrane_staining:.1f} % (measured shares)",
            f"H-score {summary.h_score:.0f} · completeness x mass, 90th percentile: {summary.ck90:.2f} OD·µm",
        ]
    return (*lines, *_region_lines(summary))


def _region_lines(summary: Summary) -> list[str]:
    """Tell each region by itself, where there are several."""
    if len(summary.regions) < 2:
        return []
    lines = []
    for of in summary.regions[:REGIONS_MOST]:
        shares = ", ".join(f"{name} {of.percentages[name]:.0f} %" for name in CLASSES)
        lines.append(
            f"{one_line(of.name)}: {of.score or 'no score'} · {counted(of.cells, 'cell')} · {shares}"
        )
    left = len(summary.regions) - REGIONS_MOST
    return [*lines, f"and {counted(left, 'more region')}"] if left > 0 else lines


def score_line(summary: Summary) -> str:
    """Tell the score with its criterion, or why there is none."""
    if summary.reasons:
        return "No score. " + " ".join(summary.reasons)
    return f"Suggested score {summary.score}: {summary.why}"


def borderline_line(summary: Summary) -> str:
    """Tell between which scores the answer stands; empty where it is clear."""
    if not summary.borderline:
        return ""
    scores = " or ".join(name for name in CLASSES if name in (summary.score, *summary.alternatives))
    return f"Borderline, {scores}: {summary.borderline}"


def calibration_line(reading: CellReading) -> str:
    """Tell where the gain is from."""
    gain = f"gain {reading.rules.gain:.3g}"
    if reading.calibration:
        return f"Calibration: {one_line(reading.calibration)} ({gain})"
    if reading.rules.gain != Rules().gain:
        return f"Uncalibrated ({gain}, set by hand)"
    return f"Uncalibrated ({gain})"


def cell_lines(reading: CellReading, number: int) -> tuple[str, ...]:
    """Tell all that is known of a cell, and why it has its class.

    Parameters
    ----------
    reading : CellReading
    number : int

    Returns
    -------
    tuple of str
    """
    cells, rules = reading.cells, reading.rules
    raw, sectors = float(reading.raw_mass[number]), int(stained(cells.pick(np.array([number])), rules).sum())
    nucleus = float(cells.nucleus_um2[number])
    blue = f"nucleus {nucleus:.0f} µm²" if nucleus else "no blue nucleus"
    sentence = why(reading, number)
    return (
        f"{sentence[:1].upper()}{sentence[1:]}",
        f"{sectors} of {SECTORS} sectors stained · mass {raw:.3f} OD·µm, gain {rules.gain:.3g}",
        f"Area {cells.area_um2[number]:.0f} µm² · cytoplasm DAB {cells.cytoplasm_dab[number]:.2f} OD · "
        f"{blue}, haematoxylin {cells.nucleus_h[number]:.2f} OD",
        _standing(reading, number),
    )


def _standing(reading: CellReading, number: int) -> str:
    """Tell whether a cell counts, and for which region."""
    region = int(reading.region[number])
    if region < 0:
        return "Not counted: outside the tumour regions"
    if reading.left_out[number]:
        return "Not counted: looks like a lymphocyte or a stromal cell"
    return f"Counted, region: {one_line(reading.region_names[region])}" if reading.region_names else "Counted"
