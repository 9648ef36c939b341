"""Maps of an attention model: which tiles it used, and their evidence for and against each class."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.maps import TileMap, average_ranks
from napari_her2.explain.overlays import PERCENTILE, Column, Outlined, OverlayInfo, Ranking, TileWords

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.models.aggregator import MILOutput
    from napari_her2.slide.grid import TileGrid

ATTENTION = OverlayInfo(
    "attention",
    title="Attention",
    layer_name="attention (regions the model used)",
    meaning="Regions the model used, not regions that are HER2-positive: the attention weight of each tile.",
    unit="attention weight",
    visible=True,
    order=40,
    hover=Column("attention weight", significant=3),
    exported=Column("attention_weight", significant=9, order=-2),
    outlined=Outlined("Used by the model (attention)", "attention weight", (255, 140, 0)),
)
ATTENTION_RANKS = replace(
    ATTENTION,
    meaning=(
        "Regions the model used, not regions that are HER2-positive: the share of tiles with less attention."
    ),
    unit=PERCENTILE,
    scale=PERCENTILE,
    limits=(0.0, 1.0),
    hover=Column("attention percentile", decimals=1, times=100),
    exported=Column("attention_percentile", decimals=6, order=-1),
    words=TileWords("attention percentile {percent:.0f}"),
    outlined=None,
    ranking=Ranking("attention", "attended"),
)
EVIDENCE = OverlayInfo(
    "evidence",
    title="Evidence for",
    layer_name="evidence for {class_name}",
    meaning=(
        "Orange is evidence of the model for {class_name} (above 0), blue is evidence against it (below 0); "
        "the mean over the tiles plus a constant is the logit."
    ),
    unit="logit",
    colours="diverging",
    limits="symmetric",
    order=50,
    hover=Column("evidence {class_name}", significant=3),
    exported=Column("evidence_logit_{class_name}", significant=9),
    words=TileWords("{class_name} {value:+.2f}", before="Evidence: ", short="predicted"),
    outlined=Outlined("Evidence for {class_name}", "evidence {class_name} (logit)", (200, 30, 120), above=0),
)


def attention_maps(
    grid: TileGrid,
    index: NDArray[np.integer],
    output: MILOutput,
    classes: Sequence[str],
    info: OverlayInfo = ATTENTION,
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
    info : OverlayInfo
        How the attention weights are described.

    Returns
    -------
    tuple of TileMap
        "attention" first, then one "evidence" map a class where the model has it. Tiles that a mask
        left out are NaN.
    """
    used = _used(output)
    attention = TileMap(info, grid.paint(index[used], _numpy(output.attention)[used]), grid)
    if output.evidence is None:
        return (attention,)
    evidence = _numpy(output.evidence)[used]
    return (
        attention,
        *(
            TileMap(EVIDENCE, grid.paint(index[used], evidence[:, number]), grid, name)
            for number, name in enumerate(classes)
        ),
    )


def attention_ranks(
    grid: TileGrid, index: NDArray[np.integer], output: MILOutput, info: OverlayInfo = ATTENTION_RANKS
) -> TileMap:
    """Attention as percentile ranks, taken from the scores before the softmax.

    The weights of a large slide can be too small for a float32 to tell apart; their scores are not.

    Parameters
    ----------
    grid : TileGrid
    index : (N, 2) int
    output : MILOutput
        Of one bag with N tiles.
    info : OverlayInfo
        How the ranks are described.

    Returns
    -------
    TileMap
        Average rank divided by the number of tiles, in (0, 1].
    """
    used = _used(output)
    scores = _numpy(output.scores)[used]
    values = grid.paint(index[used], average_ranks(scores) / max(len(scores), 1))
    return TileMap(info, values, grid)


def _used(output: MILOutput) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(_numpy(output.scores)))


def _numpy(tensor: Tensor) -> NDArray[np.floating]:
    return np.asarray(tensor.detach().float().cpu().numpy())
