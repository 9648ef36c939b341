"""The scores of a folder of results as one table: ``scores.csv``, a row a slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_her2.export.csv_cells import write_records
from napari_her2.export.result_files import RESULT_FILE, read_result
from napari_her2.inference.class_words import class_name
from napari_her2.slide.names import slide_name
from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from napari_her2.cohort.outcome import SlideOutcome

TABLE_FILE = "scores.csv"
_FIRST = ("slide", "task", "result", "score", "confidence", "margin", "indeterminate")
_LAST = ("tiles", "tissue_mm2", "model", "warnings", "error", "notice")


def write_score_table(out: Path, outcomes: Iterable[SlideOutcome]) -> Path:
    """Write the table of all results in a folder, and of the slides that gave none.

    Parameters
    ----------
    out : Path
        Folder of the results, a folder a slide in it, from this run or an earlier one.
    outcomes : iterable of SlideOutcome
        Of this run; its failures become rows with an error.

    Returns
    -------
    Path

    Raises
    ------
    JobFailed
        If the folder cannot be written to.
    """
    failed = {slide_name(outcome.path): outcome for outcome in outcomes if outcome.error is not None}
    # What an earlier run said of a slide that failed now may have been asked otherwise.
    inside = sorted(out.iterdir()) if out.is_dir() else ()
    folders = [folder for folder in inside if folder.is_dir() and not folder.is_symlink()]
    files = [folder / RESULT_FILE for folder in folders if folder.name not in failed]
    rows = [row for file in files if (row := _read(file)) is not None]
    rows += [{"slide": outcome.path.name, "error": str(outcome.error)} for outcome in failed.values()]
    between = dict.fromkeys(name for row in rows for name in row if name not in (*_FIRST, *_LAST))
    path = out / TABLE_FILE
    with whole_file(path) as scratch:
        write_records(scratch, (*_FIRST, *between, *_LAST), rows)
    return path


def _read(file: Path) -> Mapping[str, Any] | None:
    """Row of a result; None where the file is none of ours, or damaged."""
    try:
        result = read_result(file)
        held = {name: tuple(scores) for name, scores in result.get("class_scores", {}).items()}
        return {
            "slide": " + ".join(slide["slide"] for slide in result["slides"]),
            "task": result["task"],
            "result": result["label"],
            "score": class_name(result["score"], held),
            "confidence": _number(result["confidence"], 4),
            "margin": _number(result["margin"], 4),
            "indeterminate": "yes" if result["abstained"] else "no",
            **{
                f"P({class_name(name, held)})": f"{value:.4f}"
                for name, value in result["probabilities"].items()
            },
            **_measured(result),
            "tiles": result["tiles"],
            "tissue_mm2": f"{result['tissue_mm2']:.2f}",
            "model": result["model"],
            "warnings": " | ".join(result["warnings"]),
            "notice": result["notice"],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
        return None


def _measured(result: Mapping[str, Any]) -> dict[str, str]:
    """Columns of what a method measures instead of probabilities; none of results of other methods."""
    if "percentages" not in result:
        return {}
    return {
        **{f"cells {name} (%)": _number(value, 2) for name, value in result["percentages"].items()},
        "cells": str(result["cells"]),
        "cells with membrane staining (%)": _number(result["membrane_staining"], 2),
        "H-score": _number(result["h_score"], 1),
        "borderline": str(result["borderline"] or ""),
        "calibration": str(result["calibration"] or "uncalibrated"),
    }


def _number(value: float | None, decimals: int) -> str:
    """Write a number; nothing where the method has none, which is null in the file."""
    return "" if value is None else f"{value:.{decimals}f}"
