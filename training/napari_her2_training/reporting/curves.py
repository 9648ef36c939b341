"""What was measured after each epoch, read from the log of a run and drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2.training_runs.log import LogTail
from napari_her2_training.reporting.plots import draw_curves

if TYPE_CHECKING:
    from pathlib import Path


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
    tail, behind = LogTail(folder), True
    while behind:
        _, behind = tail.read()
    drawn = []
    for stage in tail.stages:
        for ylabel, curves in (("loss", stage.of_loss()), ("measure", stage.of_measures())):
            if curves:
                points = {curve.name.replace("_", " "): np.array(curve.points) for curve in curves}
                drawn.append({"title": stage.title, "image": draw_curves(points, ylabel)})
    return drawn
