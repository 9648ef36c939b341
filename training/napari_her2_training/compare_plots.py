"""Confusion matrices as pictures: counts, on the share of each true class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2_training.corr_a_net_plots import draw_figure

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
    counts = np.array(table)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(axes: Axes) -> None:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*counts.shape):
            dark = shares[row, column] > 0.5
            axes.text(column, row, str(counts[row, column]), ha="center", va="center",
                      color="white" if dark else "black")  # fmt: skip
        axes.set_xticks(range(len(classes)), classes)
        axes.set_yticks(range(len(classes)), classes)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(title, fontsize="medium")

    side = _SIDE * len(classes) + _EDGE
    return draw_figure(path, (side, side), draw)
