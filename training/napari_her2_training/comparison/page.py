"""The report of a comparison: all arms in one table, with what is taken for what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.models.card import NOTICE
from napari_her2.training_runs.files import REPORT_FILE
from napari_her2_training.config_sections import MeasureConfig
from napari_her2_training.files import OWN_FILES
from napari_her2_training.measures.arms import Measured
from napari_her2_training.reporting.html import write_page
from napari_her2_training.reporting.page import cell, interval_words
from napari_her2_training.reporting.plots import draw_confusion

if TYPE_CHECKING:
    from pathlib import Path

COMPARISON_FILE = "compare.json"
IN_TABLE = ("macro AUC", "macro F1", "accuracy", "balanced accuracy", "quadratic kappa")
"""Measures of the table, before the recall of each class."""


@dataclass(frozen=True, slots=True)
class Row:
    """One reading of an arm, as the table has it.

    Parameters
    ----------
    arm, reading : str
    parameters : int
        Of what was trained.
    judged : str
        "test" or "validation".
    measured : Measured
    """

    arm: str
    reading: str
    parameters: int
    judged: str
    measured: Measured

    @property
    def name(self) -> str:
        """Arm and reading in one: "patches (vote)"."""
        return f"{self.arm} ({self.reading})" if self.reading else self.arm


def write_comparison_page(folder: Path) -> Path:
    """Write the report of a finished comparison.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    JobFailed
        If its record is damaged.
    """
    try:
        record = OWN_FILES.json_object(folder / COMPARISON_FILE)
        rows = [
            Row(
                row.pop("arm"),
                row.pop("reading"),
                row.pop("parameters"),
                row.pop("judged"),
                Measured.of_json(row),
            )
            for row in record["rows"]
        ]
        classes: dict[str, str] = record["named"]
        settings = MeasureConfig(**record["measure"])
        content = {
            "name": record["name"],
            "notice": f"{NOTICE} {record['notice']}".strip(),
            "stain": record["stain"],
            "mapping": record["mapping"],
            "published": [{**entry, "value": f"{entry['value']:.3f}"} for entry in record["published"]],
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobFailed(f"{folder / COMPARISON_FILE} is damaged ({error}): compare again.") from error
    names = (*IN_TABLE, *(f"recall {name}" for name in classes))
    cases = max(row.measured.cases for row in rows)
    judged = (
        f"{cases} cases held out: none was learnt from, and none chose an epoch."
        if rows[0].judged == "test"
        else f"{cases} cases that chose the epochs, as none is held out: the numbers are somewhat too good."
    )
    content |= {
        "folder": folder.name,
        "measures": [*IN_TABLE, *(f"recall {named}" for named in classes.values())],
        "judged_words": f"Measured on {judged} Cases were split alike for every arm.",
        "interval_words": interval_words(settings, cases, several=rows[0].measured.folds > 1),
        "rows": [
            {
                "name": row.name,
                "parameters": f"{row.parameters:,}",
                "cells": [cell(row.measured.measures.get(name)) for name in names],
                "confusion": draw_confusion(row.measured.confusion, tuple(classes.values())),
            }
            for row in rows
        ],
    }
    return write_page(folder / REPORT_FILE, "comparison", content)
