"""The scores of a folder of results as one table: ``scores.csv``, a row a slide, the most doubtful first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from napari_her2.cohort.table_row import FIRST, LAST, row_of
from napari_her2.errors import JobFailed
from napari_her2.export.csv_cells import write_records
from napari_her2.export.result_files import RESULT_FILE
from napari_her2.slide.names import slide_name
from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_her2.cohort.outcome import SlideOutcome

TABLE_FILE = "scores.csv"
Order = Literal["doubt", "name"]
BY_DOUBT: Order = "doubt"
BY_NAME: Order = "name"


def check_order(order: str) -> Order:
    """Return an order of rows.

    Raises
    ------
    JobFailed
        If there is no such order.
    """
    for known in (BY_DOUBT, BY_NAME):
        if order == known:
            return known
    raise JobFailed(f"A table is in order of {BY_DOUBT} or of {BY_NAME}, not of {order!r}: choose one.")


def write_score_table(out: Path, outcomes: Iterable[SlideOutcome], order: Order = BY_DOUBT) -> Path:
    """Write the table of all results in a folder, and of the slides that gave none.

    Parameters
    ----------
    out : Path
        Folder of the results, a folder a slide in it, from this run or an earlier one.
    outcomes : iterable of SlideOutcome
        Of this run; its failures become rows with an error.
    order : str
        Of the rows: by "doubt", the most doubtful answer first (see `napari_her2.cohort.table_row.TableRow`),
        or by the "name" of the slide. Failures, of which nothing is known, stand at the end.

    Returns
    -------
    Path

    Raises
    ------
    JobFailed
        If the folder cannot be written to.
    """
    failed = {slide_name(outcome.path): outcome for outcome in outcomes if outcome.error is not None}
    # What an earlier run wrote of a slide that failed now may have been asked otherwise.
    inside = sorted(out.iterdir()) if out.is_dir() else ()
    folders = [folder for folder in inside if folder.is_dir() and not folder.is_symlink()]
    files = [folder / RESULT_FILE for folder in folders if folder.name not in failed]
    found = [row for file in files if (row := row_of(file)) is not None]
    between = dict.fromkeys(name for row in found for name in row.cells if name not in (*FIRST, *LAST))
    if order == BY_DOUBT:  # of equal doubt by name, which they are in already
        found.sort(key=lambda row: row.doubt)
    rows = [dict(row.cells) for row in found]
    rows += [{"slide": outcome.path.name, "error": str(outcome.error)} for outcome in failed.values()]
    path = out / TABLE_FILE
    with whole_file(path) as scratch:
        write_records(scratch, (*FIRST, *between, *LAST), rows)
    return path
