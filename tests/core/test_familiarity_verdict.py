"""How familiar a slide is called, by where its tiles lie in spaces made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hand_spaces import around, space_for
from napari_her2.inference.doubt import NOTHING_KNOWN, SlideFamiliarity, SpaceFamiliarity
from napari_her2.inference.familiarity import placed_in
from napari_her2.inference.familiarity_verdict import judged_by, judged_placed
from napari_her2.models.familiarity import APPEARANCE, FEATURES, Familiarity


def judged(familiarity, stain, features, appearance, min_familiarity):
    """The verdict on tiles and squares that are described so."""
    placed = placed_in(familiarity, stain, features, appearance)
    return judged_placed(familiarity, stain, placed, min_familiarity)


def test_the_strangest_space_speaks_and_looking_twice_is_no_reason():
    rng = np.random.default_rng(0)
    features, pixels = rng.normal(size=(300, 8)), rng.normal(size=(60, 5))
    one = Familiarity({("H&E", FEATURES): space_for(features, "familiar")})
    both = Familiarity({**one.spaces, ("H&E", APPEARANCE): space_for(pixels, "familiar")})
    alone, together = (judged(of, "H&E", features, pixels, 0.01) for of in (one, both))
    assert together.value == pytest.approx(min(1.0, 2 * min(together.by_space.values())))
    assert together.by_space[FEATURES] == alone.value
    blurred = Familiarity({**one.spaces, ("H&E", APPEARANCE): space_for(pixels, "unlike")})
    strange = judged(blurred, "H&E", features, pixels, 0.01)
    assert (strange.verdict, strange.reason) == (
        "unlike",
        "its colours and sharpness (20 times as far off as on a typical validation slide)",
    )
    assert judged(blurred, "H&E", features, None, 0.01).verdict == "not known"
    assert judged(blurred, "IHC", features, pixels, 0.01) is NOTHING_KNOWN
    assert judged(blurred, "H&E", features[:0], None, 0.01) is NOTHING_KNOWN


def test_too_few_validation_slides_say_nothing():
    features = np.random.default_rng(0).normal(size=(50, 4))
    space = space_for(features, "unlike")
    few = Familiarity({("H&E", FEATURES): replace(space, slides=space.slides[:2])})
    assert judged(few, "H&E", features, None, 0.01) is NOTHING_KNOWN


def test_features_that_never_vary_are_judged_too():
    constant = np.full((40, 6), 3.0)
    known = around(np.full(6, 3.0), 1e-3, 1e-3)
    assert judged(Familiarity({("H&E", FEATURES): known}), "H&E", constant, None, 0.01).value <= 1
    off = around(np.zeros(6), 1e-3, 1e-3)
    found = judged(Familiarity({("H&E", FEATURES): off}), "H&E", constant, None, 0.01)
    assert found.verdict == "unlike"
    assert "over 1,000 times" in found.reason


def test_what_was_compared_in_some_spaces_alone_is_not_called_familiar_inside_regions():
    space = around(np.zeros(3), 1.0, 2.0)
    kept = Familiarity({("H&E", kind): space for kind in (FEATURES, APPEARANCE)})
    near = space.placed(np.full((40, 3), 0.5, np.float32))
    whole = {FEATURES: near, APPEARANCE: near}
    known = judged_placed(kept, "H&E", {FEATURES: near}, 0.01, whole)
    assert (known.verdict, known.limited) == ("not known", True)
    assert judged_placed(kept, "H&E", whole, 0.01, whole).verdict == "familiar"
    assert judged_placed(kept, "H&E", whole, 0.01, {}).verdict == "not known"


@pytest.mark.parametrize(
    ("times", "words"), [(1.04, "just beyond the limit"), (1.06, "1.1 times as far off")]
)
def test_a_slide_just_beyond_the_limit_is_not_one_times_as_far_off(times, words):
    known = SlideFamiliarity(
        value=0.001, upper=0.001, spaces={FEATURES: SpaceFamiliarity(0.001, 0.001, times, times)}
    )
    assert words in judged_by(known, 0.01).reason
    assert "1.0 times" not in judged_by(known, 0.01).reason


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0, 1), st.floats(0, 1), st.floats(1e-9, 0.99), st.floats(1e-9, 0.99), st.sampled_from([0, 0.01])
)
def test_a_stricter_limit_never_makes_a_slide_more_familiar(whole, upper, one, other, first):
    spaces = {FEATURES: SpaceFamiliarity(whole, upper, 2.0, 3.0)}
    slide = SlideFamiliarity(value=whole, upper=upper, spaces=spaces)
    order = ("familiar", "in part", "unlike")
    low, high = sorted((one, other))
    verdicts = [order.index(judged_by(slide, limit).verdict) for limit in (low, high)]
    assert verdicts[0] <= verdicts[1]
    assert judged_by(judged_by(slide, first), one).verdict == judged_by(slide, one).verdict
    assert judged_by(slide, 0).verdict == judged_by(slide, 0.01).verdict
