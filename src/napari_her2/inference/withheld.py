"""What may be seen of a result whose answer is withheld: nothing that would give the answer away."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide


def without_answer(result: SlideResult) -> SlideResult:
    """Return what may be seen of a result: all of it, unless its answer is withheld and not shown anyway.

    Parameters
    ----------
    result : SlideResult

    Returns
    -------
    SlideResult
        The same one where nothing is withheld. Else one without score, set, probabilities and spread, of
        whose maps those are left that are of no class: which regions the model used, how unfamiliar each
        tile is.
    """
    if not result.doubt.hidden:
        return result
    return replace(
        result,
        slides=tuple(_without_answer(scored) for scored in result.slides),
        probabilities={},
        score="",
        uncertainty=None,
        heads={},
        doubt=replace(result.doubt, answer=None, spread=None),
        limits=replace(result.limits, reason=""),  # which may name classes
    )


def _without_answer(scored: ScoredSlide) -> ScoredSlide:
    return replace(
        scored,
        alone={},
        table=replace(scored.table, evidence=None, probabilities=None),
        maps=tuple(of for of in scored.maps if _of_no_class(of)),
        smooth=tuple(of for of in scored.smooth if _of_no_class(of)),
        extras=tuple(of for of in scored.extras if of.class_name is None and not of.info.of_classes),
    )


def _of_no_class(tile_map: TileMap) -> bool:
    return tile_map.class_name is None and not tile_map.info.of_classes
