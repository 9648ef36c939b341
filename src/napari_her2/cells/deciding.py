"""Which cells decide: how near each lies to a threshold that would change its class, and why it has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from napari_her2.cells.rules import CLASSES, Rules, lateral_thresholds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.cells.reading import CellReading

    Many: TypeAlias = NDArray[np.float32]

COMPLETENESS_STEP = 0.05
MASS_STEP = 0.10
"""What one step of distance is: the error of completeness, and the relative error of mass, aimed at."""


def steps_to_change(reading: CellReading) -> NDArray[np.float32]:
    """How far each cell lies from the nearest threshold that would change its class.

    A cell rises by a class when both completeness and mass reach its thresholds, and falls when either no
    longer does; by the gastric rule also by what lateral staining reaches and loses. One step is
    `COMPLETENESS_STEP` of completeness, or `MASS_STEP` of the threshold of mass: about as much as a
    measurement may be wrong by.

    Parameters
    ----------
    reading : CellReading

    Returns
    -------
    (N,) float32
        0 on a threshold; infinite where no change of one cell changes its class.
    """
    found, gain = reading.classes, np.float32(reading.rules.gain)
    complete, mass = reading.completeness, reading.raw_mass / gain
    share_of, least_of = _of_classes(reading.rules.completeness), _of_classes(reading.rules.mass)
    up = _up(complete, share_of[found + 1], mass, least_of[found + 1])
    down = _down(complete, share_of[found], mass, least_of[found])
    if reading.lateral_mass is not None:  # another way to reach 2+ and 3+: both have to be lost
        lateral, some = reading.lateral_mass / gain, np.float32(reading.rules.completeness[0])
        thick_of = np.array([np.inf, *lateral_thresholds(reading.rules), np.inf], np.float32)
        up = np.minimum(up, _up(complete, some, lateral, thick_of[found + 1]))
        down = np.maximum(down, _down(complete, some, lateral, thick_of[found]))
    return np.asarray(np.minimum(down, up), np.float32)


def deciding_cells(reading: CellReading, most: int = 500) -> NDArray[np.int64]:
    """Numbers of the counted cells that lie nearest to a threshold, the nearest first.

    Parameters
    ----------
    reading : CellReading
    most : int

    Returns
    -------
    (n,) int64
        At most ``most``; of cells that lie equally near, the one further up on the slide first.
    """
    steps = np.where(reading.counted, steps_to_change(reading), np.float32(np.inf))
    if len(steps) > most > 0:
        steps[steps > np.partition(steps, most - 1)[most - 1]] = np.inf
    near = np.flatnonzero(np.isfinite(steps))
    return np.asarray(near[np.argsort(steps[near], kind="stable")][:most], np.int64)


def why(reading: CellReading, number: int) -> str:
    """Say in a sentence why a cell has its class.

    Parameters
    ----------
    reading : CellReading
    number : int
        Of the cell.

    Returns
    -------
    str
        "complete 72 % (2+ asks 60 %, 3+ 65 %), mass 0.55 (2+ asks 0.385, 3+ 0.715): 2+".
    """
    rules, found = reading.rules, int(reading.classes[number])
    complete, mass = float(reading.completeness[number]), float(reading.raw_mass[number]) / rules.gain
    named = [place for place in (found, found + 1) if 1 <= place < len(CLASSES)]
    shares = _asked([(CLASSES[place], f"{100 * rules.completeness[place - 1]:.4g} %") for place in named])
    masses = _asked([(CLASSES[place], f"{rules.mass[place - 1]:.4g}") for place in named])
    words = f"complete {100 * complete:.0f} % ({shares}), mass {mass:.3g} ({masses})"
    if reading.lateral_mass is not None:
        words += f", {float(reading.lateral_mass[number]) / rules.gain:.3g} in its strongest third"
    return f"{words}: {CLASSES[found]}"


def changes(rules: Rules) -> tuple[str, ...]:
    """Name the thresholds that differ from those of the specification, with what they were.

    The gain is none of them: it belongs to the laboratory.

    Examples
    --------
    >>> changes(Rules(mass=(0.18, 0.4, 0.715)))
    ('mass of 2+ 0.4 instead of 0.385',)
    """
    found = []
    usual = Rules()
    for place, name in enumerate(CLASSES[1:]):
        now, before = rules.completeness[place], usual.completeness[place]
        if now != before:
            found.append(f"completeness of {name} {100 * now:.4g} % instead of {100 * before:.4g} %")
    for place, name in enumerate(CLASSES[1:]):
        now, before = rules.mass[place], usual.mass[place]
        if now != before:
            found.append(f"mass of {name} {now:.4g} instead of {before:.4g}")
    for name, now, before in (
        ("contrast of a stained sector", rules.contrast, usual.contrast),
        ("DAB of a stained sector", rules.dab, usual.dab),
    ):
        if now != before:
            found.append(f"{name} {now:.4g} instead of {before:.4g}")
    return tuple(found)


def changed_words(rules: Rules) -> tuple[str, ...]:
    """Warn of changed thresholds and of the rule of the stomach, a sentence each; empty for neither."""
    found = changes(rules)
    words = [f"Thresholds changed by the user: {'; '.join(found)}."] if found else []
    if rules.gastric:
        words.append(f"Scored by the rule of the stomach{', for a biopsy' if rules.biopsy else ''}.")
    return tuple(words)


def _up(complete: Many, share: Many | np.float32, mass: Many, least: Many) -> Many:
    """Count the steps to reach both thresholds; infinite where one cannot be reached."""
    far = np.maximum(share - complete, 0) / np.float32(COMPLETENESS_STEP)
    return np.asarray(np.hypot(far, np.maximum(least - mass, 0) / _mass_step(least)), np.float32)


def _down(complete: Many, share: Many | np.float32, mass: Many, least: Many) -> Many:
    """Count the steps to lose one of two thresholds; below 0 where one is not reached."""
    far = (complete - share) / np.float32(COMPLETENESS_STEP)
    return np.asarray(np.minimum(far, (mass - least) / _mass_step(least)), np.float32)


def _mass_step(least: Many) -> Many:
    return np.asarray(np.where(np.isfinite(least), np.float32(MASS_STEP) * least, 1), np.float32)


def _of_classes(thresholds: tuple[float, float, float]) -> NDArray[np.float32]:
    """Thresholds of class 0 to 3+ and of one above: nothing falls below the first, or below a 0."""
    asked = np.array([-np.inf, *thresholds, np.inf], np.float32)
    asked[asked <= 0] = -np.inf
    return asked


def _asked(thresholds: list[tuple[str, str]]) -> str:
    first, *more = thresholds
    return ", ".join([f"{first[0]} asks {first[1]}", *(f"{name} {value}" for name, value in more)])
