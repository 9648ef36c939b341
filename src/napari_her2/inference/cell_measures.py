"""What was measured of cells, as it stands in result.json, and as it is told to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_her2.cells.deciding import changes
from napari_her2.cells.rules_file import rules_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2.cells.reading import CellReading
    from napari_her2.cells.summary import Summary

UNCALIBRATED = "uncalibrated"


def cell_measures(reading: CellReading, summary: Summary) -> dict[str, Any]:
    """Return what was measured of cells, for result.json.

    Parameters
    ----------
    reading : CellReading
    summary : Summary
        Of it.

    Returns
    -------
    dict
        Plain values; percentages from 0 to 100.
    """
    return {
        **_counts(summary),
        "cells_of": "the cells of the drawn tumour" if reading.region_names else "all cells",
        "cells_read": len(reading.cells),
        "alternatives": list(summary.alternatives),
        "borderline": summary.borderline,
        "criterion": summary.why,
        "left_out": summary.left_out,
        "left_out_percent": summary.left_out_percent,
        "score_with_left_out": summary.score_with_left_out,
        "calibration": reading.calibration or None,
        "rules": rules_values(reading.rules),
        "rules_changed": list(changes(reading.rules)),
        "blur_um": reading.blur_um,
        "regions_cells": [
            {"name": each.name, "score": each.score, "reasons": list(each.reasons), **_counts(each)}
            for each in summary.regions
        ],
    }


def _counts(summary: Summary) -> dict[str, Any]:
    return {
        "percentages": dict(summary.percentages),
        "at_least": dict(summary.at_least),
        "cells": summary.cells,
        "membrane_staining": summary.membrane_staining,
        "no_staining": summary.no_staining,
        "incomplete": summary.incomplete,
        "h_score": summary.h_score,
        "completeness_x_mass_90": summary.ck90,
    }


def task_words(task: str, reading: CellReading) -> str:
    """Return the task with what it was calibrated by: it stands beside every score."""
    by = f"calibrated by {reading.calibration}" if reading.calibration else UNCALIBRATED
    return f"{task}, {by}"


def cell_facts(measures: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """How an answer came about, as names and values.

    Parameters
    ----------
    measures : mapping
        From `cell_measures`.
    """
    number, gain = measures["cells"], measures["rules"]["gain"]
    facts = [("percentages of", f"{number:,} cells: {measures['cells_of']}")]
    if measures["criterion"]:
        facts.append(("criterion", measures["criterion"]))
    if measures["borderline"]:
        scores = " or ".join(measures["alternatives"])
        facts.append(("borderline", f"may be {scores}. {measures['borderline']}"))
    stained = measures["membrane_staining"]
    facts += [
        ("membrane staining", f"{stained:.1f} % of the cells, none in {measures['no_staining']:.1f} %"),
        (
            "summary",
            f"H-score {measures['h_score']:.0f}, completeness x mass at the 90th percentile "
            f"{measures['completeness_x_mass_90']:.2f} OD·µm",
        ),
    ]
    if measures["left_out"]:
        other = measures["score_with_left_out"]
        otherwise = f"; with them the score would be {other}" if other else ""
        share = f"{measures['left_out_percent']:.1f} % of the cells taken for lymphocytes and stroma"
        facts.append(("left out", f"{share}{otherwise}"))
    known = measures["calibration"]
    facts.append(("calibration", f"{known or UNCALIBRATED}, gain {gain:.3g}"))
    if len(measures["regions_cells"]) > 1:
        facts += [(each["name"], _region_words(each)) for each in measures["regions_cells"]]
    return tuple(facts)


def _region_words(region: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{name} {value:.0f} %" for name, value in region["percentages"].items())
    return f"{region['score'] or 'no score'} of {region['cells']:,} cells ({shares})"
