"""The cells of a window: positions and properties, all functions of the lattice place.

Every population stands on a jittered hexagonal lattice in µm. Which places are taken depends on
the layout, so the cells of a slide can be counted without drawing it, and a block draws exactly
those that were counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from napari_her2.phantom.case import Case, MembraneMix
from napari_her2.phantom.counter import uniform
from napari_her2.phantom.noise import field

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_her2.phantom.layout import Layout

Floats = NDArray[np.float64]
Window = tuple[float, float, float, float]
NONE, FAINT, MODERATE, INTENSE = range(4)
_COUNT_WINDOW_UM = 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Places of a jittered lattice: lattice row and column, and position in µm; all (N,)."""

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    y_um: Floats
    x_um: Floats

    def pick(self, chosen: NDArray[np.bool_]) -> Points:
        """Return the chosen places."""
        return Points(self.row[chosen], self.column[chosen], self.y_um[chosen], self.x_um[chosen])

    def uniform(self, seed: int, stream: str) -> Floats:
        """One uniform number a place."""
        return uniform(seed, stream, self.row, self.column)

    def normal(self, seed: int, stream: str) -> Floats:
        """One normal number a place, within ±3.5."""
        return np.asarray(np.clip(ndtri(self.uniform(seed, stream)), -3.5, 3.5), dtype=np.float64)


def lattice(seed: int, stream: str, window: Window, spacing_um: float, jitter: float) -> Points:
    """Jittered hexagonal lattice within a window (y0, x0, y1, x1) in µm, and a little around it."""
    y0, x0, y1, x1 = window
    pitch = spacing_um * 3**0.5 / 2
    rows = np.arange(int(np.floor(y0 / pitch)) - 1, int(np.ceil(y1 / pitch)) + 2)
    columns = np.arange(int(np.floor(x0 / spacing_um)) - 2, int(np.ceil(x1 / spacing_um)) + 2)
    row, column = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    dy = (uniform(seed, stream + "-y", row, column) - 0.5) * 2 * jitter
    dx = (uniform(seed, stream + "-x", row, column) - 0.5) * 2 * jitter
    return Points(row, column, (row + dy) * pitch, (column + 0.5 * (row % 2) + dx) * spacing_um)


def tumour_points(case: Case, layout: Layout, window: Window) -> tuple[Points, NDArray[np.bool_]]:
    """All places of the epithelial lattice, and which of them hold a tumour cell."""
    points = lattice(case.seed, "tumour", window, case.morphology.spacing_um, 0.3)
    taken = layout.at(layout.tumour, points.y_um, points.x_um) > 0
    taken &= layout.at(layout.section, points.y_um, points.x_um) > 4
    return points, taken


def expression(case: Case, points: Points) -> Floats:
    """HER2 expression of tumour cells: a clustered number whose ranks decide who is stained.

    Neighbours resemble each other (clones, 120 µm and 35 µm), as staining is patchy in tissue.
    """
    if points.row.size == 0:
        return np.zeros(0)
    # Sampled on a 12 µm raster around the points: the fields are far smoother than that.
    step = 12.0
    y = np.arange(points.y_um.min() // step - 1, points.y_um.max() // step + 3) * step
    x = np.arange(points.x_um.min() // step - 1, points.x_um.max() // step + 3) * step
    clone = 0.75 * field(case.seed, "clone", y, x, 120.0) + 0.35 * field(case.seed, "subclone", y, x, 35.0)
    j = np.clip(np.rint((points.y_um - y[0]) / step).astype(int), 0, y.size - 1)
    i = np.clip(np.rint((points.x_um - x[0]) / step).astype(int), 0, x.size - 1)
    level: Floats = clone[j, i] + 0.75 * points.normal(case.seed, "expression")
    return level


@dataclass(frozen=True, slots=True)
class Census:
    """The tumour cells of a slide, counted.

    Attributes
    ----------
    cells : int
        Number of tumour cells.
    thresholds : (3,) tuple
        Expression from which a cell is faint, weak to moderate, intense.
    mix : MembraneMix
        Shares of the cells that were counted.
    """

    cells: int
    thresholds: tuple[float, float, float]
    mix: MembraneMix


def state(census: Census, level: Floats) -> NDArray[np.int64]:
    """Membrane state of cells by their expression: 0 none, 1 faint, 2 weak to moderate, 3 intense."""
    return np.searchsorted(np.asarray(census.thresholds), level, side="right")


def count_windows(size_um: tuple[float, float]) -> Iterator[Window]:
    """Windows that tile a slide, small enough to count the cells of one at once."""
    for y in np.arange(0, size_um[0], _COUNT_WINDOW_UM):
        for x in np.arange(0, size_um[1], _COUNT_WINDOW_UM):
            yield y, x, min(y + _COUNT_WINDOW_UM, size_um[0]), min(x + _COUNT_WINDOW_UM, size_um[1])


def take_census(case: Case, layout: Layout, size_um: tuple[float, float]) -> Census:
    """Count the tumour cells and set the thresholds that give the case its percentages.

    Quantiles over all the cells of the slide, not fixed thresholds: patchy staining on a small
    slide would otherwise leave the rule of its own score.
    """
    levels = []
    for window in count_windows(size_um):
        points, taken = tumour_points(case, layout, window)
        taken &= (points.y_um >= window[0]) & (points.y_um < window[2])
        taken &= (points.x_um >= window[1]) & (points.x_um < window[3])
        levels.append(expression(case, points.pick(taken)))
    level = np.sort(np.concatenate(levels))
    wanted = case.membranes
    cuts = np.cumsum((wanted.none, wanted.faint_incomplete, wanted.weak_moderate_complete))
    where = np.minimum(np.rint(cuts * level.size).astype(int), level.size)
    padded = np.append(level, np.inf)
    thresholds = tuple(float(padded[index]) for index in where)
    counts = np.diff(np.concatenate(([0], where, [level.size]))) / max(level.size, 1)
    return Census(level.size, (thresholds[0], thresholds[1], thresholds[2]), MembraneMix(*map(float, counts)))


def lymphocyte_points(seed: int, layout: Layout, window: Window) -> Points:
    """Lymphocytes: where the inflammation is, between the nests."""
    points = lattice(seed, "lymphocyte", window, 8.6, 0.32)
    immune = layout.at(layout.immune, points.y_um, points.x_um)
    inside = layout.at(layout.section, points.y_um, points.x_um) > 4
    return points.pick((points.uniform(seed, "lymphocyte-there") < immune) & inside)


def stroma_points(seed: int, layout: Layout, window: Window) -> Points:
    """Spindle cells of the stroma."""
    points = lattice(seed, "spindle", window, 21.0, 0.45)
    there = layout.at(layout.tumour, points.y_um, points.x_um) < -3
    there &= layout.at(layout.fat, points.y_um, points.x_um) < -2
    there &= layout.at(layout.section, points.y_um, points.x_um) > 4
    there &= points.uniform(seed, "spindle-there") < 0.8
    return points.pick(there)


def fat_points(seed: int, layout: Layout, window: Window) -> tuple[Points, NDArray[np.bool_]]:
    """All places of the fat lattice, and which of them hold an adipocyte."""
    points = lattice(seed, "fat-cell", window, 62.0, 0.3)
    there = layout.at(layout.fat, points.y_um, points.x_um) > 8
    there &= layout.at(layout.section, points.y_um, points.x_um) > 10
    return points, there
