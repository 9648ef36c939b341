"""What is shown of the cells of a slide: maps on a grid when zoomed out, each cell when zoomed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.cells.rules import CLASSES
from napari_her2.explain.cell_levels import CLEAR_UM, CellLevels
from napari_her2.explain.maps import TileMap
from napari_her2.explain.overlays import Column, OverlayInfo, TileWords
from napari_her2.slide.grid import TileGrid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.cells.reading import CellReading

GRID_PX, GRID_MPP = 160, 0.5
"""Tiles of 80 µm: about fifty cells of a dense tumour, so that one cell moves a percentage by two points."""
FEWEST_CELLS = 5
"""Of a tile: below, a percentage says more about chance than about the tissue."""

SHARE = "cells of a class"


def _share(of: str, column: str, order: int) -> OverlayInfo:
    return OverlayInfo(
        SHARE,
        title="Share of cells",
        layer_name=f"{of} (%)",
        meaning=f"How many of the tumour cells of each tile are {of}, in per cent; measured by rules, not "
        f"validated. Tiles with fewer than {FEWEST_CELLS} cells are clear. It is seen from afar; near, the "
        "cells themselves are, unless the box is ticked again.",
        unit=f"% of cells: {of}",
        colours="share",
        limits=(0.0, 100.0),
        visible=True,
        from_um=CLEAR_UM,  # nearer, cells show their classes themselves
        order=20,
        depth=10,
        hover=Column(f"{of} (%)", decimals=0, order=order),
        exported=Column(column, decimals=1, order=order),
        words=TileWords(f"{of} {{value:.0f}} %"),
    )


SHARES = {
    "3+": _share("3+", "cells_3plus_percent", 1),
    "2+": _share("2+ and above", "cells_2plus_and_above_percent", 2),
    "1+": _share("stained (1+ and above)", "cells_stained_percent", 3),
}
"""Of each class the cells that reach it, or a higher one."""
COMPLETE = OverlayInfo(
    "completeness",
    title="Completeness",
    layer_name="mean completeness of membranes (%)",
    meaning="How much of the membrane of the tumour cells of each tile is stained, on average, in per cent.",
    unit="% of the membrane",
    colours="share",
    limits=(0.0, 100.0),
    order=22,
    hover=Column("completeness (%)", decimals=0, order=4),
    exported=Column("mean_completeness_percent", decimals=1, order=4),
    words=TileWords("completeness {value:.0f} %"),
)
DENSITY = OverlayInfo(
    "cell density",
    title="Cell density",
    layer_name="tumour cells a mm²",
    meaning="How many tumour cells were counted a square millimetre; tiles at edges of regions hold fewer.",
    unit="cells a mm²",
    colours="share",
    limits="from zero",
    order=23,
    hover=Column("cells a mm²", decimals=0, order=5),
    exported=Column("cells_per_mm2", decimals=0, order=5),
    words=TileWords("{value:,.0f} cells a mm²"),
)
FOCUS = OverlayInfo(
    "focus",
    title="Blur",
    layer_name="blur (µm)",
    meaning="How blurred each tile is (standard deviation, µm): clear where the slide is sharp. "
    "Where it is not, membranes read weaker than they are.",
    unit="µm of blur",
    colours="share",
    limits=(0.5, 1.5),  # about 0.5 is sharp
    order=24,
    hover=Column("blur (µm)", decimals=2, order=6),
    exported=Column("blur_um", decimals=3, order=6),
    words=TileWords("blur {value:.2f} µm"),
)
CELLS = OverlayInfo(
    "cells",
    title="Cells",
    layer_name="cells",
    meaning="Every cell in the colour of its class, as the rules see it. Zoomed in, the stained part of the "
    "membrane is thick and the rest grey; zoomed out, each cell is a dot, and then the maps show them. Cells "
    "that are not counted are faint.",
    categories=CLASSES,
    colours="#202020",
    visible=True,
    order=10,
    depth=45,
)


def cell_grid(slide_shape_px0: tuple[int, int], slide_mpp: tuple[float, float]) -> TileGrid:
    """Return the grid that maps of cells are made on.

    Parameters
    ----------
    slide_shape_px0 : tuple of int
        (height, width) of level 0, pixels.
    slide_mpp : tuple of float
        (y, x) µm per level-0 pixel.
    """
    return TileGrid(slide_shape_px0, slide_mpp, GRID_PX, GRID_MPP)


def tiles_with_cells(reading: CellReading, grid: TileGrid) -> NDArray[np.int64]:
    """Tiles that hold a cell which counts, (T, 2) int64, (row, column), row by row."""
    return np.argwhere(_Counts(reading, grid).all > 0)


def cell_maps(reading: CellReading, grid: TileGrid) -> tuple[TileMap, ...]:
    """Make the maps of the cells that count.

    Parameters
    ----------
    reading : CellReading
    grid : TileGrid
        See `cell_grid`.

    Returns
    -------
    tuple of TileMap
        Of 3+, 2+ and above, and stained cells in per cent; of completeness in per cent; of cells a mm².
        All but the last are NaN where there are fewer than `FEWEST_CELLS`, and the last where there are none.
    """
    counts = _Counts(reading, grid)
    with np.errstate(divide="ignore", invalid="ignore"):
        percent = np.where(counts.all >= FEWEST_CELLS, 100 / counts.all, np.nan)
    of_class = counts.of_classes(reading.classes)
    shares = [
        TileMap(
            info, (percent * of_class[..., CLASSES.index(name) :].sum(axis=-1)).astype(np.float32), grid, name
        )
        for name, info in SHARES.items()
    ]
    complete = (percent * counts.sums(reading.completeness)).astype(np.float32)
    density = np.where(counts.all > 0, counts.all / (grid.tile_um**2 / 1e6), np.nan).astype(np.float32)
    return (*shares, TileMap(COMPLETE, complete, grid), TileMap(DENSITY, density, grid))


def focus_map(blur_um: NDArray[np.floating], square_um: float, grid: TileGrid) -> TileMap:
    """Map the blur that was measured on a grid of its own.

    Parameters
    ----------
    blur_um : (rows, columns) float
        See `napari_her2.slide.focus.focus_of`; of squares from the upper left corner of the slide on. NaN
        where nothing was measured.
    square_um : float
        Side of a square, µm.
    grid : TileGrid

    Returns
    -------
    TileMap
        Of each tile the mean of the squares whose centre lies in it, or else the square at its centre.
    """
    tile = np.indices(grid.shape).reshape(2, -1).T
    at = np.floor((tile + 0.5) * grid.tile_um / square_um).astype(np.int64)
    known = (at < blur_um.shape).all(axis=1)
    values = np.full(len(tile), np.nan)
    values[known] = blur_um[at[known, 0], at[known, 1]]
    squares = np.argwhere(np.isfinite(blur_um))
    index = np.floor((squares + 0.5) * square_um / grid.tile_um).astype(np.int64)
    inside = grid.contains(index)
    place = index[inside] @ np.array([grid.shape[1], 1])
    counted = np.bincount(place, minlength=len(tile))
    sums = np.bincount(place, blur_um[tuple(squares[inside].T)], minlength=len(tile))
    values[counted > 0] = sums[counted > 0] / counted[counted > 0]
    return TileMap(FOCUS, values.reshape(grid.shape).astype(np.float32), grid)


class _Counts:
    """Cells that count, sorted into the tiles of a grid.

    Attributes
    ----------
    all : (rows, columns) int64
        How many there are.
    """

    def __init__(self, reading: CellReading, grid: TileGrid) -> None:
        rows, cols = self._shape = grid.shape
        at = reading.cells.centre_um * np.float32(1 / grid.tile_um)
        y, x = at[:, 0], at[:, 1]
        self._cells = np.flatnonzero(reading.counted & (y >= 0) & (y < rows) & (x >= 0) & (x < cols))
        self._place = y[self._cells].astype(np.int64) * cols + x[self._cells].astype(np.int64)
        self.all = self._sorted(self._place, 1)[..., 0]

    def of_classes(self, classes: NDArray[np.uint8]) -> NDArray[np.int64]:
        """How many there are of each class, (rows, columns, classes)."""
        return self._sorted(self._place * len(CLASSES) + classes[self._cells], len(CLASSES))

    def sums(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sum of the values of the cells of each tile, (rows, columns)."""
        size = self._shape[0] * self._shape[1]
        sums = np.bincount(self._place, values[self._cells], minlength=size).reshape(self._shape)
        return sums.astype(np.float64)  # whole numbers where there are no cells

    def _sorted(self, place: NDArray[np.int64], kinds: int) -> NDArray[np.int64]:
        size = self._shape[0] * self._shape[1] * kinds
        return np.bincount(place, minlength=size).reshape(*self._shape, kinds)


@dataclass(frozen=True, slots=True, eq=False)
class CellBorders:
    """The cells of a slide, drawn where they are looked at.

    Parameters
    ----------
    info : OverlayInfo
        `CELLS`.
    reading : CellReading
    class_name : str or None
    """

    info: OverlayInfo
    reading: CellReading
    class_name: str | None = None

    def layer_data(self, mpp: tuple[float, float]) -> tuple[Any, dict[str, Any], str]:
        """Return a multiscale image of lazy levels; see `napari_her2.explain.cell_levels.CellLevels`."""
        levels = CellLevels(self.reading)
        return levels.levels, {**_place(levels, mpp), **_LOOK}, "image"

    def refreshed(self, layer: Any, mpp: tuple[float, float]) -> None:  # noqa: ANN401 - a napari layer
        """Show these cells in a layer that was made of others, or of the same judged otherwise.

        Parameters
        ----------
        layer : Image
            Made of what `layer_data` returned.
        mpp : tuple of float
            (y, x) µm per level-0 pixel.
        """
        levels = levels_of(layer)
        if levels is not None and levels.reading.cells is self.reading.cells:
            levels.set_reading(self.reading)
            layer.refresh(extent=False, thumbnail=False)
            return
        levels = CellLevels(self.reading)
        layer.data = levels.levels
        for name, value in _place(levels, mpp).items():
            setattr(layer, name, value)


_LOOK = {
    "rgb": True,
    "multiscale": True,
    "interpolation2d": "linear",
    "contrast_limits": (0, 255),  # or napari would look for them in the data
    "cache": False,
}


def levels_of(layer: Any) -> CellLevels | None:  # noqa: ANN401 - a napari layer
    """Return what the layer of `CellBorders` is drawn by; None of any other layer."""
    data = getattr(layer, "data", None)
    source = (
        getattr(data[0], "source", None) if getattr(layer, "multiscale", False) and data is not None else None
    )
    return source if isinstance(source, CellLevels) else None


def _place(levels: CellLevels, mpp: tuple[float, float]) -> dict[str, Any]:
    """Scale and place, µm: the slide begins half a pixel before 0, where the centre of its first pixel is."""
    pixel = levels.pixel_um
    origin = np.asarray(levels.origin_um)
    return {"scale": (pixel, pixel), "translate": tuple(origin - np.asarray(mpp) / 2 + pixel / 2)}
