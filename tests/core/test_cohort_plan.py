"""Ten thousand slides in no time: the dispatcher over workers that only exist in time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cohort_plan
from cohort_plan import Imagined, MadeUp, cohort
from napari_her2.cohort.dispatch import Dispatcher

WORKERS = ("a", "b", "c")


def outcomes_of(slides, imagined, retries=2):
    cohort_plan.FAILED.clear()
    steps = Dispatcher(imagined, None, slides, retries).steps("Scoring slides")
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5000), st.sampled_from(["fine", "damaged", "fails once"])),
        min_size=1,
        max_size=40,
    ),
    st.dictionaries(st.sampled_from(WORKERS), st.floats(1.0, 500.0), min_size=1),
    st.lists(st.tuples(st.floats(0.0, 2000.0), st.sampled_from(WORKERS)), max_size=2),
)
def test_every_slide_has_one_outcome_whoever_is_lost_on_the_way(made, speeds, lost):
    slides = [MadeUp(Path(f"{n}.svs"), tiles, fate) for n, (tiles, fate) in enumerate(made)]
    # Somebody stays: a cluster that is empty for a minute is given up, by the clock on the wall.
    imagined = Imagined({**speeds, "stays": 50.0}, 0.5, lost)
    outcomes = outcomes_of(slides, imagined, retries=4)
    assert [outcome.path for outcome in outcomes] == [slide.path for slide in slides]
    expected = ["failed" if slide.fate == "damaged" else "done" for slide in slides]
    assert [outcome.state for outcome in outcomes] == expected
    assert all(outcome.tries <= 5 for outcome in outcomes)


def test_no_worker_waits_while_there_is_work():
    plan = cohort_plan.run(cohort(400, seed=1), workers=8, tiles_per_s=64, overhead_s=0.5, seed=1)
    # Nothing is lost but the end, where the last slides are on their way.
    longest = max(slide.tiles for slide in cohort(400, seed=1)) / 32 / cohort_plan.SECONDS_AN_HOUR
    assert plan.least_hours <= plan.hours <= plan.least_hours + longest
    assert plan.used > 0.9


def test_a_plan_counts_what_failed():
    slides = cohort(300, seed=2, damaged=0.1, once=0.0)
    plan = cohort_plan.run(slides, workers=4, tiles_per_s=100, overhead_s=0.0, seed=0)
    assert plan.failed == sum(slide.fate == "damaged" for slide in slides) > 0
    assert (
        plan.hours
        >= plan.least_hours
        == pytest.approx(sum(slide.tiles for slide in slides if slide.fate != "damaged") / 400 / 3600)
    )
