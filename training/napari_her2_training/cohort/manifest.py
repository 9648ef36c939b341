"""The table of cases: read from CSV, every fault named with its row."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from napari_her2.errors import JobFailed
from napari_her2.outside import MiB, Reading, expanded, is_regular, shown
from napari_her2.slide.facts import as_float, plausible_mpp
from napari_her2_training.classes import SCORE_NAMES, class_mapping
from napari_her2_training.cohort.contents import NamedSlide, content_faults, holds_dicom, real
from napari_her2_training.cohort.headless import file_of, headless_rows, table_faults, usual_name
from napari_her2_training.findings import SeveralFaults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_her2_training.classes import ClassMapping
    from napari_her2_training.cohort.headless import HeadlessRow

Stain = Literal["he", "ihc"]
STAINS: Mapping[Stain, str] = {"he": "H&E", "ihc": "IHC"}
SPLITS = ("train", "validation", "test")
"""What is learnt from, chooses the epoch, and is judged."""
CALIBRATION = "calibration"
"""What is neither: it stands behind the sets of scores and the limits of familiarity alone."""
PARTS = (*SPLITS, CALIBRATION)
_KNOWN = ("case_id", "he", "ihc", "score", "ish", "fold", "split", "mpp", "ihc_mpp")
_MOST_FAULTS = 20
_MAX_FAULT, _MOST_DIGITS = 400, 6
_TABLES = Reading(limit=64 * MiB, advice="save the table of cases anew, as CSV in UTF-8 with commas")


class ManifestFaults(SeveralFaults):
    """A manifest with faults.

    Parameters
    ----------
    name : str
        Of its file.
    faults : list of str
        A sentence each, which names the row.
    """

    def __init__(self, name: str, faults: list[str]) -> None:
        faults = [shown(fault, _MAX_FAULT) for fault in faults]
        count = len(faults)
        more = f" And {count - _MOST_FAULTS} more." if count > _MOST_FAULTS else ""
        listed = " ".join(faults[:_MOST_FAULTS])
        super().__init__(f"{name} has {count} fault{'s' if count > 1 else ''}. {listed}{more}", tuple(faults))


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the manifest: the slides of a case, or the features of their tiles, with its label.

    Parameters
    ----------
    row : int
        Line of the file, for messages.
    case_id : str
    he, ihc : Path or None
        At least one is there; H&E always, unless the manifest was read for a method that does without.
    score : str
        "0", "1+", "2+" or "3+".
    ish : str
        As it stands in the file, empty where not given.
    fold : int or None
    split : str or None
        One of `PARTS`.
    mpp, ihc_mpp : float or None
        µm per level-0 pixel of the H&E and the IHC slide, in place of what the files say or do not say.
    """

    row: int
    case_id: str
    he: Path | None
    ihc: Path | None
    score: str
    ish: str = ""
    fold: int | None = None
    split: str | None = None
    mpp: float | None = None
    ihc_mpp: float | None = None

    @property
    def where(self) -> str:
        """Row and case, as messages begin with them."""
        return f"Row {self.row} of the manifest, case {self.case_id}: "

    def slide(self, stain: Stain) -> Path:
        """Return the slide of a stain.

        Raises
        ------
        JobFailed
            Naming the row, where it has none.
        """
        path = self.he if stain == "he" else self.ihc
        if path is None:
            raise JobFailed(
                f"Row {self.row} of the manifest: case {self.case_id} has no {STAINS[stain]} slide."
            )
        return path

    def scale_of(self, path: Path | None) -> float | None:
        """Return the µm/px that the manifest gives one of its slides; None where the file is asked."""
        return self.mpp if path == self.he else self.ihc_mpp


def class_names(classes: str | ClassMapping) -> tuple[str, ...]:
    """Return the classes of a mapping, or of one given by its name, in the order of the logits."""
    return _mapping(classes).names


def label_of(case: Case, classes: str | ClassMapping) -> int:
    """Return the class number of a case."""
    return _mapping(classes).number(case.score, case.ish)


def _mapping(classes: str | ClassMapping) -> ClassMapping:
    return class_mapping(classes) if isinstance(classes, str) else classes


def read_manifest(path: Path | str, needed: Sequence[Stain] = ("he",)) -> tuple[Case, ...]:
    """Read and check a manifest.

    Parameters
    ----------
    path : Path or str
        CSV with the columns case_id, he, score and optionally ihc, ish, fold, split, mpp, ihc_mpp (µm per
        pixel of slides that say none, as plain pictures); slides relative to its folder. The column of H&E
        may be absent where IHC alone is needed. Without a header: see `napari_her2_training.cohort.headless`.
    needed : sequence of {"he", "ihc"}
        Stains that every row must have; with none, a row must have one or the other.

    Raises
    ------
    JobFailed
        Naming every faulty row, the first twenty of them.
    """
    path = expanded(path)
    bare = headless_rows(_TABLES.text(path))
    if bare:
        return _headless(path, bare, needed)
    table = _TABLES.table(path)
    columns, rows = table.columns, table.rows
    # Without a stain that is needed, one column of slides or the other will do.
    stains = needed[:1] or [stain for stain in STAINS if stain in columns] or ("he",)
    required = ("case_id", stains[0], "score")
    missing = [name for name in required if name not in columns]
    if missing:
        if len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
            raise JobFailed(
                f"{path.name} separates its columns by other marks than commas: save it with commas."
            )
        raise JobFailed(
            f"{path.name} has no column {', '.join(missing)}: it needs {', '.join(required[:-1])} and score, "
            f"and may have {', '.join(name for name in _KNOWN if name not in required)}."
        )
    if not rows:
        raise JobFailed(f"{path.name} holds no case: add a row for each.")
    faults: list[str] = []
    cases = tuple(_case(number, row, path.parent, needed, faults) for number, row in rows)
    return _without_faults(path, cases, faults)


def _headless(path: Path, rows: Sequence[HeadlessRow], needed: Sequence[Stain]) -> tuple[Case, ...]:
    """Cases of a table without a header, with the features that lie beside it."""
    faults = table_faults(rows)
    cases = []
    for row in rows:
        given = {"case_id": row.case_id, "score": row.label, "fold": row.fold}
        for stain in STAINS:
            usual = usual_name(stain, row.case_id) if stain in needed else ""
            given[stain] = file_of(path.parent, stain, row.case_id) or usual
        cases.append(_case(row.line, given, path.parent, needed, faults))
    return _without_faults(path, tuple(cases), faults)


def _without_faults(path: Path, cases: tuple[Case, ...], faults: list[str]) -> tuple[Case, ...]:
    """Return cases that have no fault, by themselves or between them."""
    faults += _faults_between(cases)
    if not faults:
        faults += content_faults(named_slides(cases))
    if faults:
        raise ManifestFaults(path.name, faults)
    return cases


def in_cases(cases: Sequence[Case]) -> list[tuple[Case, ...]]:
    """Put the rows of a case together, in the order of the first row of each."""
    rows: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        rows[case.case_id].append(case)
    return [tuple(own) for own in rows.values()]


def named_slides(cases: Sequence[Case]) -> Iterator[NamedSlide]:
    """Name the slides of cases by their row and column."""
    for case in cases:
        for column, path in (("he", case.he), ("ihc", case.ihc)):
            if path is not None:
                yield NamedSlide(case.row, case.case_id, column, path)


def _case(
    number: int,
    row: Mapping[Any, Any],
    folder: Path,
    needed: Sequence[Stain],
    faults: list[str],
) -> Case:
    def report(fault: str) -> None:
        faults.append(f"Row {number}: {fault}.")

    values = {key: value.strip() for key, value in row.items() if isinstance(value, str) and key}
    if None in row:
        report("more values than columns")
    case_id, score = values.get("case_id", ""), values.get("score", "")
    if not case_id:
        report("no case_id")
    if score not in SCORE_NAMES:
        report(f"score {score!r:.40} is none of 0, 1+, 2+, 3+")
    he, ihc = (_slide(values.get(stain, ""), stain, folder, stain in needed, report) for stain in STAINS)
    if not needed and not any(values.get(stain) for stain in STAINS):
        report("neither he nor ihc")
    if he is not None and ihc is not None and real(he) == real(ihc):
        report(f"he and ihc are the same file, {he.name}")
    split, fold = values.get("split") or None, values.get("fold") or None
    if split is not None and split not in PARTS:
        report(f"split {split!r:.40} is none of {', '.join(PARTS)}")
    if fold is not None and not (fold.isdecimal() and len(fold) <= _MOST_DIGITS):
        report(f"fold {fold!r:.40} is not a whole number")
        fold = None
    mpp, ihc_mpp = (_scale(values.get(name, ""), name, report) for name in ("mpp", "ihc_mpp"))
    return Case(
        number, case_id, he, ihc, SCORE_NAMES.get(score, "0"), values.get("ish", ""),
        None if fold is None else int(fold), split, mpp, ihc_mpp,
    )  # fmt: skip


def _scale(value: str, column: str, report: Callable[[str], None]) -> float | None:
    if not value:
        return None
    given = as_float(value)
    if given is None or not plausible_mpp((given, given)):
        report(f"{column} {value!r:.40} is no µm/px of a slide, such as 0.25")
        return None
    return given


def _slide(
    value: str, column: Stain, folder: Path, needed: bool, report: Callable[[str], None]
) -> Path | None:
    if not value:
        if needed:
            report(f"no {column}")
        return None
    path = folder / expanded(value)
    name = shown(value)
    if is_regular(path) or holds_dicom(path):
        return path
    if path.suffix.lower() == ".zarr":
        report(f"{column} {name} is a zarr store, which is not read: export its features as HDF5")
    elif not os.path.lexists(path):
        report(f"{column} {name} does not exist")
    elif path.is_dir():
        report(f"{column} {name} is a folder without DICOM files: name the slide itself")
    else:
        report(f"{column} {name} is no file that can be read")
    return None


def _faults_between(cases: Sequence[Case]) -> list[str]:
    faults: list[str] = []
    by_case: dict[str, list[Case]] = defaultdict(list)
    by_slide: dict[Path, Case] = {}
    for case in cases:
        by_case[case.case_id].append(case)
        if case.he is not None:
            first = by_slide.setdefault(real(case.he), case)
            if first is not case:
                faults.append(f"Row {case.row}: the slide {case.he.name} is in row {first.row} already.")
        if case.ihc is not None:
            # Of one case it may serve several H&E slides.
            first = by_slide.setdefault(real(case.ihc), case)
            if first.case_id != case.case_id:
                faults.append(
                    f"Row {case.row}: the slide {case.ihc.name} is that of case {first.case_id} in row "
                    f"{first.row} already."
                )
    for group in by_case.values():
        first = group[0]
        for case in group[1:]:
            for what in ("score", "split", "fold"):
                mine, other = getattr(case, what), getattr(first, what)
                if mine != other:
                    faults.append(
                        f"Row {case.row}: case {case.case_id} has {what} {mine}, in row {first.row} {other}."
                    )
    return faults
