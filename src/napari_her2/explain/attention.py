"""Maps of an attention model: which tiles it used, and what they say for and against each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from napari_her2.explain.maps import TileMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.models.aggregator import MILOutput
    from napari_her2.slide.grid import TileGrid

ATTENTION_MEANING = (
    "Regions the model used, not regions that are HER2-positive: the attention weight of each tile."
)
RANK_MEANING = (
    "Regions the model used, not regions that are HER2-positive: the share of tiles with less attention."
)


def attention_maps(
    grid: TileGrid, index: NDArray[np.integer], output: MILOutput, classes: Sequence[str]
) -> tuple[TileMap, ...]:
    """Attention weights, and one map of signed evidence for each class.

    Parameters
    ----------
    grid : TileGrid
    index : (N, 2) int
        (row, column) of each tile of the bag.
    output : MILOutput
        Of one bag with N tiles.
    classes : sequence of str
        Names in the order of the logits.

    Returns
    -------
    tuple of TileMap
        "attention" first, then one "evidence" map a class where the model tells it. Tiles that a mask
        left out are NaN.
    """
    used = _used(output)
    attention = TileMap(
        kind="attention",
        values=grid.paint(index[used], _numpy(output.attention)[used]),
        grid=grid,
        unit="attention weight",
        description=ATTENTION_MEANING,
    )
    if output.evidence is None:
        return (attention,)
    evidence = _numpy(output.evidence)[used]
    return (
        attention,
        *(
            TileMap(
                kind="evidence",
                values=grid.paint(index[used], evidence[:, number]),
                grid=grid,
                unit="logit",
                class_name=name,
                description=(
                    f"Signed evidence of the model for (above 0) and against (below 0) {name}; "
                    f"its mean over the tiles plus a constant is the logit of {name}."
                ),
            )
            for number, name in enumerate(classes)
        ),
    )


def attention_ranks(grid: TileGrid, index: NDArray[np.integer], output: MILOutput) -> TileMap:
    """Attention as percentile ranks, taken from the scores before the softmax.

    The weights of a large slide can be too small for a float32 to tell apart; their scores are not.

    Parameters
    ----------
    grid : TileGrid
    index : (N, 2) int
    output : MILOutput
        Of one bag with N tiles.

    Returns
    -------
    TileMap
        Average rank divided by the number of tiles, in (0, 1].
    """
    used = _used(output)
    scores = _numpy(output.scores)[used]
    return TileMap(
        kind="attention",
        values=grid.paint(index[used], rankdata(scores) / max(len(scores), 1)),
        grid=grid,
        unit="percentile",
        description=RANK_MEANING,
    )


def _used(output: MILOutput) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(_numpy(output.scores)))


def _numpy(tensor: Tensor) -> NDArray[np.floating]:
    return np.asarray(tensor.detach().float().cpu().numpy())
