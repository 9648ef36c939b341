"""A single tile of a result: its numbers in words, and its pixels with the tissue around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.errors import SlideError
from napari_her2.explain.overlays import RAW

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.result import SlideResult
    from napari_her2.slide.reader import Slide

_AROUND = 0.5  # share of a tile shown on each side: a pathologist judges a cell among its neighbours
THUMBNAIL_PX = 96
_ENOUGH_PX = 1024  # a tile and what is around it need not be read finer than this


@dataclass(frozen=True, slots=True, eq=False)
class TileView:
    """Pixels of a tile and its surroundings.

    Parameters
    ----------
    pixels : (h, w, 3) uint8
        At the full resolution of the slide; of large tiles coarser.
    frame : tuple of float
        (y0, x0, y1, x1) of the tile, in shares of the picture.
    """

    pixels: NDArray[np.uint8]
    frame: tuple[float, float, float, float]


class TileLookup:
    """Finds and describes the tiles of a result; made once, because ranking a slide takes a while.

    Without attention nothing ranks the tiles: no tile is the first, and neighbours are those next to each
    other in the table, row by row.

    Parameters
    ----------
    result : SlideResult
    """

    def __init__(self, result: SlideResult) -> None:
        self.result = result
        slide = result.slides[0]
        index, ranks = slide.table.index, slide.ranks
        self._ranks = None if ranks is None else ranks.at(index)
        self.ranking = None if ranks is None else ranks.info.ranking
        self._order = np.arange(len(index))
        if self._ranks is not None:
            self._order = np.argsort(-self._ranks, kind="stable")
        self._place = np.empty(len(self._order), np.int64)
        self._place[self._order] = np.arange(len(self._order))
        self._weight = self._weights(ranks)
        self._worded: dict[tuple[str, str], list[TileMap]] = {}
        for tile_map in result.maps:
            if tile_map.info.words is not None:
                self._worded.setdefault((tile_map.kind, tile_map.info.scale), []).append(tile_map)
        self._tile = np.full(result.grid.shape, -1, np.int64)
        self._tile[index[:, 0], index[:, 1]] = np.arange(len(index))

    @property
    def first(self) -> int | None:
        """Position in the table of the most attended tile; None without attention."""
        return int(self._order[0]) if len(self._order) and self._ranks is not None else None

    def at(self, point_px0: tuple[float, float]) -> int | None:
        """Position in the table of the tile that holds a point.

        Parameters
        ----------
        point_px0 : tuple of float
            (y, x), level-0 pixels from the slide's upper left edge.

        Returns
        -------
        int or None
            None where nothing was scored.
        """
        index = self.result.grid.index_of_px0(np.array([point_px0]))
        if not self.result.grid.contains(index)[0]:
            return None
        tile = int(self._tile[index[0, 0], index[0, 1]])
        return tile if tile >= 0 else None

    def ranked(self, count: int, *, least: bool = False) -> list[int]:
        """Positions in the table of the most, or the least, attended tiles, the extreme one first."""
        if self._ranks is None:
            return []
        order = self._order[::-1] if least else self._order
        return [int(tile) for tile in order[: max(count, 0)]]

    def neighbour(self, tile: int, step: int) -> int:
        """Position in the table of the tile that comes after (1) or before (-1) in the order of tiles."""
        place = min(max(int(self._place[tile]) + step, 0), len(self._order) - 1)
        return int(self._order[place])

    def rank_words(self, tile: int) -> str:
        """Rank of a tile and its percentile, in one line; empty where nothing ranks the tiles."""
        if self._ranks is None or self.ranking is None:
            return ""
        return (
            f"Rank {self._place[tile] + 1:,} of {len(self._place):,}, {self.ranking.noun} percentile "
            f"{100 * self._ranks[tile]:.1f}"
        )

    def short_words(self, tile: int) -> str:
        """Values of a tile in one line, as the maps word them; its place where there is none."""
        return ", ".join(self._values(tile, maps) for maps in self._worded.values()) or self._where(tile)

    def words(self, tile: int) -> str:
        """All values of a tile, and its place and rank, in one to four lines."""
        slide = self.result.slides[0]
        opening, lines = slide.tiles_info.words, []
        if opening is not None:
            lines.append(opening.each.format(short=self.short_words(tile)))
        lines += [self._values(tile, maps, whole=True) for maps in self._worded.values() if len(maps) > 1]
        place = self._where(tile)
        if self.ranking is not None:
            place += f" · {self.ranking.noun}: rank {self._place[tile] + 1:,} of {len(self._place):,}"
            if self._weight is not None:
                place += f", {self._weight[tile]:.3g} × the mean"
        lines.insert(0 if opening is None else len(lines), place)
        return "\n".join(lines)

    def _weights(self, ranks: TileMap | None) -> NDArray[np.float64] | None:
        """Values that the ranks are of, divided by their mean; None where only the ranks are known."""
        for tile_map in self.result.maps:
            if ranks is not None and tile_map.kind == ranks.kind and tile_map.info.scale == RAW:
                values = tile_map.at(self.result.table.index).astype(np.float64)
                return np.asarray(values / values.mean()) if len(values) else values
        return None

    def _where(self, tile: int) -> str:
        row, col = self.result.table.index[tile]
        return f"Row {row}, column {col}"

    def _values(self, tile: int, maps: list[TileMap], *, whole: bool = False) -> str:
        """Values of a tile in maps that differ in class alone; with ``whole`` of all classes."""
        row, col = self.result.table.index[tile]
        words = maps[0].info.words
        assert words is not None
        shown, form = maps, words.each if whole else words.line or words.each
        if not whole and words.short == "predicted":
            shown = [tile_map for tile_map in maps if tile_map.class_name in (None, self.result.score)]
        elif not whole and words.short == "greatest":
            shown = [max(maps, key=lambda tile_map: tile_map.values[row, col])]
        each = (self._value(tile_map, form, float(tile_map.values[row, col])) for tile_map in shown)
        before = words.before if whole or words.short == "all" else ""
        return f"{before}{', '.join(each)}{words.after if whole else ''}"

    def _value(self, tile_map: TileMap, form: str, value: float) -> str:
        names = tile_map.info.categories
        return form.format(
            value=value,
            percent=100 * value,
            class_name=self.result.named(tile_map.class_name or ""),
            category=self.result.named(names[int(value)]) if names and np.isfinite(value) else "",
        )


def read_tile(slide: Slide, result: SlideResult, tile: int) -> TileView:
    """Read a tile and its surroundings from the slide.

    Parameters
    ----------
    slide : Slide
    result : SlideResult
    tile : int
        Position in the table.

    Returns
    -------
    TileView

    Raises
    ------
    SlideError
        If the file is damaged there.
    """
    side = np.asarray(result.grid.tile_px0)
    level = _level_for(slide, (1 + 2 * _AROUND) * side.min() / _ENOUGH_PX)
    down = np.asarray(slide.level_downsamples[level])
    side_y, side_x = side / down
    y0, x0 = (int(value) for value in np.round(result.table.origins_px0[tile] / down))
    pad_y, pad_x = round(_AROUND * side_y), round(_AROUND * side_x)
    height, width = round(side_y) + 2 * pad_y, round(side_x) + 2 * pad_x
    pixels = slide.read(level, y0 - pad_y, x0 - pad_x, height, width)
    frame = (pad_y / height, pad_x / width, (pad_y + side_y) / height, (pad_x + side_x) / width)
    return TileView(pixels, frame)


def read_thumbnail(slide: Slide, result: SlideResult, tile: int) -> NDArray[np.uint8] | None:
    """Read a tile small, from the coarsest level that suffices.

    Parameters
    ----------
    slide : Slide
    result : SlideResult
    tile : int
        Position in the table.

    Returns
    -------
    (h, w, 3) uint8 or None
        None where the file is damaged: nothing is painted over it.
    """
    side = np.asarray(result.grid.tile_px0)
    level = _level_for(slide, side.min() / THUMBNAIL_PX)
    down = np.asarray(slide.level_downsamples[level])
    y, x = (int(value) for value in np.round(result.table.origins_px0[tile] / down))
    height, width = (max(1, int(value)) for value in np.round(side / down))
    try:
        pixels = slide.read(level, y, x, height, width)
    except SlideError:
        return None
    if max(height, width) > THUMBNAIL_PX:
        shrink = THUMBNAIL_PX / max(height, width)
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return pixels


def _level_for(slide: Slide, downsample: float) -> int:
    """Coarsest level that is no coarser than wanted."""
    fine_enough = (at for at, down in enumerate(slide.level_downsamples) if max(down) <= max(downsample, 1.0))
    return max(fine_enough, default=0)
