"""What was measured after each epoch, read from the log of a run and drawn."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import JobFailed
from napari_her2_training.files import OWN_FILES
from napari_her2_training.reporting.plots import draw_curves
from napari_her2_training.running.log import PROGRESS_FILE

if TYPE_CHECKING:
    from pathlib import Path

_EPOCH = "epoch"
_LOSS = "loss"


def draw_learning(folder: Path) -> list[dict[str, str]]:
    """Draw losses and other measures of every stage.

    Parameters
    ----------
    folder : Path
        Of a run.

    Returns
    -------
    list of dict
        "title" and "image"; empty where the run kept no log.
    """
    points = read_epochs(folder)
    drawn = []
    for stage, measures in points.items():
        for title, names in (
            ("loss", [name for name in measures if _LOSS in name]),
            ("measure", [name for name in measures if _LOSS not in name]),
        ):
            curves = {name.replace("_", " "): np.array(sorted(measures[name].items())) for name in names}
            if curves:
                drawn.append({"title": stage, "image": draw_curves(curves, title)})
    return drawn


def read_epochs(folder: Path) -> dict[str, dict[str, dict[float, float]]]:
    """Read what was measured: stage, measure, epoch to value.

    An epoch that was done again after a stop counts as it came out the second time.
    """
    found: dict[str, dict[str, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    try:
        lines = OWN_FILES.raw(folder / PROGRESS_FILE).decode(errors="replace").splitlines()
    except JobFailed:
        return {}
    for line in lines:
        try:
            entry = OWN_FILES.parsed_json(line, PROGRESS_FILE)
            values = {str(name): float(value) for name, value in entry["values"].items()}
            stage = str(entry["stage"])
        except (JobFailed, ValueError, KeyError, TypeError, AttributeError):  # a line that a crash cut off
            continue
        epoch = values.pop(_EPOCH, None)
        if epoch is not None:
            for name, value in values.items():
                found[stage][name][epoch] = value
    return found
