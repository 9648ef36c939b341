"""What was found of a cohort: rows of a table of cases, and everything that a person should know of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path  # noqa: TC003 - dataclass
from typing import TYPE_CHECKING, Literal

from napari_her2.models.class_scores import SCORES
from napari_her2.number_words import counted
from napari_her2.outside import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari_her2_training.cohort_sources.columns import Columns

_MOST_NAMED = 8
_SPLITS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev", "tuning"), "validation"),
    **dict.fromkeys(("test", "testing", "holdout", "hold-out"), "test"),
    "calibration": "calibration",
}


@dataclass(frozen=True, slots=True)
class Outlines:
    """Outlines of the tumour of a case as they are distributed.

    Parameters
    ----------
    path : Path
    kind : {"bcnb", "xml"}
        JSON of BCNB, or a file that `napari_her2.inference.regions` reads.
    """

    path: Path
    kind: Literal["bcnb", "xml"]


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A row of the table that is written.

    Parameters
    ----------
    where : str
        Row of the table, or file, that it comes from, for messages: "Row 7".
    case_id : str
    he, ihc : Path or None
    score : str
        "0", "1+", "2+" or "3+"; empty where the source has none.
    ish : str
        "positive", "negative" or empty.
    split : str
        "train", "validation", "test", "calibration" or empty.
    fold : int or None
    mpp, ihc_mpp : float or None
        µm per level-0 pixel, where the files do not say them.
    label : str
        What the source says where that is no score.
    outlines : Outlines or None
    """

    where: str
    case_id: str
    he: Path | None = None
    ihc: Path | None = None
    score: str = ""
    ish: str = ""
    split: str = ""
    fold: int | None = None
    mpp: float | None = None
    ihc_mpp: float | None = None
    label: str = ""
    outlines: Outlines | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A cohort, as it was found.

    Parameters
    ----------
    rows : tuple of ManifestRow
        What can be written.
    faults : tuple of str
        Why nothing is written: two labels for a case, a label that is no score. A sentence each.
    missing, doubled : tuple of str
        Cases whose slide is not there, or could be one of several; they are left out. A sentence each.
    notes : tuple of str
        What else a person should know.
    columns : Columns or None
        Of the table, and which of them were guessed.
    """

    rows: tuple[ManifestRow, ...]
    faults: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    columns: Columns | None = None

    @property
    def scored(self) -> bool:
        """Whether there is a score to learn: else it is a list of slides to score."""
        return any(row.score for row in self.rows)

    @property
    def written(self) -> tuple[ManifestRow, ...]:
        """The rows that are written: of a cohort with scores those that have one."""
        return tuple(row for row in self.rows if row.score) if self.scored else self.rows

    @property
    def guessed(self) -> bool:
        """Whether a column was taken by its name alone."""
        return self.columns is not None and any(column.guessed for column in self.columns.used)

    def in_words(self) -> str:
        """Count what there is: "360 cases: 44 of 0, 47 of 1+, 230 of 2+, 39 of 3+"."""
        rows = self.written
        cases = len({row.case_id for row in rows})
        text = counted(cases, "case")
        if len(rows) != cases:
            text += f" in {counted(len(rows), 'row')}"
        if self.scored:
            counts = Counter({row.case_id: row.score for row in rows}.values())
            return f"{text}: {', '.join(f'{counts[score]:,} of {score}' for score in SCORES)}"
        pairs = sum(row.he is not None and row.ihc is not None for row in rows)
        return f"{text} without a score of 0 to 3+: {counted(pairs, 'pair')} of H&E and IHC"


def checked(found: Found) -> Found:
    """Add what holds for all sources: one label and split a case, a slide once, parts that can be learnt."""
    faults = [*found.faults, *_two_labels(found.rows)]
    rows, doubled = _once(found.rows)
    rows, notes = _open_train(rows)
    unscored = [row for row in rows if not row.score]
    if unscored and len(unscored) < len(rows):
        named = named_few(row.case_id for row in unscored)
        notes.append(f"{counted(len(unscored), 'row')} without a score left out: {named}.")
    return replace(
        found,
        rows=tuple(rows),
        faults=tuple(faults),
        doubled=(*found.doubled, *doubled),
        notes=(*found.notes, *notes),
    )


def _two_labels(rows: Iterable[ManifestRow]) -> list[str]:
    first: dict[str, ManifestRow] = {}
    faults = []
    for row in rows:
        other = first.setdefault(row.case_id, row)
        for what in ("score", "split", "fold"):
            mine, before = getattr(row, what), getattr(other, what)
            if mine != before:
                faults.append(
                    f"{row.where}: case {shown(row.case_id, 40)} has {what} {mine or 'none'}, and "
                    f"{before or 'none'} in {other.where[:1].lower()}{other.where[1:]}: check which is right."
                )
    return faults


def _once(rows: Iterable[ManifestRow]) -> tuple[list[ManifestRow], list[str]]:
    kept, doubled = [], []
    first: dict[Path, ManifestRow] = {}
    for row in rows:
        slide = row.he or row.ihc
        if slide is None:
            continue
        other = first.setdefault(slide, row)
        if other is row:
            kept.append(row)
        else:
            doubled.append(f"{row.where}: the slide {shown(slide.name)} is that of {other.where} already.")
    return kept, doubled


def _open_train(rows: Sequence[ManifestRow]) -> tuple[list[ManifestRow], list[str]]:
    """Leave the split of training cases open where no validation is given: some must choose the epoch."""
    given = {row.split for row in rows}
    if "train" not in given or "validation" in given:
        return list(rows), []
    opened = [replace(row, split="") if row.split == "train" else row for row in rows]
    return opened, [
        "The source gives no validation cases: those to learn from have an empty split, and the "
        "configuration takes validation, or folds, from them."
    ]


def split_of(text: str) -> str | None:
    """Return a part of the cases by its name; empty for none, None where it is none that is known."""
    word = text.strip().casefold()
    return _SPLITS.get(word) if word else ""


def named_few(names: Iterable[str]) -> str:
    """Name some: "1, 2, 3 and 17 more"."""
    every = list(dict.fromkeys(names))
    text = ", ".join(shown(name, 60) for name in every[:_MOST_NAMED])
    more = len(every) - _MOST_NAMED
    return f"{text} and {more:,} more" if more > 0 else text


def by_case(rows: Iterable[ManifestRow]) -> dict[str, list[ManifestRow]]:
    """Rows of each case."""
    groups: dict[str, list[ManifestRow]] = defaultdict(list)
    for row in rows:
        groups[row.case_id].append(row)
    return groups
