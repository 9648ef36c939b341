"""A result as a row of the table of scores, and how doubtful it is beside the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_her2.export.result_files import read_result
from napari_her2.inference.class_words import class_name
from napari_her2.models.familiarity import IN_PART, NOT_KNOWN, UNLIKE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FIRST = (
    *("slide", "task", "result", "score", "confidence", "margin", "indeterminate", "withheld"),
    *("set", "coverage", "familiarity", "familiarity value", "doubt", "reason"),
)
LAST = ("tiles", "tissue_mm2", "model", "warnings", "error", "notice")
"""Columns that every table has, before and behind those of the classes and of what a method measures."""
NOT_OURS = (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError)
"""What reading a result.json raises that somebody else wrote, or that is damaged."""
_WITHHELD, _INDETERMINATE, _STRANGE, _UNKNOWN, _OTHER = range(5)


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of the table.

    Parameters
    ----------
    cells : mapping of str to object
        By column.
    doubt : tuple of float
        The smallest of the most doubtful answer. In turn: withheld; indeterminate; unlike in part (or unlike
        where nothing is withheld, or borderline where a method measures); not known how familiar; all else.
        Of the strange ones the strangest first; then larger sets, of which those count as whole for which
        nothing is promised; then ensembles whose models agree less; then lower confidence.
    """

    cells: Mapping[str, Any]
    doubt: tuple[float, ...]

    @property
    def certain(self) -> bool:
        """Whether nothing speaks against the answer: it is given, and its slides look familiar."""
        return self.doubt[0] == _OTHER


def row_of(file: Path) -> TableRow | None:
    """Read the row of a result.

    Parameters
    ----------
    file : Path
        A result.json, which may come from anywhere and of any version.

    Returns
    -------
    TableRow or None
        None where the file is none of ours, or damaged.
    """
    try:
        return row_from(read_result(file))
    except NOT_OURS:
        return None


def row_from(result: Mapping[str, Any]) -> TableRow:
    """Return the row of what a result.json holds.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError, ArithmeticError
        If it is none of ours; see `NOT_OURS`.
    """
    return TableRow(_cells(result), _doubtfulness(result))


def _cells(result: Mapping[str, Any]) -> dict[str, Any]:
    held = {name: tuple(scores) for name, scores in result.get("class_scores", {}).items()}
    withheld, promised, hidden = bool(result.get("withheld")), result.get("set") or [], _hidden(result)
    cells = {
        "slide": " + ".join(slide["slide"] for slide in result["slides"]),
        "task": result["task"],
        "result": result["label"],
        "score": class_name(result["score"], held),
        "confidence": _number(result["confidence"], 4),
        "margin": _number(result["margin"], 4),
        "indeterminate": "yes" if result["abstained"] and not withheld else "no",
        "withheld": ("yes" if hidden else "shown anyway") if withheld else "no",
        "set": " or ".join(class_name(name, held) for name in promised),
        "coverage": _number(result.get("coverage"), 2),
        "familiarity": _familiarity(result),
        "familiarity value": ""
        if result.get("familiarity_value") is None
        else f"{result['familiarity_value']:.3g}",
        "doubt": result.get("doubt", ""),
        "reason": result.get("reason", ""),
        **{f"P({class_name(name, held)})": f"{value:.4f}" for name, value in result["probabilities"].items()},
        **_measured(result),
        "tiles": result["tiles"],
        "tissue_mm2": f"{result['tissue_mm2']:.2f}",
        "model": result["model"],
        "warnings": " | ".join(result["warnings"]),
        "notice": result["notice"],
    }
    answer = {"score", "confidence", "margin", "set", "coverage"}
    return {
        name: "" if hidden and (name in answer or name.startswith("P(")) else value
        for name, value in cells.items()
    }


def _hidden(result: Mapping[str, Any]) -> bool:
    return bool(result.get("withheld")) and not result.get("shown_anyway")


def _familiarity(result: Mapping[str, Any]) -> str:
    """Verdict of a result; of one that predicts and is older than verdicts nothing is known."""
    if "familiarity" not in result:
        return NOT_KNOWN if result["probabilities"] else ""
    return result["familiarity"] or ""


def _doubtfulness(result: Mapping[str, Any]) -> tuple[float, ...]:
    """See `TableRow.doubt`."""
    verdict = _familiarity(result)
    if result.get("withheld"):
        rank = _WITHHELD
    elif result["abstained"]:
        rank = _INDETERMINATE
    elif verdict in (IN_PART, UNLIKE) or result.get("borderline"):
        rank = _STRANGE
    else:
        rank = _UNKNOWN if verdict == NOT_KNOWN else _OTHER
    familiar = _known(result.get("familiarity_value"), 1) if rank in (_WITHHELD, _STRANGE) else 1.0
    models = result.get("models") or {"models": 1, "agree": 1}
    return (
        rank,
        familiar,
        -len(result.get("set") or result["probabilities"]),
        _known(models["agree"], 1) / max(_known(models["models"], 1), 1),
        _known(result["confidence"], 1),
    )


def _known(value: float | None, otherwise: float) -> float:
    """Return a number that can be put in order."""
    number = otherwise if value is None else float(value)
    return number if math.isfinite(number) else otherwise


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
