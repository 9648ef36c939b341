"""What is seen of a withheld answer is the same, whatever the answer is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_her2.inference.doubt import Doubt, Spread
from napari_her2.inference.withheld import without_answer
from napari_her2.methods.catalogue import METHODS
from napari_her2.models.answer_sets import AnswerSet
from scored import make_field_result, make_image_result, make_pair, make_result

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.result import ScoredSlide, SlideResult

MAKERS = (make_result, make_pair, make_field_result, make_image_result)


def doubted(result: SlideResult, verdict: str = "unlike", *, shown_anyway: bool = False) -> SlideResult:
    answer = AnswerSet((result.score,), 0.9, 160)
    spread = Spread(5, 4, dict.fromkeys(result.classes, 0.1))
    doubt = Doubt(answer, verdict, 1e-5, "its cells", 0.01, spread, shown_anyway)
    return replace(result, doubt=doubt, abstained=True, reason="unlike", label="withheld")


def with_another_answer(result: SlideResult) -> SlideResult:
    """The same slide, of which everything that belongs to a class says something else."""
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


@pytest.mark.parametrize("make", MAKERS)
def test_what_is_seen_of_a_withheld_answer_does_not_depend_on_it(make: Callable[[], SlideResult]) -> None:
    one, other = (without_answer(doubted(result)) for result in (make(), with_another_answer(make())))
    method = METHODS[one.method]
    assert method.bars(one).shares == method.bars(other).shares == {}
    assert (one.score, one.probabilities) == ("", {})
    for name in ("score", "label", "reason", "heads", "head_scores", "agree", "uncertainty", "doubt"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.doubt.answer is None
    assert one.doubt.spread is None
    assert method.facts(one) == method.facts(other)
    for first, second in zip(one.slides, other.slides, strict=True):
        assert first.table.evidence is first.table.probabilities is None
        assert [of.info for of in first.maps] == [of.info for of in second.maps]
        for a, b in zip(first.maps, second.maps, strict=True):
            np.testing.assert_array_equal(a.values, b.values)
        assert all(not overlay.classes for overlay in first.overlays)


def test_regions_that_the_model_used_are_seen_all_the_same() -> None:
    seen = without_answer(doubted(make_result()))
    assert {overlay.kind for overlay in seen.overlays} == {"attention", "tiles", "top tiles"}
    np.testing.assert_array_equal(seen.map("attention").values, make_result().map("attention").values)


@pytest.mark.parametrize(
    "result",
    [
        make_result(),
        doubted(make_result(), "familiar"),
        doubted(make_result(), "in part"),
        doubted(make_result(), "not known"),
        doubted(make_result(), shown_anyway=True),
    ],
)
def test_all_else_is_seen_whole(result: SlideResult) -> None:
    assert without_answer(result) is result
