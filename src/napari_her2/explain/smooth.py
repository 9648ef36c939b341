"""Smoother maps, from tiles that overlap: each place is the mean over the tiles that cover it.

The same tiles, shifted by parts of their side, are looked at beside those that make the score. A square of
the finer map is as long as such a part, and every tile begins and ends where squares do: with two parts four
tiles cover a square in the middle of the tissue, fewer at its border, and a square that no tile covers has
no value. Maps of values average the values; the map of the most probable class takes that of the mean
probabilities; percentiles are ranks among all tiles, shifted ones too, and their mean.

Tiles beside those of the score are weighed by the bag that gives it (`SlideAggregator.beside`), and change
nothing in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2.explain.findings import Findings, tile_maps
from napari_her2.explain.maps import average_ranks
from napari_her2.explain.overlays import PERCENTILE
from napari_her2.models.aggregator import MILOutput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.explain.maps import TileMap
    from napari_her2.explain.overlays import OverlayInfo
    from napari_her2.slide.grid import TileGrid

MEAN = "Each place is the mean over the overlapping tiles that cover it; the score is of tiles side by side."
CLASS = (
    "Each place is of the class that is most probable on average over the overlapping tiles that cover it; "
    "the score is of tiles side by side."
)
APART = "Each of the shifted sets of tiles was weighed as a slide of its own."


@dataclass(frozen=True, slots=True, eq=False)
class TileSet:
    """Tiles of one grid, and what was found in them.

    Parameters
    ----------
    grid : TileGrid
        Shifted, or not.
    index : (N, 2) int64
        (row, column) of each tile.
    found : Findings
        Of these N tiles.
    """

    grid: TileGrid
    index: NDArray[np.int64]
    found: Findings

    def corners(self, parts: int) -> NDArray[np.int64]:
        """First squares of the tiles, (N, 2) int64 (row, column) on the grid ``parts`` times as fine."""
        shift = np.rint(np.asarray(self.grid.shift) * parts).astype(np.int64)
        return np.asarray(self.index * parts + shift, np.int64)


def smooth_maps(sets: Sequence[TileSet], parts: int, classes: Sequence[str]) -> tuple[TileMap, ...]:
    """Map what was found in overlapping tiles.

    Parameters
    ----------
    sets : sequence of TileSet
        Of the same tiles shifted by whole parts of their side, with findings of one kind.
    parts : int
        Squares of the map along the side of a tile.
    classes : sequence of str
        Names in the order of the probabilities.

    Returns
    -------
    tuple of TileMap
        As `tile_maps` of tiles that do not overlap, ``parts`` times as fine, and only to be looked at: what
        is listed, written and outlined tile by tile is that of the tiles themselves.
    """
    fine = sets[0].grid.finer(parts)
    columns = _columns([of.found for of in sets])
    cells, means = mean_over_tiles(
        fine.shape, parts, ((of.corners(parts), own) for of, own in zip(sets, columns, strict=True))
    )
    ranks, found = _of_columns(means, sets[0].found)
    apart = any(of.found.output is not None and of.found.output.apart for of in sets)
    maps = []
    for tile_map in tile_maps(fine, cells, found, classes):
        shown = replace(tile_map, info=_smooth(tile_map.info, apart=apart))
        if shown.info.scale == PERCENTILE:
            shown = replace(shown, values=fine.paint(cells, ranks))
        maps.append(shown)
    return tuple(maps)


def mean_over_tiles(
    shape: tuple[int, int],
    parts: int,
    sets: Iterable[tuple[NDArray[np.int64], NDArray[np.float64]]],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Average over the tiles that cover each square of a map.

    Parameters
    ----------
    shape : tuple of int
        (rows, columns) of the map.
    parts : int
        Side of a tile, squares.
    sets : iterable of ((N, 2) int64, (N, V) float64)
        First square (row, column) of each tile, and its values. Tiles of one set do not overlap.

    Returns
    -------
    cells : (M, 2) int64
        (row, column) of the squares that a tile covers, row by row.
    means : (M, V) float64
    """
    counts = np.zeros(shape, np.int64)
    sums: NDArray[np.float64] | None = None
    for corners, values in sets:
        if sums is None:
            sums = np.zeros((*shape, values.shape[1]))
        for down in range(parts):
            for right in range(parts):
                at = corners[:, 0] + down, corners[:, 1] + right
                counts[at] += 1
                sums[at] += values
    covered = counts > 0
    if sums is None:
        return np.argwhere(covered), np.empty((0, 0))
    return np.argwhere(covered), sums[covered] / counts[covered][:, None]


def _columns(found: Sequence[Findings]) -> list[NDArray[np.float64]]:
    """Rank, attention, evidence, probabilities and confidence of the tiles of each set: what there is."""
    columns: list[list[Tensor]] = [[] for _ in found]
    if found[0].output is not None:
        for own, ranks in zip(columns, _ranks([of.output.scores for of in found if of.output]), strict=True):
            own.append(torch.from_numpy(ranks)[:, None])
    for own, of in zip(columns, found, strict=True):
        if of.output is not None:
            own += [of.output.attention[:, None]]
            own += [] if of.output.evidence is None else [of.output.evidence]
        own += [] if of.probabilities is None else [of.probabilities]
        own += [] if of.confidence is None else [of.confidence[:, None]]
    return [torch.cat([part.cpu().double() for part in own], dim=1).numpy() for own in columns]


def _ranks(scores: Sequence[Tensor]) -> list[NDArray[np.float64]]:
    """Percentile of each tile among all, as `napari_her2.explain.attention.attention_ranks` has them."""
    joined = torch.cat(list(scores)).float().numpy()
    ends = np.cumsum([len(of) for of in scores])[:-1]
    return np.split(average_ranks(joined) / max(len(joined), 1), ends)


def _of_columns(means: NDArray[np.float64], like: Findings) -> tuple[NDArray[np.float64], Findings]:
    """Ranks, and findings of the squares, from the columns of `_columns`."""
    left = torch.from_numpy(means)
    ranks, output, probabilities, confidence = means[:, 0], None, None, None
    if like.output is not None:
        attention, left, evidence = left[:, 1], left[:, 2:], None
        if like.output.evidence is not None:
            classes = like.output.evidence.shape[1]
            evidence, left = left[:, :classes], left[:, classes:]
        output = MILOutput(like.output.logits, scores=attention, attention=attention, evidence=evidence)
    if like.probabilities is not None:
        classes = like.probabilities.shape[1]
        probabilities, left = left[:, :classes], left[:, classes:]
    if like.confidence is not None:
        confidence = left[:, 0]
    return ranks, Findings(output, probabilities, confidence)


def _smooth(info: OverlayInfo, *, apart: bool) -> OverlayInfo:
    """Describe the smoother map in place of that of tiles side by side."""
    words = f"{info.meaning} {CLASS if info.categories else MEAN}"
    if apart:
        words += f" {APART}"
    name = f"{info.layer_name}, smooth" if info.layer_name else ""
    return replace(
        info, layer_name=name, meaning=words, exported=None, words=None, outlined=None, ranking=None
    )
