"""Which column of a table is what: given by the user, or guessed from names and cells, shown either way."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.outside import shown
from napari_her2_training.cohort_sources.scores import NoScore, read_score

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari_her2.spreadsheets import Sheet

FIELDS: Mapping[str, tuple[str, ...]] = {
    "case_id": (
        "caseid", "case", "patientid", "patient", "casenumber", "caseno", "casename", "patientno", "sampleid",
        "bcrpatientbarcode", "anonid", "studyid", "id", "slideid", "name",
    ),
    "he": ("he", "heslide", "hefile", "hefilename", "hepath", "hewsi", "slide", "slidename", "filename",
           "wsi", "file", "path", "image"),
    "ihc": ("ihcslide", "ihcfile", "ihcfilename", "ihcpath", "ihcwsi", "her2slide", "her2file", "her2wsi"),
    "score": (
        "her2ihcscore", "ihcscore", "her2score", "her2expression", "scoreher2", "her2ihc", "ihcher2",
        "immunohistochemistry", "score", "her2", "ihc", "her2status", "label", "class", "groundtruth",
    ),
    "ish": ("ish", "ishresult", "ishstatus", "her2ish", "fish", "fishresult", "fishstatus", "her2fish",
            "her2fishstatus", "cish", "sish", "dish"),
    "split": ("split", "set", "part", "partition", "subset"),
    "fold": ("fold",),
    "mpp": ("mpp", "hempp", "mpphe", "pixelsize", "umpx", "µmpx", "umperpixel"),
    "ihc_mpp": ("ihcmpp", "mppihc"),
    "result": ("finalresultgroundtruth", "finalresult", "her2", "her2status", "her2statusbyihc"),
}  # fmt: skip
"""What a column may be called, letters and digits alone, the likeliest first."""
OWN_FIELDS = tuple(name for name in FIELDS if name != "result")
"""Those of a table of the user's own: a status of positive or negative is no score."""
_SAME_NAMES = ("ihc", "her2")
"""Columns of these names hold scores in one table and slides in the next: their cells tell."""
_FIRST_ROWS, _SAMPLE, _ENOUGH = 30, 200, 0.8
_ENDING = re.compile(r"\.[a-z0-9]{2,5}$")


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is used.

    Parameters
    ----------
    field : str
        What it is: one of `FIELDS`.
    name : str
        As the table has it.
    number : int
        From 0.
    guessed : bool
    examples : tuple of str
        Some cells.
    """

    field: str
    name: str
    number: int
    guessed: bool
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table that are used, and the row that names them."""

    header_row: int
    used: tuple[Column, ...]
    unused: tuple[str, ...]

    def of(self, field: str) -> Column | None:
        """Return the column of a field."""
        return next((column for column in self.used if column.field == field), None)


def read_columns(items: Iterable[str]) -> dict[str, str]:
    """Read columns given by the user: "case_id=Patient ID".

    Raises
    ------
    JobFailed
        If one is no field and column.
    """
    given: dict[str, str] = {}
    for item in items:
        field, sign, name = item.partition("=")
        if not sign or field.strip() not in OWN_FIELDS or not name.strip():
            known = ", ".join(OWN_FIELDS)
            raise JobFailed(
                f'--column "{shown(item, 60)}" is none of FIELD=NAME: write --column case_id="Patient ID"; '
                f"fields are {known}."
            )
        given[field.strip()] = name.strip()
    return given


def find_columns(
    sheet: Sheet,
    given: Mapping[str, str],
    wanted: Sequence[str] = OWN_FIELDS,
    mapped: Mapping[str, str] | None = None,
) -> Columns:
    """Find the columns of a table, and the row that names them: titles may stand above it.

    Parameters
    ----------
    sheet : Sheet
    given : mapping of str to str
        Field to the name of its column.
    wanted : sequence of str
        Fields that are guessed where they are not given.
    mapped : mapping of str to str, optional
        Labels of the user's own, see `read_score`.

    Raises
    ------
    JobFailed
        If the table is empty, or a given column is not there, or there twice.
    """
    if not sheet.rows:
        raise JobFailed(f"{shown(sheet.name)} is empty: choose the table of the cases.")
    number = max(
        range(min(_FIRST_ROWS, len(sheet.rows))),
        key=lambda row: (_known_names(sheet.rows[row][1], given, wanted), -row),
    )
    header_row, names = sheet.rows[number]
    names = tuple(" ".join(name.split()) for name in names)
    body = [cells for _, cells in sheet.rows[number + 1 :]]
    used: dict[str, Column] = {}
    for field, name in given.items():
        places = [at for at, own in enumerate(names) if own.casefold() == " ".join(name.split()).casefold()]
        if len(places) != 1:
            how = "no column" if not places else "several columns"
            listed = shown(", ".join(own for own in names if own), 160)
            raise JobFailed(f"{shown(sheet.name)} has {how} {name!r:.60}, only: {listed}.")
        used[field] = Column(field, names[places[0]], places[0], False, _examples(body, places[0]))
    for field in wanted:
        if field not in used:
            taken = {column.number for column in used.values()}
            at = _guess(field, names, body, taken, mapped or {})
            if at is not None:
                used[field] = Column(field, names[at], at, True, _examples(body, at))
    taken = {column.number for column in used.values()}
    unused = tuple(name for at, name in enumerate(names) if name and at not in taken)
    return Columns(header_row, tuple(used[field] for field in FIELDS if field in used), unused)


def _known_names(cells: Sequence[str], given: Mapping[str, str], wanted: Sequence[str]) -> int:
    known = {alias for field in wanted for alias in FIELDS[field]} | {_plain(name) for name in given.values()}
    return sum(_plain(cell) in known for cell in cells if cell)


def _guess(
    field: str,
    names: Sequence[str],
    body: Sequence[Sequence[str]],
    taken: set[int],
    mapped: Mapping[str, str],
) -> int | None:
    plain = [_plain(name) for name in names]
    aliases = FIELDS[field] + (_SAME_NAMES if field == "ihc" else ())
    places = [plain.index(alias) for alias in aliases if alias in plain]
    places = [at for at in places if at not in taken]
    if field == "score":
        # Of several columns that could be it the one whose cells are scores: HER2 is "Positive" beside
        # HER2 Expression, which is "3+".
        return next(
            (at for at in places if _share_of_scores(body, at, mapped) >= _ENOUGH),
            places[0] if places else None,
        )
    if field == "ihc":
        places = [at for at in places if plain[at] not in _SAME_NAMES or _are_files(body, at)]
    return places[0] if places else None


def _share_of_scores(body: Sequence[Sequence[str]], at: int, mapped: Mapping[str, str]) -> float:
    cells = [row[at] for row in body[:_SAMPLE] if at < len(row) and row[at]]
    good = 0
    for cell in cells:
        try:
            good += bool(read_score(cell, mapped))
        except NoScore:
            continue
    return good / len(cells) if cells else 0.0


def _are_files(body: Sequence[Sequence[str]], at: int) -> bool:
    cells = [row[at] for row in body[:_SAMPLE] if at < len(row) and row[at]]
    return (
        bool(cells) and sum(bool(_ENDING.search(cell.casefold())) for cell in cells) / len(cells) >= _ENOUGH
    )


def _examples(body: Sequence[Sequence[str]], at: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row[at] for row in body[:_SAMPLE] if at < len(row) and row[at]))[:5]


def _plain(name: str) -> str:
    return "".join(mark for mark in name.casefold() if mark.isalnum())
