"""What a model found in tiles, and the maps that are made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.explain.attention import ATTENTION, ATTENTION_RANKS, attention_maps, attention_ranks
from napari_her2.explain.fields import WEIGHT, WEIGHT_RANKS, field_maps

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.explain.maps import TileMap
    from napari_her2.models.aggregator import MILOutput
    from napari_her2.slide.grid import TileGrid


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What a model found in N tiles.

    Parameters
    ----------
    output : MILOutput or None
        Of all tiles as one bag, on the CPU. None of a method that weighs no tiles against each other.
    probabilities : (N, C) float or None
        Of each tile by itself, where the method scores tiles.
    confidence : (N,) float or None
        Of the model in them.
    """

    output: MILOutput | None = None
    probabilities: Tensor | None = None
    confidence: Tensor | None = None


def tile_maps(
    grid: TileGrid, index: NDArray[np.integer], found: Findings, classes: Sequence[str]
) -> tuple[TileMap, ...]:
    """Map what was found in tiles.

    Parameters
    ----------
    grid : TileGrid
    index : (N, 2) int
        (row, column) of each tile.
    found : Findings
    classes : sequence of str
        Names in the order of the probabilities.

    Returns
    -------
    tuple of TileMap
        Score, probabilities and confidence where tiles have them; attention as percentiles and as weights,
        and evidence for each class, where there is any.
    """
    maps: tuple[TileMap, ...] = ()
    if found.probabilities is not None:
        sure = None if found.confidence is None else found.confidence.numpy()
        maps += field_maps(grid, index, found.probabilities.numpy(), sure, classes)
    if found.output is not None:
        raw, ranks = (ATTENTION, ATTENTION_RANKS) if found.probabilities is None else (WEIGHT, WEIGHT_RANKS)
        maps += (
            attention_ranks(grid, index, found.output, ranks),
            *attention_maps(grid, index, found.output, classes, raw),
        )
    return maps
