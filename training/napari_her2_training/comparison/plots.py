"""Confusion matrices as pictures: counts, on the share of each true class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2_training.reporting.plots import confusion_axes, draw_figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

_SIDE, _EDGE = 0.9, 1.6
"""Inches of a cell, and of what stands around the cells."""


def draw_confusion(path: Path, table: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Path:
    """Draw a confusion matrix.

    Parameters
    ----------
    path : Path
        PNG; appears whole or not at all.
    table : (C, C) int
        Slides by true class (rows) and predicted class (columns).
    classes : sequence of str
    title : str

    Returns
    -------
    Path
    """

    def draw(axes: Axes) -> None:
        confusion_axes(axes, table, classes)
        axes.set_title(title, fontsize="medium")

    side = _SIDE * len(classes) + _EDGE
    return draw_figure(path, (side, side), draw)
