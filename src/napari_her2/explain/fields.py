"""Maps of a model that scores each tile by itself: score, confidence where it has one, probabilities."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.attention import ATTENTION, ATTENTION_RANKS
from napari_her2.explain.geometries import TILES
from napari_her2.explain.maps import TileMap
from napari_her2.explain.overlays import Column, OverlayInfo, Ranking, TileWords

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid


SCORE = OverlayInfo(
    "score",
    title="Score of each tile",
    layer_name="score of each tile",
    meaning="The most probable class of each tile by itself.",
    unit="class number",
    visible=True,
    order=10,
    hover=Column("score of the tile", decimals=0),
    words=TileWords("{category}"),
)
PROBABILITY = OverlayInfo(
    "probability",
    meaning="Probability of {class_name} for each tile by itself.",
    unit="probability",
    hover=Column("probability", decimals=3, greatest=True),
    exported=Column("probability_{class_name}", significant=9),
    words=TileWords("{class_name} {value:.0%}", short="greatest", line="probability {value:.0%}"),
)
CONFIDENCE = OverlayInfo(
    "confidence",
    title="Confidence",
    layer_name="confidence (learnt)",
    meaning="How far the model trusts its score of each tile: learnt, not a probability of being right.",
    unit="learnt confidence",
    colours="confidence",
    limits=(0.0, 1.0),
    order=20,
    hover=Column("confidence (learnt)", decimals=3),
    exported=Column("confidence", significant=9),
    words=TileWords("learnt confidence {value:.2f}"),
)
REGION_CAM = OverlayInfo(
    "region Grad-CAM",
    title="Grad-CAM",
    layer_name="Grad-CAM {class_name} ({detail}): regions the model used",
    meaning="Regions the model used, not regions that are HER2-positive.",
    unit="logit",
    limits="from zero",
    visible=True,
    on_request=True,
    order=30,
    depth=30,
)
SCORED_TILES = replace(TILES, words=TileWords("This tile by itself: {short}"))
_WEIGHS = "How much each tile counts in the score of the slide, not where the slide is HER2-positive"
WEIGHT = replace(
    ATTENTION,
    title="Weight in the score",
    layer_name="weight in the score",
    meaning=f"{_WEIGHS}.",
    unit="weight",
    visible=False,
    hover=Column("weight in the score", significant=3),
)
WEIGHT_RANKS = replace(
    ATTENTION_RANKS,
    title=WEIGHT.title,
    layer_name=WEIGHT.layer_name,
    meaning=f"{_WEIGHS}: the share of tiles with less weight.",
    visible=False,
    hover=None,
    words=None,
    ranking=Ranking("weight in the score", "weighted", framed=False),
)


def field_maps(
    grid: TileGrid,
    index: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    confidence: NDArray[np.floating] | None,
    classes: Sequence[str],
) -> tuple[TileMap, ...]:
    """Map the predictions for each tile by itself.

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
        "score", one "probability" map a class, then "confidence" where there is one.
    """
    most_probable = grid.paint(index, probabilities.argmax(axis=1).astype(np.float32))
    each = (
        TileMap(PROBABILITY, grid.paint(index, probabilities[:, number].astype(np.float32)), grid, name)
        for number, name in enumerate(classes)
    )
    maps = (TileMap(SCORE.of_categories(classes), most_probable, grid), *each)
    if confidence is None:
        return maps
    return (*maps, TileMap(CONFIDENCE, grid.paint(index, confidence.astype(np.float32)), grid))
