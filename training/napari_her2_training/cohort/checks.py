"""Faults of a cohort that no single row shows: one slide under two names, classes that a fold lacks.

What costs next to nothing is checked whenever a manifest is read. What needs the slides open (tissue, numbers
of tiles) is checked by the dry run, and by the training just before it learns.
"""

from __future__ import annotations

import filecmp
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.models.class_scores import EQUIVOCAL, POSITIVE
from napari_her2.slide.files import fingerprint
from napari_her2_training.classes import ish_positive

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from napari_her2_training.classes import ClassMapping
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.cohort.splits import Split

_STAINS = ("he", "ihc")
_MIRAX = ".mrxs"


@dataclass(frozen=True, slots=True)
class _Named:
    """A slide as a row names it."""

    case: Case
    column: str
    path: Path


def content_faults(cases: Sequence[Case]) -> list[str]:
    """Find slides, or files of features, that are there under two names.

    Files of different sizes differ. Of those of one size the first and the last MiB are compared, by the
    very fingerprint that the cache tells slides by; only where these agree too are the files read whole,
    since uncompressed scans can share size, header and a white edge. So a cohort of compressed slides costs
    one look into the folder, and nobody is accused of a copy that is none.

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
            if path is None or path.resolve() in seen:
                continue
            seen.add(path.resolve())
            size = sum(part.stat().st_size for part in _parts(path))
            if size:
                by_size[size].append(_Named(case, column, path))
    faults: list[tuple[int, str]] = []
    for alike in by_size.values():
        if len(alike) > 1:
            faults += _same_among(alike)
    return [text for _, text in sorted(faults)]


def _same_among(alike: Sequence[_Named]) -> Iterable[tuple[int, str]]:
    first: dict[tuple[str, ...], list[_Named]] = defaultdict(list)
    for named in alike:
        try:
            prints = tuple(sorted(fingerprint(part) for part in _parts(named.path)))
            same = next((other for other in first[prints] if _equal(other.path, named.path)), None)
        except OSError as error:
            reason = error.strerror or error
            text = f"{named.column} {named.path.name} cannot be read ({reason}): check its rights."
            yield named.case.row, f"Row {named.case.row}: {text}"
            continue
        if same is None:
            first[prints].append(named)
        elif not (same.column == named.column == "ihc" and same.case.case_id == named.case.case_id):
            yield (
                named.case.row,
                f"Row {named.case.row}: {named.column} {named.path.name} is the same slide as {same.column} "
                f"{same.path.name} in row {same.case.row}, under another name.",
            )


def _parts(path: Path) -> list[Path]:
    """Return the files of a slide: a folder of DICOM, or a MIRAX file with the folder beside it."""
    folder = path.with_suffix("") if path.suffix.lower() == _MIRAX else path
    inside = sorted(item for item in folder.rglob("*") if item.is_file()) if folder.is_dir() else []
    return inside if path.is_dir() else [path, *inside]


def _equal(one: Path, other: Path) -> bool:
    pairs = zip(sorted(_parts(one), key=fingerprint), sorted(_parts(other), key=fingerprint), strict=False)
    return all(filecmp.cmp(mine, theirs, shallow=False) for mine, theirs in pairs)


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
