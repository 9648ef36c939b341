"""A single tile of a result: its numbers in words, and its pixels with the tissue around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2._napari.class_cam import class_cam_map
from napari_her2._napari.layers import ranked_by, scores_tiles, tile_percentiles
from napari_her2.errors import SlideError

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        self._percentile = tile_percentiles(result)
        self.ranked_by = ranked_by(result)
        self._order = np.arange(len(result.table))
        if self._percentile is not None:
            self._order = np.argsort(-self._percentile, kind="stable")
        self._place = np.empty(len(self._order), np.int64)
        self._place[self._order] = np.arange(len(self._order))
        self._cams = [
            (result.named(name), tile_map.values)
            for name in result.classes
            if (tile_map := class_cam_map(result, name)) is not None
        ]
        self._tile = np.full(result.grid.shape, -1, np.int64)
        index = result.table.index
        self._tile[index[:, 0], index[:, 1]] = np.arange(len(index))

    @property
    def first(self) -> int | None:
        """Position in the table of the most attended tile; None without attention."""
        return int(self._order[0]) if len(self._order) and self._percentile is not None else None

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
        if self._percentile is None:
            return []
        order = self._order[::-1] if least else self._order
        return [int(tile) for tile in order[: max(count, 0)]]

    def neighbour(self, tile: int, step: int) -> int:
        """Position in the table of the tile that comes after (1) or before (-1) in the order of tiles."""
        place = min(max(int(self._place[tile]) + step, 0), len(self._order) - 1)
        return int(self._order[place])

    def rank_words(self, tile: int) -> str:
        """Rank of a tile and its attention percentile, in one line; empty without attention."""
        if self._percentile is None:
            return ""
        return (
            f"Rank {self._place[tile] + 1:,} of {len(self._place):,}, {self.ranked_by} percentile "
            f"{100 * self._percentile[tile]:.1f}"
        )

    def short_words(self, tile: int) -> str:
        """Attention of a tile, and its evidence for the predicted score where there is any, in one line.

        Of a tile with a score of its own: that, its probability, and the confidence in it where there is
        one. Grad-CAM there where the model scores the slide at once. Its place where there is none of it.
        """
        result = self.result
        if scores_tiles(result):
            return self._score_words(tile)
        words = []
        if self._percentile is not None:
            words.append(f"attention percentile {100 * self._percentile[tile]:.0f}")
        if result.table.evidence is not None:
            evidence = result.table.evidence[tile][result.classes.index(result.score)]
            words.append(f"{result.named(result.score)} {evidence:+.2f}")
        return ", ".join(words) or self._cam_words(tile) or self._place_words(tile)

    def words(self, tile: int) -> str:
        """All numbers of a tile, in one to three lines."""
        table, words = self.result.table, self._place_words(tile)
        if table.attention is not None:
            weight = table.attention[tile] * len(table)
            words += (
                f" · {self.ranked_by}: rank {self._place[tile] + 1:,} of {len(table):,}, "
                f"{weight:.3g} × the mean"
            )
        if table.probabilities is not None:
            chances = ", ".join(
                f"{self.result.named(name)} {value:.0%}"
                for name, value in zip(self.result.classes, table.probabilities[tile], strict=True)
            )
            return f"This tile by itself: {self._score_words(tile)}\n{chances}\n{words}"
        if self._cams:
            return (
                f"The model scored the whole slide at once, not this place.\n{self._cam_words(tile)} "
                f"(logits, against the mean of its image)\n{words}"
            )
        if table.evidence is None:
            return words
        evidence = ", ".join(
            f"{self.result.named(name)} {value:+.2f}"
            for name, value in zip(self.result.classes, table.evidence[tile], strict=True)
        )
        return f"{words}\nEvidence: {evidence}"

    def _place_words(self, tile: int) -> str:
        row, col = self.result.table.index[tile]
        return f"Row {row}, column {col}"

    def _cam_words(self, tile: int) -> str:
        """Grad-CAM of each class at a tile; empty where the result has none."""
        row, col = self.result.table.index[tile]
        values = ", ".join(f"{name} {values[row, col]:+.2g}" for name, values in self._cams)
        return f"Grad-CAM here: {values}" if values else ""

    def _score_words(self, tile: int) -> str:
        table = self.result.table
        assert table.probabilities is not None
        chances = table.probabilities[tile]
        top = int(chances.argmax())
        words = f"{self.result.named(self.result.classes[top])}, probability {chances[top]:.0%}"
        if table.confidence is None:
            return words
        return f"{words}, learnt confidence {table.confidence[tile]:.2f}"


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
