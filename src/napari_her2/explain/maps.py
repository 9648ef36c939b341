"""A map over the slide: one value a tile, on the tile grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.overlays import PERCENTILE, RAW, Column, Limits, OverlayInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid

_BRIGHTEST_PERCENT = 99.5

TISSUE_SHARE = OverlayInfo(
    "tissue", meaning="How much of each tile was taken for tissue.", unit="share of the tile"
)
DAMAGED = OverlayInfo(
    "corrupt",
    layer_name="{count} damaged tiles (left out)",
    meaning="Tiles left out because the file is damaged there.",
    unit="1 where damaged",
    colours="#ff1744",
    visible=True,
    depth=30,
)


@dataclass(frozen=True, slots=True, eq=False)
class TileMap:
    """One value a tile, on the tile grid.

    Parameters
    ----------
    info : OverlayInfo
        What a value is, and how it is shown, listed and exported.
    values : (rows, columns) float32
        NaN where nothing was scored.
    grid : TileGrid
        Places the map on the slide.
    class_name : str or None
        The score that it is about, where there is a map for each.
    """

    info: OverlayInfo
    values: NDArray[np.float32]
    grid: TileGrid
    class_name: str | None = None

    @property
    def kind(self) -> str:
        """What tells it apart from other maps: "attention", "evidence"."""
        return self.info.kind

    @property
    def unit(self) -> str:
        """What a value is, for a person: "attention weight", "percentile", "logit"."""
        return self.info.unit

    @property
    def description(self) -> str:
        """What the map shows and does not show, in one sentence."""
        return self.info.means(self.class_name)

    @property
    def name(self) -> str:
        """Short name for a file: "attention", "evidence 3+", "attention percentile"."""
        scale = None if self.info.scale == RAW else self.info.scale
        return " ".join(part for part in (self.kind, self.class_name, scale) if part is not None)

    @property
    def holds_any(self) -> bool:
        """Whether any tile has a value."""
        return bool(np.isfinite(self.values).any())

    def at(self, index: NDArray[np.integer]) -> NDArray[np.float32]:
        """Values of tiles, (N,) float32; ``index`` holds (row, column) of each."""
        return np.asarray(self.values[index[:, 0], index[:, 1]], np.float32)

    def percentile(self) -> TileMap:
        """Return the same map as percentile ranks in (0, 1] (average ranks over the scored tiles)."""
        values = np.full_like(self.values, np.nan)
        scored = np.isfinite(self.values)
        if scored.any():
            values[scored] = average_ranks(self.values[scored]) / scored.sum()
        info = replace(self.info, scale=PERCENTILE, unit=PERCENTILE, limits=(0.0, 1.0))
        return replace(self, values=values, info=info)


def tissue_map(grid: TileGrid, share: NDArray[np.floating]) -> TileMap:
    """Map how much of each tile is tissue; ``share`` is (rows, columns), 0 to 1."""
    return TileMap(TISSUE_SHARE, np.where(share > 0, share, np.nan).astype(np.float32), grid)


def damage_map(grid: TileGrid, index: NDArray[np.integer], info: OverlayInfo = DAMAGED) -> TileMap:
    """Map where the file is damaged; ``index`` holds (row, column) of each damaged tile."""
    return TileMap(info, grid.paint(index, np.ones(len(index), np.float32)), grid)


def average_ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rank values from 1 on; equal ones share the mean of their ranks.

    As `scipy.stats.rankdata`, which takes a second to import, on the way of every slide and every dock.

    Parameters
    ----------
    values : (N,) float
        No NaN.

    Returns
    -------
    (N,) float64
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place], np.float64)


def limits_of(values: NDArray[np.float32], limits: Limits = "percentile") -> tuple[float, float]:
    """Values at the two ends of the colours of a map.

    Parameters
    ----------
    values : float32
        NaN is left out.
    limits : tuple of float or str
        Given, or found in the values: "percentile" takes their 1st and 99th percentile, "symmetric" the
        99th percentile of their size on both sides of zero, "above zero" zero and the 99.5th percentile of
        what is above it, "from zero" zero and the 99.5th percentile of all.

    Returns
    -------
    tuple of float
        Low, high; always low < high.
    """
    if not isinstance(limits, str):
        return limits
    scored = values[np.isfinite(values)]
    if limits == "percentile":
        low, high = (float(limit) for limit in np.percentile(scored, (1, 99))) if scored.size else (0.0, 1.0)
        return (low, high) if low < high else (low, low + (abs(low) or 1.0))
    if limits == "above zero":
        scored = scored[scored > 0]
    size = np.abs(scored) if limits == "symmetric" else np.maximum(scored, 0)
    percent = 99 if limits == "symmetric" else _BRIGHTEST_PERCENT
    reach = float(np.percentile(size, percent)) or float(size.max()) if size.size else 0.0
    reach = reach or 1.0
    return (-reach if limits == "symmetric" else 0.0), reach


@dataclass(frozen=True, slots=True, eq=False)
class TileColumn:
    """Values of tiles under one name.

    Parameters
    ----------
    name : str
    column : Column
        How they are written.
    values : (N,) float32
    categories : tuple of str
        What whole numbers stand for; empty of measured values.
    """

    name: str
    column: Column
    values: NDArray[np.float32]
    categories: tuple[str, ...] = ()


def tile_columns(
    maps: Iterable[TileMap],
    index: NDArray[np.integer],
    column_of: Callable[[OverlayInfo], Column | None],
    named: Callable[[str], str] = str,
) -> list[TileColumn]:
    """Values of tiles as columns, in the order that the maps ask for.

    Parameters
    ----------
    maps : iterable of TileMap
    index : (N, 2) int
        (row, column) of each tile.
    column_of : callable
        Which column of a description is wanted; maps for which it is None have none.
    named : callable
        How a class is called.

    Returns
    -------
    list of TileColumn
    """
    found: dict[str, TileColumn] = {}
    for tile_map in maps:
        column = column_of(tile_map.info)
        if column is None:
            continue
        name = column.name.format(class_name=named(tile_map.class_name or ""))
        values = tile_map.at(index)
        if column.greatest and name in found:
            values = np.maximum(values, found[name].values)
        found[name] = TileColumn(name, column, values, tile_map.info.categories)
    return sorted(found.values(), key=lambda of: of.column.order)
