"""How far readers agree: with each other, with themselves in another round, and with models."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.reading.coefficients import (
    MISSING,
    RESAMPLES,
    Estimate,
    agreement_of_pairs,
    alpha_of,
    coincidence_tables,
    estimate,
    fleiss_of,
    fleiss_tables,
    kappa_of,
    pair_tables,
)
from napari_her2.reading.readings import counted_readings
from napari_her2.reading.worklist import CONSENSUS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from napari_her2.reading.coefficients import Coefficient, Tables
    from napari_her2.reading.levels import Levels
    from napari_her2.reading.model_answers import AnswersFound
    from napari_her2.reading.readings import Reading
    from napari_her2.reading.worklist import Study, StudyCase

PERCENT, KAPPA = "agreement, %", "quadratic weighted kappa"
FLEISS, ALPHA = "Fleiss' kappa", "Krippendorff's alpha, ordinal"


@dataclass(frozen=True, slots=True)
class Agreement:
    """One coefficient.

    Parameters
    ----------
    levels : str
        Name of the levels that are compared.
    who : str
        "Anna / Ben, round 1", "all readers, round 1", "Anna, round 1 / round 2", "Anna / demo (model)".
    measure : str
    estimate : Estimate
    """

    levels: str
    who: str
    measure: str
    estimate: Estimate


class LevelTable:
    """Levels of all cases of a study, by who gave them.

    Parameters
    ----------
    study : Study
    readings : iterable of Reading
        All of the study, in the order of saving.
    levels : Levels
    corrected : bool
        As for `napari_her2.reading.readings.counted_readings`.
    """

    def __init__(
        self, study: Study, readings: Iterable[Reading], levels: Levels, *, corrected: bool = False
    ) -> None:
        self.study, self.levels = study, levels
        self._rows = {case.case_id: row for row, case in enumerate(study.cases)}
        self._read: dict[tuple[str, str], NDArray[np.int64]] = {}
        self._consensus = self._empty()
        readings = tuple(readings)
        for reading in counted_readings(readings, corrected=corrected):
            row, level = self._rows.get(reading.case), levels.level_of(reading)
            if row is None or level is None:
                continue
            if reading.round == CONSENSUS:
                self._consensus[row] = level  # whoever wrote it down last
            else:
                self._read.setdefault((reading.reader, reading.round), self._empty())[row] = level
        self._prints = _fingerprints(study, readings)

    def of(self, reader: str, round_name: str) -> NDArray[np.int64]:
        """Return (N,) the levels that a reader gave in a round, `MISSING` where none."""
        return self._read.get((reader, round_name), self._empty())

    def readers(self, round_name: str) -> list[str]:
        """Readers with a reading in a round, in the order of the study."""
        return [reader for reader in self.study.readers if (reader, round_name) in self._read]

    @property
    def consensus(self) -> NDArray[np.int64]:
        """(N,) the levels that readers agreed on, `MISSING` where none."""
        return self._consensus

    def of_models(self, answers: AnswersFound) -> dict[str, NDArray[np.int64]]:
        """Return the levels that models gave, by their names."""
        found: dict[str, NDArray[np.int64]] = {}
        for case in self.study.cases:
            for answer in answers.of(self._prints[case.case_id]):
                levels = found.setdefault(answer.model, self._empty())
                level = self.levels.level_of_class(answer.score, answer.class_scores)
                if level is not None:
                    levels[self._rows[case.case_id]] = level
        return found

    def _empty(self) -> NDArray[np.int64]:
        return np.full(len(self.study.cases), MISSING, np.int64)


def agreements(
    table: LevelTable,
    answers: AnswersFound | None = None,
    *,
    seed: int | None = None,
    resamples: int = RESAMPLES,
) -> tuple[Agreement, ...]:
    """Return every coefficient that the readings allow.

    Parameters
    ----------
    table : LevelTable
    answers : AnswersFound, optional
        Of models; a model's withheld answer counts as missing.
    seed : int, optional
        Of the intervals; by default that of the study.
    resamples : int

    Returns
    -------
    tuple of Agreement
    """
    study, count = table.study, len(table.levels.levels)
    rows: list[Agreement] = []

    def add(who: str, measure: str, tables: Tables, coefficient: Coefficient) -> None:
        found = estimate(tables, coefficient, seed=study.seed if seed is None else seed, resamples=resamples)
        rows.append(Agreement(table.levels.name, who, measure, found))

    def add_pair(who: str, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        tables = pair_tables(first, second, count)
        add(who, KAPPA, tables, kappa_of)
        add(who, PERCENT, tables, _percent)

    for name in study.round_names:
        readers = table.readers(name)
        for first, second in combinations(readers, 2):
            add_pair(f"{first} / {second}, round {name}", table.of(first, name), table.of(second, name))
        if len(readers) > 1:
            read = np.stack([table.of(reader, name) for reader in readers])
            who, pairs = f"all readers, round {name}", coincidence_tables(read, count)
            add(who, FLEISS, fleiss_tables(read, count), fleiss_of)
            add(who, ALPHA, pairs, alpha_of)
            add(who, PERCENT, pairs, _percent)
    for reader in study.readers:
        for before, after in pairwise(study.round_names):
            if reader in table.readers(before) and reader in table.readers(after):
                who = f"{reader}, round {before} / round {after}"
                add_pair(who, table.of(reader, before), table.of(reader, after))
    for model, levels in table.of_models(answers).items() if answers is not None else ():
        for name in study.round_names:
            for reader in table.readers(name):
                add_pair(f"{reader}, round {name} / {model} (model)", table.of(reader, name), levels)
        if (table.consensus != MISSING).any():
            add_pair(f"{CONSENSUS} / {model} (model)", table.consensus, levels)
    return tuple(rows)


def _percent(table: Tables) -> NDArray[np.float64]:
    return 100 * agreement_of_pairs(table)


def _fingerprints(study: Study, readings: Sequence[Reading]) -> dict[str, set[str]]:
    """Content of the slides of each case, as the study or any reading knows it."""
    prints = {case.case_id: _of_case(case) for case in study.cases}
    for reading in readings:
        if reading.case in prints:
            prints[reading.case] |= set(reading.fingerprints.values())
    return prints


def _of_case(case: StudyCase) -> set[str]:
    return {slide.fingerprint for slide in case.slides if slide.fingerprint}
