"""Sets of classes with a promise, as the models of a finished run give them, judged by its test cases.

What calibrates is what the model of a fold keeps for it. Where it keeps nothing, as those of older runs, or
has no such reading, it is the cases that chose the epoch, whose answers stand in ``predictions.csv``.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import Her2Error
from napari_her2.models.answer_sets import CalibrationCases, refusal
from napari_her2.models.bundle import load_bundle
from napari_her2.models.bundle_card import read_card
from napari_her2.models.class_scores import in_order
from napari_her2.number_words import counted
from napari_her2_training.measures.coverage import (
    coverage_by_group,
    judge_sets,
    measure_coverage,
)
from napari_her2_training.reporting.evaluation import in_words
from napari_her2_training.reporting.slides import model_of_fold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_her2.models.answer_sets import AnswerSets
    from napari_her2.models.card import ModelCard
    from napari_her2_training.measures.coverage import Coverage, JudgedSets
    from napari_her2_training.measures.predictions import Predictions
    from napari_her2_training.reporting.evaluation import FinishedRun

PROMISES = (0.8, 0.9, 0.95)
ALL = "all"


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
    sources : mapping of (str, int) to str
        What calibrated each reading of each fold, in words.
    """

    rows: tuple[SetRow, ...]
    refused: tuple[str, ...]
    ordered: bool
    sources: Mapping[tuple[str, int], str]

    def of(self, reading: str, fold: int) -> list[SetRow]:
        """Return the rows of one reading of a fold."""
        return [row for row in self.rows if (row.reading, row.fold) == (reading, fold)]


@dataclass(frozen=True, slots=True, eq=False)
class KeptSets:
    """What the model of a fold keeps to make sets with.

    Parameters
    ----------
    sets : AnswerSets
    made_from : str
        As its card has it.
    """

    sets: AnswerSets
    made_from: str


def kept_sets(run: FinishedRun) -> dict[int, KeptSets]:
    """Return what the models of the folds keep to make sets with; without those that keep nothing."""
    found: dict[int, KeptSets] = {}
    if run.record["bundle"] != "written":
        return found
    for fold in run.folds:
        path = model_of_fold(run, fold)
        with suppress(Her2Error):  # of a fold whose model is gone the predictions are left
            about = read_card(path).answer_sets
            sets = load_bundle(path).answer_sets if about is not None else None
            if about is not None and sets is not None:
                found[fold] = KeptSets(sets, about.made_from)
    return found


def judge_promises(
    run: FinishedRun,
    card: ModelCard | None,
    scales: Mapping[str, Sequence[str]],
    kept: Mapping[int, KeptSets],
) -> JudgedPromises:
    """Make the sets of the test slides of every reading and fold, and measure them.

    Parameters
    ----------
    run : FinishedRun
    card : ModelCard or None
        Which tells what the classes hold.
    scales : mapping of str to sequence of str
        By reading, the scale of each test slide; "" where it is not known.
    kept : mapping of int to KeptSets
        By fold.

    Returns
    -------
    JudgedPromises
        Without rows where no case is held out.
    """
    ordered = in_order(run.classes, card.class_scores if card else None)
    rows: list[SetRow] = []
    refused: dict[str, None] = {}
    sources: dict[tuple[str, int], str] = {}
    for reading in run.readings:
        for fold, judged in run.of("test", reading).items():
            known, source = _calibration(run, reading, fold, kept.get(fold), ordered=ordered)
            if known is None:
                continue
            sources[reading, fold] = source
            for promise in PROMISES:
                sets = judge_sets(known, judged.calibrated, promise, ordered=ordered)
                if sets is None:
                    refused[refusal(len(known.scores), promise)] = None
                    continue
                rows += _rows(run, reading, fold, sets, judged, scales.get(reading, ()))
    return JudgedPromises(tuple(rows), tuple(refused), ordered, sources)


def _calibration(
    run: FinishedRun, reading: str, fold: int, kept: KeptSets | None, *, ordered: bool
) -> tuple[CalibrationCases | None, str]:
    """Return the cases that calibrate a reading of a fold, and which they are in words."""
    heads = run.record.get("heads", {})
    in_bundle = reading in heads if heads else reading == run.reading
    known = kept.sets.of(reading if heads else "") if kept is not None and in_bundle else None
    if known is not None and kept is not None:
        return known, kept.made_from
    given = run.of("validation", reading).get(fold)
    if given is None:
        return None, ""
    known = _of_predictions(given, run.settings().seed, ordered=ordered)
    return known, f"{counted(len(known.scores), 'validation case')}, which also chose the epoch"


def _of_predictions(given: Predictions, seed: int, *, ordered: bool) -> CalibrationCases:
    """Score one slide of each case: the others would count as cases of their own, and promise too much."""
    rng, names = np.random.default_rng(seed), np.array(given.cases)
    chosen = np.array([rng.choice(np.flatnonzero(names == case)) for case in dict.fromkeys(given.cases)])
    return CalibrationCases.of(given.calibrated[chosen], given.labels[chosen], ordered=ordered)


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
