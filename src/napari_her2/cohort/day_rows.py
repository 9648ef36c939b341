"""What a result says in a row of a day's list, from its result.json, which holds no more than may be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_her2.cohort.table_row import NOT_OURS, row_from
from napari_her2.export.result_files import RESULT_FILE, read_result

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from napari_her2.cohort.day_queue import DayQueue

from napari_her2.steps import Progress


@dataclass(frozen=True, slots=True)
class RowFacts:
    """A result in a row.

    Parameters
    ----------
    answer : str
        "2+ (equivocal, ISH required)", "withheld: ...", "indeterminate: ...".
    score : str
        The score alone; empty where there is none to be seen.
    answer_set : str
        Scores that the answer leaves possible, "1+ or 2+"; empty where nothing is promised.
    withheld : bool
        Whether the answer is withheld, and not shown anyway.
    doubtful : bool
        Whether anything speaks against it: withheld, indeterminate, an unfamiliar slide or one of which that
        is not known, or a set of several scores.
    doubt : tuple of float
        The smallest of the most doubtful, see `napari_her2.cohort.table_row.TableRow`.
    doubt_words, familiarity : str
    familiarity_value : float or None
    poor : float or None
        Share of the tissue that is poor, of the poorer slide; None where nobody looked.
    poor_for : str
        What it is poor for, with the share of each.
    poor_left_out : bool
        Whether it was left out of the score.
    warnings : tuple of str
    fingerprints : tuple of str
        Of its slides.
    cells : mapping of str to object
        All columns of the table of scores.
    """

    answer: str
    score: str
    answer_set: str
    withheld: bool
    doubtful: bool
    doubt: tuple[float, ...]
    doubt_words: str
    familiarity: str
    familiarity_value: float | None
    poor: float | None
    poor_for: str
    poor_left_out: bool
    warnings: tuple[str, ...]
    fingerprints: tuple[str, ...]
    cells: Mapping[str, Any]


def row_facts(folder: Path) -> RowFacts | None:
    """Read what a row shows of a result.

    Parameters
    ----------
    folder : Path
        Of the result.

    Returns
    -------
    RowFacts or None
        None where there is no result that can be read.
    """
    try:
        return _facts(read_result(folder / RESULT_FILE))
    except NOT_OURS:
        return None


def reading_rows(
    queue: DayQueue, numbers: Sequence[int]
) -> Generator[Progress, None, dict[int, RowFacts | None]]:
    """Read the rows of items that are done; those of others are None.

    Yields
    ------
    Progress

    Returns
    -------
    dict of int to RowFacts or None
    """
    found: dict[int, RowFacts | None] = {}
    for done, number in enumerate(numbers):
        yield Progress("Reading results", done, len(numbers), "results")
        item = queue.item(number)
        folder = queue.folder_of(item) if item.state == "done" else None
        found[number] = None if folder is None else row_facts(folder)
    return found


def _facts(result: Mapping[str, Any]) -> RowFacts:
    row = row_from(result)
    cells = row.cells
    poor, poor_for, left_out = _quality(result)
    known = result.get("familiarity_value")
    return RowFacts(
        answer=str(cells["result"]),
        score=str(cells["score"] or "") if cells["indeterminate"] == "no" else "",
        answer_set=str(cells["set"]),
        withheld=cells["withheld"] == "yes",
        doubtful=not row.certain or len(result.get("set") or ()) > 1,
        doubt=row.doubt,
        doubt_words=str(cells["doubt"] or ""),
        familiarity=str(cells["familiarity"]),
        familiarity_value=_finite(known),
        poor=poor,
        poor_for=poor_for,
        poor_left_out=left_out,
        warnings=tuple(str(text) for text in result["warnings"]),
        fingerprints=tuple(str(slide["slide_sha256"]) for slide in result["slides"]),
        cells=cells,
    )


def _quality(result: Mapping[str, Any]) -> tuple[float | None, str, bool]:
    """Share that is poor on the poorer slide, what for, and whether it was left out; None where unknown."""
    looked_at = [held for slide in result["slides"] if isinstance(held := slide.get("left_out"), dict)]
    shares = [(share, held) for held in looked_at if (share := _finite(held.get("share"))) is not None]
    if not shares:
        return None, "", False
    share, held = max(shares, key=lambda pair: pair[0])
    reasons = held.get("reasons")
    named = reasons.items() if isinstance(reasons, dict) else ()
    words = ", ".join(f"{name} {value:.0%}" for name, value in named if _finite(value))
    return share, words, held.get("applied") is True


def _finite(value: object) -> float | None:
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    return number if math.isfinite(number) else None
