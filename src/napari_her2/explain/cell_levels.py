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
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from napari_her2.cells.rules import CLASSES, stained
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
# Neighbours share a border, and each draws its own side of it; where the membrane is seen, it stays bare.
_INSET_UM, _INSET_SECTORS_UM = 0.3, 0.7

# Values of a drawing before it gets its colours; where lines cross, the greatest is seen.
_CLEAR, _FAINT, _UNSTAINED, _FIRST_CLASS = 0, 1, 2, 3
_WHITE, _BLACK = _FIRST_CLASS + len(CLASSES), _FIRST_CLASS + len(CLASSES) + 1
_WAYS = 16  # more than there are values
_SHIFT, _PARTS = 4, np.float32(16)  # OpenCV draws in sixteenths of a pixel


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
        origin = np.asarray(self.origin_um)
        view = _View.of(self._shown, size, origin, self._pixel_um[level], rows, cols)
        if size <= _SECTORS_UM:
            drawn = view.sectors()
        elif size <= _LINES_UM:
            drawn = view.lines()
        elif size <= _RINGS_UM:
            drawn = view.rings()
        else:
            drawn = view.dots()
        view.mark(drawn)
        return coloured(drawn, view.pad_px)


def values_of(reading: CellReading) -> NDArray[np.uint8]:
    """Value that each cell is drawn with, (N,) uint8: of its class, faint where it does not count."""
    return np.where(reading.counted, reading.classes + np.uint8(_FIRST_CLASS), np.uint8(_FAINT))


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """The cells of one window, which is drawn with so much around it that every cell lies in it whole.

    Parameters
    ----------
    shown : _Shown
    size_um : float
        Of a pixel, as the level is named.
    numbers : (n,) int32
    y, x : (n,) float32
        Centres, pixels of the drawing; whole numbers are the corners of pixels.
    corner_um : (2,) float64
        (y, x) of the drawing, µm.
    pixel_um : (2,) float64
        (y, x), exactly.
    shape : tuple of int
        Of the drawing.
    pad_px : int
        Of it on each side around the window.
    """

    shown: _Shown
    size_um: float
    numbers: NDArray[np.int32]
    y: NDArray[np.float32]
    x: NDArray[np.float32]
    corner_um: NDArray[np.float64]
    pixel_um: NDArray[np.float64]
    shape: tuple[int, int]
    pad_px: int

    @classmethod
    def of(
        cls,
        shown: _Shown,
        size_um: float,
        origin_um: NDArray[np.float64],
        pixel_um: NDArray[np.float64],
        rows: tuple[int, int],
        cols: tuple[int, int],
    ) -> _View:
        """Find the cells of a window of a level."""
        index = shown.reading.index
        reach = index.reach_um
        pad = int(np.ceil(2 * reach / pixel_um.min())) + 3
        low = origin_um + np.array([rows[0], cols[0]]) * pixel_um
        high = origin_um + np.array([rows[1], cols[1]]) * pixel_um
        corner = low - pad * pixel_um
        numbers, centres = index.found(*(low - reach - 2 * pixel_um), *(high + reach + 2 * pixel_um))
        y, x = ((centres - corner) / pixel_um).astype(np.float32).T
        shape = rows[1] - rows[0] + 2 * pad, cols[1] - cols[0] + 2 * pad
        return cls(shown, size_um, numbers, y, x, corner, pixel_um, shape, pad)

    def sectors(self) -> NDArray[np.uint8]:
        """Stained sectors thick in the colour of the class, the rest thin and grey, and centres."""
        cells, rules = self.shown.reading.cells, self.shown.reading.rules
        values = self.shown.values[self.numbers]
        counted = values >= _FIRST_CLASS
        thin = self._outlines(np.where(counted, _UNSTAINED, _FAINT), 1 if self.size_um < _SECTORS_UM else 2)
        sectors = stained(cells.part(self.numbers[counted]), rules)
        each = 4 if self.size_um <= FINEST_UM else 3 if self.size_um < _SECTORS_UM else 2
        y, x = self._points(counted, _between(each))
        thick = np.zeros(self.shape, np.uint8)
        chosen = np.repeat(sectors, each, axis=1)
        colours = np.repeat(values[counted], sectors.sum(axis=1) * each)
        _scatter(thick, y[chosen], x[chosen], colours)
        _scatter(thick, self.y[counted], self.x[counted], values[counted])
        return np.maximum(thin, _wider(thick, 3))

    def lines(self) -> NDArray[np.uint8]:
        """Borders in the colour of the class."""
        return self._outlines(self.shown.values[self.numbers], 2 if self.size_um < _LINES_UM else 4)

    def rings(self) -> NDArray[np.uint8]:
        """Borders as points close to each other, which takes less time than lines."""
        drawn, each = np.zeros(self.shape, np.uint8), SECTORS // 2
        y, x = self._points(slice(None), np.eye(SECTORS, dtype=np.float32)[::2])
        _scatter(drawn, y.reshape(-1), x.reshape(-1), np.repeat(self.shown.values[self.numbers], each))
        return drawn

    def dots(self) -> NDArray[np.uint8]:
        """Centres as squares of about 6 µm."""
        drawn = np.zeros(self.shape, np.uint8)
        _scatter(drawn, self.y, self.x, self.shown.values[self.numbers])
        return _wider(drawn, 3 if self.size_um <= 2 else 2)

    def mark(self, drawn: NDArray[np.uint8]) -> None:
        """Draw a ring around the marked cell, seen on any colour: black in white."""
        cells, marked = self.shown.reading.cells, self.shown.marked
        if not 0 <= marked < len(cells):
            return
        y, x = (cells.centre_um[marked] - self.corner_um) / self.pixel_um
        radius = max(10.0, (float(cells.part(np.array([marked])).border_um.max()) + 2.5) / self.pixel_um[0])
        reach = int(radius) + 4
        top, left = (max(int(of) - reach, 0) for of in (y, x))
        box = drawn[top : max(int(y) + reach, 0), left : max(int(x) + reach, 0)]
        rows, cols = np.ogrid[: box.shape[0], : box.shape[1]]
        away = np.abs(np.hypot(rows + (top + 0.5 - y), cols + (left + 0.5 - x)) - radius)
        box[away <= 2.5] = _WHITE
        box[away <= 1.0] = _BLACK

    def _reach_um(self, chosen: slice | NDArray[Any], step: int = 1) -> NDArray[np.float32]:
        """From the centre to what is drawn, (n, 32 / step) float32."""
        cells = self.shown.reading.cells.part(self.numbers[chosen])
        border = cells.border_um[:, ::step].astype(np.float32)
        border -= np.float32(_INSET_SECTORS_UM if self.size_um <= _SECTORS_UM else _INSET_UM)
        return np.maximum(border, np.float32(_INSET_UM), out=border)

    def _points(
        self, chosen: slice | NDArray[np.bool_], blend: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Points on the borders of cells, y and x, (n, points) each, pixels of the drawing."""
        reach, directions = self._reach_um(chosen), (ray_directions() / self.pixel_um).astype(np.float32)
        y, x = (reach @ (directions[:, axis, None] * blend.T) for axis in (0, 1))
        y += self.y[chosen, None]
        x += self.x[chosen, None]
        return y, x

    def _outlines(self, values: NDArray[np.integer], step: int) -> NDArray[np.uint8]:
        """Borders as lines of one pixel through every ``step``-th ray, the greatest value on top."""
        drawn = np.zeros(self.shape, np.uint8)
        directions = (_PARTS * ray_directions()[::step] / self.pixel_um).astype(np.float32)
        for value in np.unique(values):
            of = np.flatnonzero(values == value)
            reach = self._reach_um(of, step)
            points = np.empty((*reach.shape, 2), np.int32)
            for axis, centre in ((0, self.x), (1, self.y)):
                place = reach * directions[:, 1 - axis]
                place += (_PARTS * centre[of] + np.float32(0.5 - _PARTS / 2))[:, None]
                points[..., axis] = place
            cv2.polylines(drawn, cast("Any", points), isClosed=True, color=int(value), shift=_SHIFT)
        return drawn


def _between(each: int) -> NDArray[np.float32]:
    """Weights of the rays in points along the border, (32 * each, 32); each ray is amid its points."""
    place = (np.arange(SECTORS * each) + 0.5) / each - 0.5
    before = np.floor(place).astype(np.int64)
    weights = np.zeros((len(place), SECTORS), np.float32)
    rows = np.arange(len(place))
    weights[rows, before % SECTORS] += 1 - (place - before)
    weights[rows, (before + 1) % SECTORS] += place - before
    return weights


def _scatter(
    drawn: NDArray[np.uint8], y: NDArray[np.float32], x: NDArray[np.float32], values: NDArray[np.uint8]
) -> None:
    """Set the pixels that points lie in; of several in a pixel the last one is seen."""
    place = y.astype(np.int32)
    place *= np.int32(drawn.shape[1])
    place += x.astype(np.int32)
    drawn.reshape(-1)[place] = values


def _palette() -> NDArray[np.int32]:
    """Colour of a pixel by 16 times its value plus the greatest beside it, (256,) RGBA in one number."""
    colours = np.zeros((_WAYS, RGBA), np.uint8)
    colours[_FAINT] = (120, 120, 120, 120)
    colours[_UNSTAINED] = (95, 95, 95, 210)
    colours[_FIRST_CLASS:_WHITE] = np.round(255 * score_colours(len(CLASSES)))
    colours[_WHITE], colours[_BLACK] = (255, 255, 255, 255), (0, 0, 0, 255)
    pairs = np.repeat(colours[:, None], _WAYS, axis=1)
    pairs[_CLEAR, :, :3] = colours[:, :3]
    return pairs.reshape(-1, RGBA).view(np.int32)[:, 0]


_PALETTE = _palette()


def coloured(drawn: NDArray[np.uint8], pad_px: int) -> NDArray[np.uint8]:
    """Turn values of a drawing into colours, (h, w, 4) uint8, without its margin."""
    inner = slice(pad_px, -pad_px), slice(pad_px, -pad_px)
    pairs = _wider(drawn, 3)[inner]
    pairs |= drawn[inner] << np.uint8(4)
    # OpenCV looks numbers up five times as fast as NumPy does.
    colours: NDArray[np.uint8] = cv2.LUT(pairs, _PALETTE).view(np.uint8).reshape(*pairs.shape, RGBA)
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
