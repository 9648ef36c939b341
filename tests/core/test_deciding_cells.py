"""Cells near a threshold: distances, against classes of cells that are moved; and the sentence why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells_by_hand import reading_by_hand
from napari_her2.cells.deciding import (
    COMPLETENESS_STEP,
    MASS_STEP,
    changed_words,
    changes,
    deciding_cells,
    steps_to_change,
    why,
)
from napari_her2.cells.rules import Rules, classes
from napari_her2.cells.table import SECTORS

if TYPE_CHECKING:
    from napari_her2.cells.reading import CellReading


def reading_of(complete: list[float], mass: list[float], rules: Rules | None = None) -> CellReading:
    """Cells of a given completeness (in steps of 1/32) and raw mass."""
    n = len(complete)
    made = reading_by_hand(n, left_out=0)
    stained = np.arange(SECTORS) < np.rint(np.asarray(complete)[:, None] * SECTORS)
    cells = replace(
        made.cells,
        contrast=np.where(stained, 0.5, 0).astype(np.float16),
        dab=np.where(stained, 0.5, 0).astype(np.float16),
        mass=np.repeat(np.asarray(mass)[:, None], SECTORS, axis=1).astype(np.float16),
    )
    return replace(made, cells=cells, rules=rules or Rules())


def changes_within(complete: float, mass: float, rules: Rules, steps: float) -> bool:
    """Whether some move of so many steps changes the class, tried in 720 directions.

    A step of mass is a tenth of the threshold that is crossed: the next one upwards, the own one downwards.
    """
    angle = np.linspace(0, 2 * np.pi, 721)
    own = int(judged(np.array([complete]), np.array([mass]), rules)[0])
    share = complete + steps * COMPLETENESS_STEP * np.cos(angle)
    changed = False
    if own < 3:
        moved = mass + steps * MASS_STEP * rules.mass[own] * np.sin(angle)
        changed |= bool((judged(share, moved, rules) > own).any())
    if own > 0:
        moved = mass + steps * MASS_STEP * rules.mass[own - 1] * np.sin(angle)
        changed |= bool((judged(share, moved, rules) < own).any())
    return changed


def judged(complete: np.ndarray, mass: np.ndarray, rules: Rules) -> np.ndarray:
    return classes(complete.astype(np.float32), (mass * rules.gain).astype(np.float32), rules)


@settings(max_examples=40, deadline=None)
@given(
    sectors=st.integers(0, SECTORS),
    mass=st.floats(0.02, 1.2),
    gain=st.sampled_from([0.6, 1.0, 1.7]),
)
def test_a_smaller_move_keeps_the_class_and_a_larger_one_can_change_it(
    sectors: int, mass: float, gain: float
):
    reading = reading_of([sectors / SECTORS], [mass], Rules(gain=gain))
    steps = float(steps_to_change(reading)[0])
    complete, own_mass = float(reading.completeness[0]), float(reading.raw_mass[0]) / gain
    assert not any(
        changes_within(complete, own_mass, reading.rules, max(share * steps - 0.01, 0))
        for share in (0.3, 0.7, 1.0)
    )
    assert changes_within(complete, own_mass, reading.rules, 1.02 * steps + 0.01)


@pytest.mark.parametrize(
    ("complete", "mass", "steps"),
    [
        (1.0, 0.715 * 1.2, 2.0),  # a 3+ cell falls by its mass
        (0.6875, 2.0, (0.6875 - 0.65) / 0.05),  # by its completeness
        (1.0, 0.715 * 0.9, 1.0),  # a 2+ cell rises by its mass
        (0.5, 0.385 * 0.8, 2 * np.sqrt(2)),  # a 1+ cell needs both: 0.10 more complete, 20 % more mass
        (0.0, 0.0, np.hypot(0.33 / 0.05, 10)),
    ],
)
def test_distances_worked_out_by_hand(complete: float, mass: float, steps: float):
    assert steps_to_change(reading_of([complete], [mass]))[0] == pytest.approx(steps, rel=2e-3)


@pytest.mark.parametrize("gastric", [False, True])
@pytest.mark.parametrize("share", [0.03, 0.1, 0.2])
def test_cells_that_another_strength_judges_otherwise_are_near(gastric: bool, share: float):
    """A stain that is weaker or stronger by a share crosses no threshold that lies farther away."""
    reading = reading_by_hand(4000, 8, rules=Rules(gastric=gastric, gain=1.2))
    steps = steps_to_change(reading)
    assert (steps >= 0).all()
    if gastric:
        ring = replace(reading, rules=replace(reading.rules, gastric=False))
        assert (ring.classes != reading.classes).any()  # lateral staining decides for some
    for strength in (1 - share, 1 + share):
        changed = reading.classes_at(strength) != reading.classes
        assert changed.any()
        assert steps[changed].max() <= share / MASS_STEP / (1 - share) + 1e-3


def test_a_threshold_of_nothing_cannot_be_crossed():
    rules = Rules(completeness=(0.0, 0.0, 0.0), mass=(0.0, 0.0, 0.715))
    assert steps_to_change(reading_of([0.1], [0.5], rules))[0] == pytest.approx(
        (0.715 - 0.5) / 0.0715, rel=2e-3
    )
    assert np.isinf(steps_to_change(reading_of([0.1], [0.5], replace(rules, mass=(0.0, 0.0, 0.0))))[0])


def test_the_nearest_counted_cells_come_first():
    reading = reading_by_hand(3000, 5, left_out=0.2, outside=0.2)
    near, steps = deciding_cells(reading, 100), steps_to_change(reading)
    assert len(near) == 100 == len(set(near.tolist()))
    assert reading.counted[near].all()
    assert (np.diff(steps[near]) >= 0).all()
    rest = np.setdiff1d(np.flatnonzero(reading.counted), near)
    assert steps[rest].min() >= steps[near].max()


def test_no_cells_decide_nothing():
    assert len(deciding_cells(reading_by_hand(0))) == 0
    assert len(deciding_cells(reading_by_hand(50, outside=1.0))) == 0


def test_the_sentence_holds_what_each_threshold_asks():
    assert why(reading_of([0.75], [0.55]), 0) == (
        "complete 75 % (2+ asks 60 %, 3+ 65 %), mass 0.55 (2+ asks 0.385, 3+ 0.715): 2+"
    )
    assert why(reading_of([0.0], [0.05], Rules(gain=0.5)), 0) == (
        "complete 0 % (1+ asks 33 %), mass 0.1 (1+ asks 0.18): 0"
    )
    assert why(reading_of([1.0], [1.0]), 0) == "complete 100 % (3+ asks 65 %), mass 1 (3+ asks 0.715): 3+"


def test_changed_thresholds_are_listed_with_what_they_were():
    assert changes(Rules(gain=1.3)) == ()
    assert changes(Rules(completeness=(0.33, 0.55, 0.65), mass=(0.2, 0.385, 0.715))) == (
        "completeness of 2+ 55 % instead of 60 %",
        "mass of 1+ 0.2 instead of 0.18",
    )
    assert changed_words(Rules(gain=1.3)) == ()
    assert changed_words(Rules(mass=(0.18, 0.4, 0.715), dab=0.12)) == (
        "Thresholds changed by the user: mass of 2+ 0.4 instead of 0.385; "
        "DAB of a stained sector 0.12 instead of 0.1.",
    )
