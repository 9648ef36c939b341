"""Slides by what their files hold: one that is there under two names, folders of DICOM."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import Her2Error
from napari_her2.slide.dicom import DICOM_HEAD_BYTES, is_dicom
from napari_her2.slide.identity import content_sha256
from napari_her2.slide.slide_files import slide_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MOST_FILES, _MOST_LOOKED_AT = 10_000, 50


@dataclass(frozen=True, slots=True)
class NamedSlide:
    """A slide as a row names it."""

    row: int
    case_id: str
    column: str
    path: Path


def content_faults(slides: Iterable[NamedSlide]) -> list[str]:
    """Find slides, or files of features, that are there under two names.

    Files of different sizes differ. Those of one size are read whole, for the very identity that the cache
    tells slides by: uncompressed scans can share size, header and a white edge. So a cohort of compressed
    slides costs one look into the folder, and nobody is accused of a copy that is none.

    Parameters
    ----------
    slides : iterable of NamedSlide
        Their files exist.

    Returns
    -------
    list of str
        A sentence for each, which names both rows. That one IHC slide, or a copy of it, serves several H&E
        slides of a case is no fault.
    """
    by_size: dict[int, list[NamedSlide]] = defaultdict(list)
    seen: set[Path] = set()
    for slide in slides:
        if real(slide.path) in seen:
            continue
        seen.add(real(slide.path))
        size = _size(slide.path)
        if size:
            by_size[size].append(slide)
    faults: list[tuple[int, str]] = []
    for alike in by_size.values():
        if len(alike) > 1:
            faults += _same_among(_of_one_size(alike))
    return [text for _, text in sorted(faults)]


def _same_among(alike: Sequence[NamedSlide]) -> Iterable[tuple[int, str]]:
    first: dict[str, NamedSlide] = {}
    for named in alike:
        try:
            same = first.setdefault(content_sha256(named.path), named)
        except OSError as error:
            reason = error.strerror or error
            text = f"{named.column} {named.path.name} cannot be read ({reason}): check its rights."
            yield named.row, f"Row {named.row}: {text}"
            continue
        except Her2Error as error:
            yield named.row, f"Row {named.row}: {error}"
            continue
        if same is named:
            continue
        if not (same.column == named.column == "ihc" and same.case_id == named.case_id):
            yield (
                named.row,
                f"Row {named.row}: {named.column} {named.path.name} is the same slide as {same.column} "
                f"{same.path.name} in row {same.row}, under another name.",
            )


def _size(path: Path) -> int:
    """Bytes of the file that a row names, or of those in a folder: nothing is opened."""
    files = [item for item in path.iterdir() if item.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _of_one_size(alike: Sequence[NamedSlide]) -> list[NamedSlide]:
    """Leave out the slides that no other has as many bytes as, those in further files counted."""
    sizes: dict[int, list[NamedSlide]] = defaultdict(list)
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
