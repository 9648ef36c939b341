"""Results by hand with a doubt, for tests of what shows them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.unfamiliar import unfamiliar_map
from napari_her2.inference.doubt import SlideFamiliarity, SpaceFamiliarity
from napari_her2.inference.judging import redoubted
from napari_her2.models.answer_sets import AnswerSets, CalibrationCases
from napari_her2.models.familiarity import FEATURES

if TYPE_CHECKING:
    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide

VALUES = {"familiar": (0.6, 0.5), "in part": (0.3, 1e-4), "unlike": (1e-5, 1e-6)}
"""Familiarity of a slide, and of its upper tenth, for each verdict."""


def calibrated(cases: int = 160, *, classes: int = 4) -> AnswerSets:
    """Calibration cases of a model that is often wrong by one: its sets hold a neighbour too."""
    labels = np.arange(cases) % classes
    scores = np.where(np.arange(cases) // classes % 2 == 0, 0.0, 0.65).astype(np.float32)
    known = CalibrationCases(scores, labels)
    return AnswerSets(dict.fromkeys(("slide", "fusion", "H&E", "IHC"), known))


def strange(scored: ScoredSlide, verdict: str) -> ScoredSlide:
    """The same slide, so familiar; the later a tile in the table, the stranger it is."""
    if verdict == "not known":
        return scored
    value, upper = VALUES[verdict]
    distances = np.linspace(0.1, 0.9 if verdict == "familiar" else 5.0, len(scored.table), dtype=np.float32)
    familiarity = SlideFamiliarity(
        value=value,
        upper=upper,
        unfamiliar=float((distances > 1).mean()),
        distances=distances,
        spaces={FEATURES: SpaceFamiliarity(value, upper, 1 / value, 1 / upper)},
    )
    shown = unfamiliar_map(scored.grid, scored.table.index, distances, visible=verdict != "familiar")
    return replace(scored, familiarity=familiarity, maps=(*scored.maps, shown))


def doubted(
    result: SlideResult,
    *verdicts: str,
    cases: int = 160,
    coverage: float = 0.9,
    min_familiarity: float = 0.01,
    show_withheld: bool = False,
) -> SlideResult:
    """The same result of slides that are so familiar, with a set where there are calibration cases."""
    verdicts = verdicts * len(result.slides) if len(verdicts) == 1 else verdicts
    slides = tuple(strange(scored, verdict) for scored, verdict in zip(result.slides, verdicts, strict=True))
    return redoubted(
        replace(result, slides=slides, warnings=()),
        calibrated(cases, classes=len(result.classes)) if cases else None,
        coverage=coverage,
        min_familiarity=min_familiarity,
        show_withheld=show_withheld,
    )


def with_another_answer(result: SlideResult) -> SlideResult:
    """The same slides, of which everything that belongs to a class says something else."""
    last, names = result.classes[-1], result.classes

    def of_map(tile_map: TileMap) -> TileMap:
        of_class = tile_map.class_name is not None or tile_map.info.categories
        return replace(tile_map, values=tile_map.values * 0 + 2) if of_class else tile_map

    def of_slide(scored: ScoredSlide) -> ScoredSlide:
        table, maps = scored.table, tuple(map(of_map, scored.maps))
        evidence = None if table.evidence is None else -table.evidence
        chances = None if table.probabilities is None else table.probabilities[:, ::-1]
        return replace(scored, maps=maps, table=replace(table, evidence=evidence, probabilities=chances))

    chances = dict.fromkeys(names, 0.01) | {last: 1 - 0.01 * (len(names) - 1)}
    return replace(
        result,
        slides=tuple(of_slide(scored) for scored in result.slides),
        probabilities=chances,
        score=last,
        heads=dict.fromkeys(result.heads, chances),
    )
