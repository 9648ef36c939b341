"""Sets of classes with a promise, as a finished run would give them: made from its own predictions, judged.

The cases that chose the epoch calibrate (and those that were kept for it, where there are any); the test
cases judge. Runs of any age have both in ``predictions.csv``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.models.answer_sets import CalibrationCases, refusal
from napari_her2.models.class_scores import in_order
from napari_her2_training.measures.coverage import (
    coverage_by_group,
    judge_sets,
    measure_coverage,
    spread_by_calibration,
)
from napari_her2_training.reporting.evaluation import in_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_her2.models.card import ModelCard
    from napari_her2_training.measures.coverage import Coverage, JudgedSets
    from napari_her2_training.measures.predictions import Predictions
    from napari_her2_training.reporting.evaluation import FinishedRun

PROMISES = (0.8, 0.9, 0.95)
ALL = "all"
CALIBRATING = ("validation", "calibration")
"""Parts of a fold that the model has not learnt from, and is not judged by."""


@dataclass(frozen=True, slots=True)
class SetRow:
    """The sets of a group of slides.

    Parameters
    ----------
    reading : str
    fold : int
    promise : float
    kind : str
        What the slides have in common: `ALL` (nothing), "class" or "scale".
    group : str
        `ALL`, the name of the class, or the scale.
    calibrated_on : int
        Calibration cases behind the promise; those of the class, for a class.
    own : bool
        Whether they are enough for a promise to this very group.
    measured : Coverage
    """

    reading: str
    fold: int
    promise: float
    kind: str
    group: str
    calibrated_on: int
    own: bool
    measured: Coverage


@dataclass(frozen=True, slots=True, eq=False)
class JudgedPromises:
    """What came of the sets of a run.

    Parameters
    ----------
    rows : tuple of SetRow
        Of every reading and fold.
    refused : tuple of str
        Promises that cannot be made, each with its reason.
    ordered : bool
        Whether the sets follow the order of the classes.
    """

    rows: tuple[SetRow, ...]
    refused: tuple[str, ...]
    ordered: bool

    def of(self, reading: str, fold: int) -> list[SetRow]:
        """Return the rows of one reading of a fold."""
        return [row for row in self.rows if (row.reading, row.fold) == (reading, fold)]


def judge_promises(
    run: FinishedRun, card: ModelCard | None, scales: Mapping[str, Sequence[str]]
) -> JudgedPromises:
    """Make the sets of the test slides of every reading and fold, and measure them.

    Parameters
    ----------
    run : FinishedRun
    card : ModelCard or None
        Which tells what the classes hold.
    scales : mapping of str to sequence of str
        By reading, the scale of each test slide; "" where it is not known.

    Returns
    -------
    JudgedPromises
        Without rows where no case is held out.
    """
    ordered = in_order(run.classes, card.class_scores if card else None)
    rows: list[SetRow] = []
    refused: dict[str, None] = {}
    for reading in run.readings:
        for fold, judged in run.of("test", reading).items():
            given = [of[fold] for part in CALIBRATING if fold in (of := run.of(part, reading))]
            if not given:
                continue
            known = _calibration(given, run.settings().seed, ordered=ordered)
            for promise in PROMISES:
                sets = judge_sets(known, judged.calibrated, promise, ordered=ordered)
                if sets is None:
                    refused[refusal(len(known.scores), promise)] = None
                    continue
                rows += _rows(run, reading, fold, sets, judged, scales.get(reading, ()))
    return JudgedPromises(tuple(rows), tuple(refused), ordered)


def _calibration(parts: Sequence[Predictions], seed: int, *, ordered: bool) -> CalibrationCases:
    """Score one slide of each case: the others would count as cases of their own, and promise too much."""
    rng = np.random.default_rng(seed)
    probabilities, labels = [], []
    for part in parts:
        names = np.array(part.cases)
        chosen = np.array([rng.choice(np.flatnonzero(names == case)) for case in dict.fromkeys(part.cases)])
        probabilities.append(part.calibrated[chosen])
        labels.append(part.labels[chosen])
    return CalibrationCases.of(np.concatenate(probabilities), np.concatenate(labels), ordered=ordered)


def _rows(
    run: FinishedRun,
    reading: str,
    fold: int,
    sets: JudgedSets,
    judged: Predictions,
    scales: Sequence[str],
) -> list[SetRow]:
    settings = run.settings()

    def row(kind: str, group: str, count: int, own: bool, measured: Coverage) -> SetRow:
        return SetRow(reading, fold, sets.promise, kind, group, count, own, measured)

    every = int(sets.calibrated_on.sum())
    rows = [row(ALL, ALL, every, True, measure_coverage(sets.inside, judged.labels, judged.cases, settings))]
    names = [run.classes[label] for label in judged.labels]
    by_class = coverage_by_group(sets, judged, names, settings)
    for number, name in enumerate(run.classes):
        if name in by_class:
            count, own = int(sets.calibrated_on[number]), bool(sets.own[number])
            rows.append(row("class", name, count, own, by_class[name]))
    alike = len(scales) == len(judged.cases)
    by_scale = coverage_by_group(sets, judged, scales, settings) if alike else {}
    if len(by_scale) > 1:
        rows += [row("scale", name, every, False, by_scale[name]) for name in sorted(by_scale, key=_number)]
    return rows


def _number(scale: str) -> float:
    return float(scale.split()[0])


def set_table(found: JudgedPromises, run: FinishedRun) -> list[dict[str, object]]:
    """Return all that was measured of sets as rows of a table."""
    return [
        {
            "what": in_words(row.reading, run.record),
            "fold": row.fold + 1,
            "promise": row.promise,
            "kind": row.kind,
            "group": row.group,
            "calibrated_on": row.calibrated_on,
            "promised_by_itself": "yes" if row.own else "no",
            **asdict(row.measured),
        }
        for row in found.rows
    ]


SET_COLUMNS = (
    *("what", "fold", "promise", "kind", "group", "calibrated_on", "promised_by_itself", "slides", "cases"),
    *("held", "coverage", "low", "high", "size", "size_low", "size_high", "single", "double", "every"),
)


def set_blocks(found: JudgedPromises, run: FinishedRun) -> list[dict[str, Any]]:
    """Lay out the sets of the bundle: a table for each reading."""
    fold = int(run.record["fold"])
    blocks = []
    for reading in run.readings:
        rows = found.of(reading, fold)
        promises = list(dict.fromkeys(row.promise for row in rows))
        if promises:
            groups = dict.fromkeys((row.kind, row.group) for row in rows)
            blocks.append(
                {
                    "title": in_words(reading, run.record) if len(run.readings) > 1 else "",
                    "promises": [_percent(promise) for promise in promises],
                    "rows": [_laid_out(kind, group, rows, promises, run) for kind, group in groups],
                    "sizes": [_sizes(row, len(run.classes)) for row in rows if row.kind == ALL],
                }
            )
    return blocks


def _laid_out(
    kind: str, group: str, rows: Sequence[SetRow], promises: Sequence[float], run: FinishedRun
) -> dict[str, Any]:
    of_group = {row.promise: row for row in rows if (row.kind, row.group) == (kind, group)}
    any_row = next(iter(of_group.values()))
    return {
        "name": {ALL: "all slides", "class": run.named.get(group, group)}.get(kind, group),
        "slides": any_row.measured.slides,
        "calibrated_on": any_row.calibrated_on if kind != "scale" else "–",
        "cells": [_cell(of_group[promise]) for promise in promises],
    }


def promise_points(found: JudgedPromises, run: FinishedRun) -> dict[str, list[SetRow]]:
    """Return the rows that are drawn: of the reading of the bundle, for all slides and each class."""
    points: dict[str, list[SetRow]] = {}
    for row in found.of(run.reading, int(run.record["fold"])):
        if row.kind != "scale":
            name = "all slides" if row.kind == ALL else run.named.get(row.group, row.group)
            points.setdefault(name, []).append(row)
    return points


def _cell(row: SetRow) -> dict[str, str]:
    found = row.measured
    size_range = "" if found.size_low is None else f"{found.size_low:.2f} to {found.size_high:.2f}"
    shared = row.kind == "class" and not row.own
    return {
        "coverage": f"{found.coverage:.1%}{'*' if shared else ''}",
        "range": f"{found.low:.1%} to {found.high:.1%}",
        "size": f"{found.size:.2f}",
        "size_range": size_range,
    }


def _sizes(row: SetRow, classes: int) -> dict[str, str]:
    found = row.measured
    shares = {"one class": found.single, "two": found.double, "all of them": found.every}
    if classes == 2:
        del shares["two"]
    words = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return {"promise": _percent(row.promise), "words": words}


def sets_in_words(found: JudgedPromises, run: FinishedRun) -> str:
    """Say how the sets were made, and what they are worth; empty where there are none to speak of."""
    if run.judged != "test":
        return (
            "Sets are not judged: the cases that would make them are the only ones there are. Hold cases out "
            "([data] test in the configuration, or a column split in the manifest)."
        )
    fold = int(run.record["fold"])
    rows = [row for row in found.rows if row.fold == fold and row.kind == ALL]
    parts = [part for part in CALIBRATING if fold in run.of(part)]
    if not parts:
        return "Sets cannot be made: the run kept no answers of validation slides."
    refused = " ".join(f"{words}." for words in found.refused)
    if not rows:
        return refused
    first = next((row for row in rows if row.reading == run.reading), rows[0])
    sentences = [
        f"The answer as a set of classes that holds the truth as often as was asked for, of cases like those "
        f"it was calibrated on: the {first.calibrated_on} {' and '.join(parts)} cases. Those of validation "
        f"also chose the epoch and the temperature. Judged on the test slides"
        f"{f' by the model of fold {fold + 1}, that of the bundle' if len(run.folds) > 1 else ''}.",
        "A set is a run of neighbouring classes." if found.ordered else "",
        _spread_in_words(first, [row for row in found.rows if row.fold == fold and row.own]),
        "* Too few calibration cases of this class for a promise of its own: it shares the threshold of all."
        if any(not row.own for row in found.rows if row.kind == "class" and row.fold == fold)
        else "",
        "More is held than was asked for where the most probable class alone is right more often."
        if any(row.measured.low > row.promise for row in rows)
        else "",
        refused,
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _spread_in_words(first: SetRow, rows: Sequence[SetRow]) -> str:
    """Say how far coverage may lie from the promise by the draw of the calibration cases alone."""
    spread = spread_by_calibration(first.calibrated_on, first.promise)
    words = f"Which cases happened to calibrate moves the coverage by about ± {spread:.1%}"
    like = (first.reading, first.promise, "class")
    of_class = [row for row in rows if (row.reading, row.promise, row.kind) == like]
    if of_class:
        least = min(of_class, key=lambda row: row.calibrated_on)
        own = spread_by_calibration(least.calibrated_on, least.promise)
        words += f", that of a class with {least.calibrated_on} of them by ± {own:.1%}"
    return f"{words} ({_percent(first.promise)}, standard deviation)."


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
