"""Cells as lazy arrays: drawn where they are indexed, and only those in view.

Nothing is kept of what was drawn: drawing a view takes less time than a frame may, so that panning never
waits, and other rules need no more than drawing it again. What is drawn depends on the size of a pixel:

==================  =============================================================================
up to 0.5 µm        stained sectors thick in the colour of the class, the rest thin and grey; centres
up to 1 µm          borders in the colour of the class
up to 2 µm          the same, thin
up to 6 µm          a dot a cell
coarser             nothing: maps show it
==================  =============================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.cells.rules import CLASSES
from napari_her2.cells.table import SECTORS, ray_directions
from napari_her2.explain.class_colours import score_colours
from napari_her2.slide.lazy_level import RGBA, LazyLevel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.cells.reading import CellReading

FINEST_UM = 0.25
# Each about 1.4 times the one before, and not twice: napari reads the level below the size of a screen pixel,
# so that lines keep their width on the screen, and no view holds more than twice the pixels of the screen.
_LEVELS_UM = (FINEST_UM, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
_SECTORS_UM, _LINES_UM, _RINGS_UM, CLEAR_UM = 0.5, 1.0, 1.5, 6.0
_COARSEST_PX = 256  # napari reads the coarsest level whole
_CHUNK_PX = 256
_LEAST_UM = 64.0  # so that levels of a single cell differ in size
_INSET_UM = 0.3  # neighbours share a border: each draws its own side of it

# Values of a drawing before it gets its colours; where lines cross, the greatest is seen.
_CLEAR, _FAINT, _UNSTAINED, _FIRST_CLASS = 0, 1, 2, 3
_WHITE, _BLACK = _FIRST_CLASS + len(CLASSES), _FIRST_CLASS + len(CLASSES) + 1
_BESIDE = 16  # added where a pixel is clear, beside a line
_SHIFT = 4  # sixteenths of a pixel


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """What is drawn: replaced as a whole, so that a thread that draws never sees half of a change."""

    reading: CellReading
    values: NDArray[np.uint8]
    marked: int = -1


class CellLevels:
    """Cells of a slide as a pyramid.

    Parameters
    ----------
    reading : CellReading

    Attributes
    ----------
    levels : list of LazyLevel
        For a multiscale layer, largest first; they stay the same whatever is shown.
    pixel_um : float
        Side of a pixel of the first level.
    origin_um : tuple of float
        (y, x) of the corner of the first pixel on the slide, µm.
    """

    pixel_um = FINEST_UM

    def __init__(self, reading: CellReading) -> None:
        index = reading.index
        low, high = _box(reading)
        low, high = low - index.reach_um, high + index.reach_um
        self.origin_um = (float(low[0]), float(low[1]))
        size_um = np.maximum(high - low, _LEAST_UM)
        sizes, coarser = list(_LEVELS_UM), CLEAR_UM
        while len(sizes) == len(_LEVELS_UM) or size_um.max() / sizes[-1] > _COARSEST_PX:
            sizes.append(coarser)
            coarser *= 2
        shapes = [tuple(int(of) for of in np.ceil(size_um / size)) for size in sizes]
        # Levels cover the same box, as napari takes it; pixels are stretched by what was rounded.
        whole_um = np.array(shapes[0]) * FINEST_UM
        self._sizes = sizes
        self._pixel_um = [whole_um / shape for shape in shapes]
        self.levels = [
            LazyLevel(self, at, (shape[0], shape[1]), _CHUNK_PX) for at, shape in enumerate(shapes)
        ]
        self._shown = _Shown(reading, values_of(reading))

    @property
    def reading(self) -> CellReading:
        """What is drawn."""
        return self._shown.reading

    @property
    def marked(self) -> int:
        """Number of the cell that is marked, -1 where none is."""
        return self._shown.marked

    def set_reading(self, reading: CellReading) -> None:
        """Draw another reading of the same cells from now on."""
        assert reading.cells is self.reading.cells, "levels lie around their cells"
        self._shown = _Shown(reading, values_of(reading), self.marked)

    def mark(self, number: int) -> None:
        """Draw a ring around a cell from now on; -1 for none."""
        self._shown = _Shown(self._shown.reading, self._shown.values, number)

    def whole(self, level: int) -> NDArray[np.uint8]:
        """Draw a whole level."""
        height, width = self.levels[level].shape[:2]
        return self.picture(level, (0, height), (0, width))

    def picture(self, level: int, rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.uint8]:
        """Draw a window of a level.

        Parameters
        ----------
        level : int
        rows, cols : tuple of int
            First pixel, and the one behind the last; inside the level.

        Returns
        -------
        (height, width, 4) uint8
            RGBA. Clear pixels beside a line have its colour, so that interpolation darkens no edge.
        """
        shape, size = (rows[1] - rows[0], cols[1] - cols[0]), self._sizes[level]
        if size >= CLEAR_UM or not min(shape):
            return np.zeros((*shape, RGBA), np.uint8)
        shown, pixel = self._shown, self._pixel_um[level]
        corner = np.asarray(self.origin_um) + np.array([rows[0], cols[0]]) * pixel
        reach = shown.reading.index.reach_um
        low, high = corner - reach, corner + np.array(shape) * pixel + reach
        numbers, centres = shown.reading.index.found(*low, *high)
        view = _View(shown, numbers, ((centres - corner) / pixel - 0.5).astype(np.float32), pixel, shape)
        if size <= _SECTORS_UM:
            drawn = view.sectors()
        elif size <= _RINGS_UM:
            drawn = view.lines() if size <= _LINES_UM else view.rings()
        else:
            drawn = view.dots(2 if size < _LEVELS_UM[-1] else 1)
        if shown.marked >= 0:
            view.ring_around(drawn, corner)
        return coloured(drawn)


def values_of(reading: CellReading) -> NDArray[np.uint8]:
    """Value that each cell is drawn with, (N,) uint8: of its class, faint where it does not count."""
    return np.where(reading.counted, reading.classes + np.uint8(_FIRST_CLASS), np.uint8(_FAINT))


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """The cells of one window.

    Parameters
    ----------
    shown : _Shown
    numbers : (n,) int32
    centre_px : (n, 2) float32
        (y, x); whole numbers are the centres of pixels.
    pixel_um : (2,) float64
    shape : tuple of int
    """

    shown: _Shown
    numbers: NDArray[np.int32]
    centre_px: NDArray[np.float32]
    pixel_um: NDArray[np.float64]
    shape: tuple[int, int]

    def sectors(self) -> NDArray[np.uint8]:
        """Stained sectors thick in the colour of the class, the rest thin and grey, and centres."""
        reading, values = self.shown.reading, self.shown.values[self.numbers]
        reach = self._reach_um()
        counted = values >= _FIRST_CLASS
        thin, thick = np.zeros(self.shape, np.uint8), np.zeros(self.shape, np.uint8)
        self._polylines(thin, reach[~counted], self.centre_px[~counted], _FAINT)
        self._polylines(thin, reach[counted], self.centre_px[counted], _UNSTAINED)
        cells, rules = reading.cells, reading.rules
        contrast, dab = cells.contrast[self.numbers], cells.dab[self.numbers]
        stained = (contrast >= rules.contrast) & (dab >= rules.dab) & counted[:, None]
        each = 4 if self.pixel_um[0] < 0.3 else 3 if self.pixel_um[0] < 0.45 else 2
        blend = _between(each)
        tips = reach[..., None] * (ray_directions() / self.pixel_um).astype(np.float32)
        points = np.einsum("sr,nrc->nsc", blend, tips, optimize=True) + self.centre_px[:, None]
        of = np.broadcast_to(values[:, None], points.shape[:2])
        chosen = np.repeat(stained, each, axis=1)
        _scatter(thick, points[chosen], of[chosen])
        _scatter(thick, self.centre_px[counted], values[counted])
        return np.maximum(thin, _wider(thick, 3))

    def lines(self) -> NDArray[np.uint8]:
        """Borders in the colour of the class."""
        values, drawn = self.shown.values[self.numbers], np.zeros(self.shape, np.uint8)
        step = 1 if self.pixel_um[0] < 0.6 else 2
        reach = self._reach_um(step)
        for value in np.unique(values):
            of = values == value
            self._polylines(drawn, reach[of], self.centre_px[of], int(value))
        return drawn

    def rings(self) -> NDArray[np.uint8]:
        """Borders as points close to each other, which takes less time than lines."""
        drawn = np.zeros(self.shape, np.uint8)
        step = 2
        tips = self._reach_um(step)[..., None] * (ray_directions()[::step] / self.pixel_um).astype(np.float32)
        tips += self.centre_px[:, None]
        values = np.repeat(self.shown.values[self.numbers], SECTORS // step)
        _scatter(drawn, tips.reshape(-1, 2), values)
        return drawn

    def dots(self, side_px: int) -> NDArray[np.uint8]:
        """Centres as squares."""
        drawn = np.zeros(self.shape, np.uint8)
        _scatter(drawn, self.centre_px, self.shown.values[self.numbers])
        return _wider(drawn, side_px) if side_px > 1 else drawn

    def ring_around(self, drawn: NDArray[np.uint8], corner_um: NDArray[np.float64]) -> None:
        """Draw a ring around the marked cell, seen on any colour: black in white."""
        cells, marked = self.shown.reading.cells, self.shown.marked
        y, x = (cells.centre_um[marked] - corner_um) / self.pixel_um - 0.5
        radius = max(10.0, (float(cells.border_um[marked].max()) + 2.5) / self.pixel_um[0])
        centre, ring = (round(16 * float(x)), round(16 * float(y))), round(16 * radius)
        if max(map(abs, centre)) < 1 << 20:  # far outside of the window
            cv2.circle(drawn, centre, ring, _WHITE, 5, shift=_SHIFT)
            cv2.circle(drawn, centre, ring, _BLACK, 2, shift=_SHIFT)

    def _reach_um(self, step: int = 1) -> NDArray[np.float32]:
        """From the centre to what is drawn, (n, 32 / step) float32."""
        border = self.shown.reading.cells.border_um[self.numbers, ::step].astype(np.float32)
        drawn: NDArray[np.float32] = np.maximum(border - np.float32(_INSET_UM), np.float32(_INSET_UM))
        return drawn

    def _polylines(
        self,
        drawn: NDArray[np.uint8],
        reach_um: NDArray[np.float32],
        centre_px: NDArray[np.float32],
        value: int,
    ) -> None:
        if not len(reach_um):
            return
        directions = ray_directions()[:: SECTORS // reach_um.shape[1]]
        sixteenths = (16 * directions / self.pixel_um)[:, ::-1].astype(np.float32)
        points = reach_um[..., None] * sixteenths + 16 * centre_px[:, None, ::-1]
        cv2.polylines(drawn, np.rint(points).astype(np.int32), True, value, 1, cv2.LINE_8, _SHIFT)


def _between(each: int) -> NDArray[np.float32]:
    """Weights of the rays in points along the border, (32 * each, 32); each ray is amid its points."""
    place = (np.arange(SECTORS * each) + 0.5) / each - 0.5
    before = np.floor(place).astype(np.int64)
    weights = np.zeros((len(place), SECTORS), np.float32)
    rows = np.arange(len(place))
    weights[rows, before % SECTORS] += 1 - (place - before)
    weights[rows, (before + 1) % SECTORS] += place - before
    return weights


def _scatter(drawn: NDArray[np.uint8], points_px: NDArray[np.float32], values: NDArray[np.uint8]) -> None:
    """Set the pixels that points lie in; of several in a pixel the last one is seen."""
    height, width = drawn.shape
    at = np.floor(points_px + np.float32(0.5)).astype(np.int32)
    y, x = at[:, 0], at[:, 1]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    drawn.reshape(-1)[(y * np.int32(width) + x)[inside]] = values[inside]


def _palette() -> NDArray[np.uint8]:
    """Colour of each value of a drawing, (32, 4) uint8 RGBA; from `_BESIDE` on the same, but clear."""
    colours = np.zeros((2 * _BESIDE, RGBA), np.uint8)
    colours[_FAINT] = (120, 120, 120, 120)
    colours[_UNSTAINED] = (95, 95, 95, 210)
    colours[_FIRST_CLASS:_WHITE] = np.round(255 * score_colours(len(CLASSES)))
    colours[_WHITE], colours[_BLACK] = (255, 255, 255, 255), (0, 0, 0, 255)
    colours[_BESIDE:, :3] = colours[:_BESIDE, :3]
    return colours


_PALETTE = _palette().view(np.uint32)[:, 0]


def coloured(drawn: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn values of a drawing into colours, (h, w, 4) uint8."""
    beside = _wider(drawn, 3)
    np.add(beside, _BESIDE, out=beside)
    np.copyto(beside, drawn, where=drawn != _CLEAR)
    colours: NDArray[np.uint8] = np.take(_PALETTE, beside).view(np.uint8).reshape(*drawn.shape, RGBA)
    return colours


def _wider(drawn: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Widen everything to squares; where they meet, the greatest is seen."""
    wider: NDArray[np.uint8] = cv2.dilate(drawn, np.ones((side_px, side_px), np.uint8))
    return wider


def _box(reading: CellReading) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest (y, x) of all centres, µm."""
    if not len(reading.cells):
        return np.zeros(2), np.zeros(2)
    centre = reading.cells.centre_um
    return centre.min(axis=0).astype(np.float64), centre.max(axis=0).astype(np.float64)
