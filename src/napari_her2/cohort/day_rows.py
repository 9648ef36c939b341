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

from napari_her2.inference.result import Progress


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
    left_out : float or None
        Share of the tissue that was left out for its quality; None where nobody looked.
    left_out_reasons : str
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
    left_out: float | None
    left_out_reasons: str
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
        item = queue.items[number]
        folder = queue.folder_of(item) if item.state == "done" else None
        found[number] = None if folder is None else row_facts(folder)
    return found


def _facts(result: Mapping[str, Any]) -> RowFacts:
    row = row_from(result)
    cells = row.cells
    share, reasons = _left_out(result)
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
        left_out=share,
        left_out_reasons=reasons,
        warnings=tuple(str(text) for text in result["warnings"]),
        fingerprints=tuple(str(slide["slide_sha256"]) for slide in result["slides"]),
        cells=cells,
    )


def _left_out(result: Mapping[str, Any]) -> tuple[float | None, str]:
    """Share that was left out of the score for its quality, and why; None where nobody looked."""
    held = result.get("left_out")
    if not isinstance(held, dict):
        return None, ""
    reasons = held.get("reasons")
    named = reasons.items() if isinstance(reasons, dict) else ()
    words = ", ".join(f"{name} {share:.0%}" for name, share in named if _finite(share))
    return _finite(held.get("share")), words


def _finite(value: object) -> float | None:
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    return number if math.isfinite(number) else None
