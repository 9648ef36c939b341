"""What is seen of a withheld answer is the same, whatever the answer is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from doubted import doubted, with_another_answer
from napari_her2.inference.doubt import Spread
from napari_her2.inference.withheld import without_answer
from napari_her2.methods.catalogue import METHODS
from scored import make_field_result, make_image_result, make_pair, make_result

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_her2.inference.result import SlideResult

MAKERS = (make_result, make_pair, make_field_result, make_image_result)


@pytest.mark.parametrize("make", MAKERS)
def test_what_is_seen_of_a_withheld_answer_does_not_depend_on_it(make: Callable[[], SlideResult]) -> None:
    spread = Spread(5, 4, {"3+": 0.1})
    one, other = (
        without_answer(replace(judged, doubt=replace(judged.doubt, spread=spread)))
        for judged in (doubted(make(), "unlike"), doubted(with_another_answer(make()), "unlike"))
    )
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
    seen = without_answer(doubted(make_result(), "unlike"))
    assert {of.kind for of in seen.overlays} == {"attention", "unfamiliar", "tiles", "top tiles"}
    np.testing.assert_array_equal(seen.map("attention").values, make_result().map("attention").values)


@pytest.mark.parametrize(
    "result",
    [
        make_result(),
        doubted(make_result(), "familiar"),
        doubted(make_result(), "in part"),
        doubted(make_result(), "not known"),
        doubted(make_result(), "unlike", show_withheld=True),
        doubted(make_result(), "unlike", min_familiarity=0),
    ],
)
def test_all_else_is_seen_whole(result: SlideResult) -> None:
    assert without_answer(result) is result
