"""Maps of a model that scores each tile by itself: score, confidence where it has one, probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.maps import TileMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid


def field_maps(
    grid: TileGrid,
    index: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    confidence: NDArray[np.floating] | None,
    classes: Sequence[str],
) -> tuple[TileMap, ...]:
    """Map what the model says of each tile by itself.

    Parameters
    ----------
    grid : TileGrid
    index : (N, 2) int
        (row, column) of each tile.
    probabilities : (N, C) float
    confidence : (N,) float or None
        Learnt by the model, 0 to 1; None where it learns none.
    classes : sequence of str

    Returns
    -------
    tuple of TileMap
        "score", "confidence" where there is one, then one "probability" map a class.
    """
    score = TileMap(
        kind="score",
        values=grid.paint(index, probabilities.argmax(axis=1).astype(np.float32)),
        grid=grid,
        unit="class number",
        description=f"The most probable class of each tile by itself: {', '.join(classes)} as 0, 1, 2, ...",
    )
    sure: tuple[TileMap, ...] = ()
    if confidence is not None:
        told = "How far the model trusts its score of a tile: learnt, not a probability of being right."
        values = grid.paint(index, confidence.astype(np.float32))
        sure = (TileMap("confidence", values, grid, "learnt confidence", description=told),)
    each = (
        TileMap(
            kind="probability",
            values=grid.paint(index, probabilities[:, number].astype(np.float32)),
            grid=grid,
            unit="probability",
            class_name=name,
            description=f"Probability of {name} for each tile by itself.",
        )
        for number, name in enumerate(classes)
    )
    return (score, *sure, *each)
