"""What a model says of slides, and the table in which a run keeps it: one row a slide."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from napari_her2.errors import JobFailed
from napari_her2.export.csv_cells import read_table, write_table
from napari_her2.whole_files import whole_file
from napari_her2_training.measures.calibration import TINY, scaled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_COLUMNS = ("fold", "part", "reading", "case_id", "class", "temperature")


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What was said of slides.

    Parameters
    ----------
    cases : tuple of str
        Case of each slide.
    labels : (N,) int64
    probabilities : (N, C) float64
        As the network gives them.
    temperature : float
        Of the model; see `napari_her2_training.measures.calibration`.
    """

    cases: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    temperature: float = 1.0

    @property
    def calibrated(self) -> NDArray[np.float64]:
        """(N, C) probabilities as the model tells them: those that scoring gives."""
        return scaled(self.probabilities, self.temperature)


@dataclass(frozen=True, slots=True)
class Part:
    """Which slides, and how they were read.

    Parameters
    ----------
    fold : int
    part : str
        "train", "validation" or "test".
    reading : str
        How a slide's answer came about where a model can be read in several ways ("mean", "vote"), else "".
    """

    fold: int
    part: str
    reading: str = ""


PredictionsByPart = dict[Part, Predictions]
"""All that an arm said."""
_Row = tuple[str, int, float, list[float]]


def pooled(folds: Sequence[Predictions]) -> Predictions:
    """Join what several folds said: of a slide that all of them judged, the mean of their logits.

    Parameters
    ----------
    folds : sequence of Predictions
        Of one part of the cases. Validation slides are in one fold each, test slides in all.

    Returns
    -------
    Predictions
        Calibrated already, each fold by its own temperature.
    """
    logs: dict[tuple[str, int], list[NDArray[np.float64]]] = {}
    labels: dict[tuple[str, int], int] = {}
    for fold in folds:
        seen: Counter[str] = Counter()
        for case, label, row in zip(fold.cases, fold.labels, fold.calibrated, strict=True):
            slide = (case, seen[case])
            seen[case] += 1
            labels[slide] = int(label)
            logs.setdefault(slide, []).append(np.log(np.maximum(row, TINY)))
    means = np.stack([np.mean(rows, axis=0) for rows in logs.values()])
    return Predictions(
        tuple(case for case, _ in logs), np.array(list(labels.values()), np.int64), softmax(means, axis=1)
    )


def write_predictions(path: Path, predictions: Mapping[Part, Predictions], classes: Sequence[str]) -> None:
    """Write predictions as CSV, whole or not at all.

    Raises
    ------
    JobFailed
        If it cannot be written.
    """
    rows = (
        [
            *(part.fold, part.part, part.reading, case, classes[label], repr(given.temperature)),
            *(repr(float(value)) for value in row),
        ]
        for part, given in predictions.items()
        for case, label, row in zip(given.cases, given.labels, given.probabilities, strict=True)
    )
    with whole_file(path) as scratch:
        write_table(scratch, [*_COLUMNS, *(f"p({name})" for name in classes)], rows)


def read_predictions(path: Path) -> tuple[PredictionsByPart, tuple[str, ...]]:
    """Read what `write_predictions` wrote.

    Raises
    ------
    JobFailed
        If it is something else, or damaged.
    """
    rows: dict[Part, list[_Row]] = defaultdict(list)
    try:
        table = read_table(path)
        classes = tuple(name[2:-1] for name in next(table)[len(_COLUMNS) :])
        for fold, part, reading, case, label, temperature, *values in table:
            if len(values) != len(classes):
                raise ValueError("a row has another length")
            numbers = [float(value) for value in values]
            row = (case, classes.index(label), float(temperature), numbers)
            rows[Part(int(fold), part, reading)].append(row)
    except (OSError, ValueError, StopIteration, csv.Error) as error:
        raise JobFailed(
            f"{path} cannot be read ({error}): delete its folder and train the arm again."
        ) from error
    return {part: _joined(of_part) for part, of_part in rows.items()}, classes


def _joined(rows: Sequence[_Row]) -> Predictions:
    cases, labels, temperatures, values = zip(*rows, strict=True)
    return Predictions(
        cases, np.array(labels, np.int64), np.array(values, np.float64), temperature=temperatures[0]
    )
