"""Faults of a cohort that no single row shows: one slide under two names, classes that a fold lacks.

What costs next to nothing is checked whenever a manifest is read. What needs the slides open (tissue, numbers
of tiles) is checked by the dry run, and by the training just before it learns.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import Her2Error, JobFailed
from napari_her2.models.class_scores import EQUIVOCAL, POSITIVE
from napari_her2.slide.dicom import DICOM_HEAD_BYTES, is_dicom
from napari_her2.slide.identity import content_sha256
from napari_her2.slide.slide_files import slide_parts
from napari_her2_training.classes import ish_positive

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_her2_training.classes import ClassMapping
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.cohort.splits import Split

_STAINS = ("he", "ihc")
_MOST_FILES, _MOST_LOOKED_AT = 10_000, 50


@dataclass(frozen=True, slots=True)
class _Named:
    """A slide as a row names it."""

    case: Case
    column: str
    path: Path


def content_faults(cases: Sequence[Case]) -> list[str]:
    """Find slides, or files of features, that are there under two names.

    Files of different sizes differ. Those of one size are read whole, for the very identity that the cache
    tells slides by: uncompressed scans can share size, header and a white edge. So a cohort of compressed
    slides costs one look into the folder, and nobody is accused of a copy that is none.

    Parameters
    ----------
    cases : sequence of Case
        Their files exist.

    Returns
    -------
    list of str
        A sentence for each, which names both rows. That one IHC slide, or a copy of it, serves several H&E
        slides of a case is no fault.
    """
    by_size: dict[int, list[_Named]] = defaultdict(list)
    seen: set[Path] = set()
    for case in cases:
        for column in _STAINS:
            path: Path | None = getattr(case, column)
            if path is None or real(path) in seen:
                continue
            seen.add(real(path))
            size = _size(path)
            if size:
                by_size[size].append(_Named(case, column, path))
    faults: list[tuple[int, str]] = []
    for alike in by_size.values():
        if len(alike) > 1:
            faults += _same_among(_of_one_size(alike))
    return [text for _, text in sorted(faults)]


def _same_among(alike: Sequence[_Named]) -> Iterable[tuple[int, str]]:
    first: dict[str, _Named] = {}
    for named in alike:
        try:
            same = first.setdefault(content_sha256(named.path), named)
        except OSError as error:
            reason = error.strerror or error
            text = f"{named.column} {named.path.name} cannot be read ({reason}): check its rights."
            yield named.case.row, f"Row {named.case.row}: {text}"
            continue
        except Her2Error as error:
            yield named.case.row, f"Row {named.case.row}: {error}"
            continue
        if same is named:
            continue
        if not (same.column == named.column == "ihc" and same.case.case_id == named.case.case_id):
            yield (
                named.case.row,
                f"Row {named.case.row}: {named.column} {named.path.name} is the same slide as {same.column} "
                f"{same.path.name} in row {same.case.row}, under another name.",
            )


def _size(path: Path) -> int:
    """Bytes of the file that a row names, or of those in a folder: nothing is opened."""
    files = [item for item in path.iterdir() if item.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _of_one_size(alike: Sequence[_Named]) -> list[_Named]:
    """Leave out the slides that no other has as many bytes as, those in further files counted."""
    sizes: dict[int, list[_Named]] = defaultdict(list)
    unreadable = []
    for named in alike:
        try:
            size = sum(part.path.stat().st_size for part in slide_parts(named.path))
        except (Her2Error, OSError):
            unreadable.append(named)  # reading it whole will tell why
        else:
            sizes[size].append(named)
    return [*unreadable, *(named for same in sizes.values() if len(same) > 1 for named in same)]


def holds_dicom(folder: Path) -> bool:
    """Whether a folder, or one right in it, holds files of DICOM."""
    return any(_is_dicom(path) for path in _files_in(folder)[:_MOST_LOOKED_AT])


def _files_in(folder: Path) -> list[Path]:
    """Files of a folder, and of the folders right in it: no slide lies deeper, and a home folder is deep."""
    found: list[Path] = []
    folders = [folder]
    for place in folders:
        try:
            with os.scandir(place) as entries:
                for entry in islice(entries, _MOST_FILES):
                    if entry.is_file():
                        found.append(Path(entry.path))
                    elif place is folder and entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
        except OSError:  # no folder, or one that may not be looked into
            continue
        if len(found) > _MOST_FILES:
            break
    return sorted(found)


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(DICOM_HEAD_BYTES))
    except OSError:
        return False


def real(path: Path) -> Path:
    """Return a path without links, also where there is nothing or the links go round in a circle."""
    return Path(os.path.realpath(path))


def ish_warnings(cases: Sequence[Case]) -> list[str]:
    """Say where the result of ISH is hard to bring together with the score, or with another row.

    It is no fault: classes rest on ISH only where the configuration says so, and then it is checked strictly.

    Returns
    -------
    list of str
        A sentence for each, which names the row.
    """
    found: list[str] = []
    first: dict[str, tuple[Case, bool | None]] = {}
    for case in cases:
        try:
            positive = ish_positive(case.ish)
        except JobFailed as error:
            found.append(f"Row {case.row}: {error}")
            continue
        before, known = first.setdefault(case.case_id, (case, positive))
        if positive != known:
            found.append(
                f"Row {case.row}: case {case.case_id} has ish {case.ish!r}, in row {before.row} "
                f"{before.ish!r}: check which is right."
            )
        if positive is None or case.score == EQUIVOCAL or positive == (case.score == POSITIVE):
            continue
        found.append(
            f"Row {case.row}: case {case.case_id} has score {case.score} and a "
            f"{'positive' if positive else 'negative'} ISH: it happens, but check the row."
        )
    return found


def split_warnings(cases: Sequence[Case], splits: Sequence[Split], mapping: ClassMapping) -> list[str]:
    """Say which rows a run leaves out, and which labels rest on an ISH that nobody did.

    Parameters
    ----------
    cases : sequence of Case
        Of the manifest.
    splits : sequence of Split
    mapping : ClassMapping

    Returns
    -------
    list of str
    """
    found: list[str] = []
    rows = {
        case.row for split in splits for part in (split.train, split.validation, split.test) for case in part
    }
    unused = len(cases) - len(rows)
    if unused:
        found.append(
            f"{unused} of {len(cases)} rows are in no part and are not used: their column split is empty."
        )
    if mapping.ish:
        used = {case.case_id: case for case in cases if case.row in rows and case.score == EQUIVOCAL}
        unknown = sum(ish_positive(case.ish) is None for case in used.values())
        if unknown:
            found.append(
                f"{unknown} of {len(used)} cases of 2+ have no ISH result: they are learnt as "
                f"{mapping.of_score[EQUIVOCAL]}."
            )
    return found
