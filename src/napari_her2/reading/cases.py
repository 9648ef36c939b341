"""The cases of a study from a folder, files or a table, as a day's list finds and pairs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.cohort.day_list import entries_of
from napari_her2.errors import JobFailed
from napari_her2.outside import shown
from napari_her2.reading.worklist import TITLE_MOST, StudyCase, StudySlide

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_her2.cohort.day_list import NamePatterns
    from napari_her2.cohort.entry import Entry

_ROOM = 12  # characters of a name for what tells it from another


@dataclass(frozen=True, slots=True)
class CasesFound:
    """Cases, and what should be known of them.

    Parameters
    ----------
    cases : tuple of StudyCase
    notes : tuple of str
        Files that are not there yet, rows and files that were left out, a sentence each.
    """

    cases: tuple[StudyCase, ...]
    notes: tuple[str, ...] = ()


def cases_of(source: Path | Sequence[Path], patterns: NamePatterns | None = None) -> CasesFound:
    """Return the cases of a folder, of files, or of a table; see `napari_her2.cohort.day_list.entries_of`.

    A slide that is not there is taken in, for a disk may come back: the reader who meets it skips it. Two
    cases of one name are told apart by their folders.

    Parameters
    ----------
    source : Path or sequence of Path
    patterns : NamePatterns, optional

    Returns
    -------
    CasesFound

    Raises
    ------
    JobFailed
        If there is no slide at all, or a table or folder cannot be read.
    """
    found = entries_of(source, patterns)
    cases: list[StudyCase] = []
    notes: list[str] = []
    taken: set[str] = set()
    known: set[tuple[Path, ...]] = set()
    for entry in found.entries:
        if not entry.slides or entry.slides in known:
            notes.append(f"{shown(entry.name)} is left out: {entry.problem or 'its slides are there twice'}")
            continue
        known.add(entry.slides)
        missing = [path for path in entry.slides if not path.exists()]
        if missing:
            notes.append(f"{missing[0]} is not there now: it is skipped if it is not there when it is read.")
        name = _own_name(entry, taken)
        taken.add(name.casefold())
        cases.append(StudyCase(name, _slides(entry)))
    notes += [f"{path} is left out: {why}." for path, why in found.left_out]
    if not any(slide.path.exists() for case in cases for slide in case.slides):
        first = notes[0].split(": ")[0] if notes else "No slide was found"
        raise JobFailed(f"No slide can be read there ({first}): choose others, or check the paths.")
    return CasesFound(tuple(cases), tuple(notes))


def _slides(entry: Entry) -> tuple[StudySlide, ...]:
    stain = "H&E" if entry.stain_known else ""
    given = ((entry.he, stain, entry.mpp), (entry.ihc, "IHC", entry.ihc_mpp))
    return tuple(StudySlide(path.absolute(), of, mpp) for path, of, mpp in given if path is not None)


def _own_name(entry: Entry, taken: set[str]) -> str:
    """Name a case as nobody else is named, in visible characters."""
    name = shown(" ".join(entry.name.split()) or entry.slides[0].name, TITLE_MOST - _ROOM)
    if name.casefold() not in taken:
        return name
    beside = f"{name} ({shown(entry.slides[0].parent.name, 60)})"[: TITLE_MOST - _ROOM]
    numbered = beside
    number = 1
    while numbered.casefold() in taken:
        number += 1
        numbered = f"{beside} {number}"
    return numbered
