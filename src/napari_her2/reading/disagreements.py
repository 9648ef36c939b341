"""Which cases readers read most differently: the queue of a consensus reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.reading.coefficients import MISSING
from napari_her2.reading.worklist import CONSENSUS, order_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2.reading.agreement import LevelTable


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A case that readers put on different levels.

    Parameters
    ----------
    case : str
    levels : mapping of str to str
        Reader to level.
    apart : int
        Levels between the lowest and the highest.
    entropy : float
        Bits, of the levels that were given.
    agreed : str
        Level of the consensus reading; empty while there is none.
    """

    case: str
    levels: Mapping[str, str]
    apart: int
    entropy: float
    agreed: str = ""


def latest_round(table: LevelTable) -> str:
    """Return the last round that two readers took part in; the first one where there is none."""
    names = table.study.round_names
    return next((name for name in reversed(names) if len(table.readers(name)) > 1), names[0])


def disagreements(table: LevelTable, round_name: str = "") -> tuple[Disagreement, ...]:
    """Return the cases on which readers part, those first that they part on most.

    By how far they are apart, then by the entropy of their levels; cases that are equal in both come in an
    order that the seed of the study gives.

    Parameters
    ----------
    table : LevelTable
    round_name : str
        Empty takes `latest_round`.

    Returns
    -------
    tuple of Disagreement
    """
    study, names = table.study, table.levels.levels
    round_name = round_name or latest_round(table)
    study.check_round(round_name)
    readers = table.readers(round_name)
    if not readers:
        return ()
    read = np.stack([table.of(reader, round_name) for reader in readers])
    found = []
    for column, case in enumerate(study.cases):
        given = {
            reader: int(level)
            for reader, level in zip(readers, read[:, column], strict=True)
            if level != MISSING
        }
        apart = max(given.values()) - min(given.values()) if given else 0
        if apart:
            agreed = int(table.consensus[column])
            found.append(
                Disagreement(
                    case.case_id,
                    {reader: names[level] for reader, level in given.items()},
                    apart,
                    _entropy(list(given.values())),
                    "" if agreed == MISSING else names[agreed],
                )
            )
    place = {case: at for at, case in enumerate(order_of(study, "", CONSENSUS))}
    return tuple(sorted(found, key=lambda of: (-of.apart, -of.entropy, place[of.case])))


def _entropy(levels: list[int]) -> float:
    shares = np.unique(levels, return_counts=True)[1] / len(levels)
    return float(-(shares * np.log2(shares)).sum())
