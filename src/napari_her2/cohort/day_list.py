"""The cases of a day, from a folder, files or a table: what was paired and why, before anything runs."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path  # noqa: TC003 - dataclass
from typing import TYPE_CHECKING

from napari_her2.cohort.day_files import found_slides
from napari_her2.cohort.day_pairs import NamePatterns, paired
from napari_her2.cohort.day_sheet import sheet_entries
from napari_her2.cohort.entry import Entry
from napari_her2.errors import JobFailed, SlideError
from napari_her2.number_words import counted
from napari_her2.outside import expanded
from napari_her2.slide.names import slide_name
from napari_her2.spreadsheets import is_table
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from napari_her2.slide.reader import Slide

__all__ = ["DayList", "Entry", "NamePatterns", "entries_of", "entries_steps"]


@dataclass(frozen=True, slots=True)
class DayList:
    """What would be scored.

    Parameters
    ----------
    entries : tuple of Entry
        A case each, those with a problem among them.
    left_out : tuple of (Path, str)
        Files that are no part of it, and why: the same file twice, a name that fits no pattern.
    """

    entries: tuple[Entry, ...]
    left_out: tuple[tuple[Path, str], ...] = ()

    def in_words(self) -> str:
        """Count what there is: "80 cases: 78 pairs, 1 single slide, 1 refused"; rows of one case as one."""
        fine = [entry for entry in self.entries if not entry.problem]
        pairs = sum(len(entry.slides) == 2 for entry in fine)
        counts = ((pairs, "pair"), (len(fine) - pairs, "single slide"))
        parts = [counted(count, name) for count, name in counts if count]
        if refused := len(self.entries) - len(fine):
            parts.append(f"{refused:,} refused")
        if self.left_out:
            parts.append(f"{counted(len(self.left_out), 'file')} left out")
        named = [entry.case_id for entry in self.entries if entry.case_id]
        several = len(named) - len(set(named))
        cases = counted(len(self.entries) - several, "case")
        rows = f" in {len(self.entries):,} rows" if several else ""
        return f"{cases}{rows}: {', '.join(parts)}" if parts else "no slides"


def entries_of(
    source: Path | str | Sequence[Path | str],
    patterns: NamePatterns | None = None,
    *,
    subfolders: bool = True,
    mpp: float | None = None,
    ihc_mpp: float | None = None,
) -> DayList:
    """Put a list together, without a look into the slides.

    Parameters
    ----------
    source : path, or sequence of path
        A folder, with its subfolders or without; a table (CSV or XLSX, see `napari_her2.cohort.day_sheet`);
        or files, folders and tables together.
    patterns : NamePatterns, optional
        How the names of H&E and IHC slides look; by default the words in them tell it.
    subfolders : bool
        Whether what lies in subfolders belongs to it. Hidden folders, and links to folders, never do.
    mpp, ihc_mpp : float, optional
        µm per level-0 pixel of all slides of which a table says none.

    Returns
    -------
    DayList
        In the order of a table, else of the names.

    Raises
    ------
    JobFailed
        If there is no slide at all, or a table or folder cannot be read.
    """
    given = [source] if isinstance(source, str | os.PathLike) else list(source)
    listed: list[Entry] = []
    loose: list[Path] = []
    left_out: list[tuple[Path, str]] = []
    for path in (expanded(item) for item in given):
        if is_table(path) and not path.is_dir():
            listed += sheet_entries(path)
        elif path.is_dir():
            found = found_slides(path, subfolders=subfolders)
            loose += found.slides
            left_out += found.left_out
        else:
            loose.append(path)
    unique, twice = _once(loose, [path for entry in listed for path in entry.slides])
    matched = paired(unique, patterns)
    entries = [_scaled(entry, mpp, ihc_mpp) for entry in _checked([*listed, *matched.entries])]
    if not entries:
        where = ", ".join(str(item) for item in given[:3])
        raise JobFailed(f"{where or 'The list'} holds no slide: choose a folder, slide files or a table.")
    return DayList(_in_own_places(entries), (*left_out, *twice, *matched.left_out))


def entries_steps(
    source: Path | str | Sequence[Path | str],
    patterns: NamePatterns | None = None,
    *,
    subfolders: bool = True,
    mpp: float | None = None,
    ihc_mpp: float | None = None,
    known_scale: Callable[[Slide], tuple[float, str] | None] | None = None,
) -> Generator[Progress, None, DayList]:
    """Put a list together as `entries_of`, and open every slide once: what is none is refused in words.

    Parameters
    ----------
    source, patterns, subfolders, mpp, ihc_mpp
        As of `entries_of`.
    known_scale : callable, optional
        Returns the µm/px that somebody gave for a slide before, and how it is known; it goes before what the
        file states, and behind what a table gives.

    Yields
    ------
    Progress

    Returns
    -------
    DayList

    Raises
    ------
    JobFailed
        As for `entries_of`.
    """
    yield Progress("Looking for slides")
    found = entries_of(source, patterns, subfolders=subfolders, mpp=mpp, ihc_mpp=ihc_mpp)
    looked_at = []
    for done, entry in enumerate(found.entries):
        yield Progress("Opening slides", done, len(found.entries), "cases", entry.name)
        looked_at.append(entry if entry.problem else _looked_at(entry, known_scale))
    return replace(found, entries=tuple(looked_at))


def _once(loose: Iterable[Path], listed: Iterable[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Files without those that are there already, by another name or path."""
    known = {os.path.realpath(path): path for path in listed}
    unique, twice = [], []
    for path in loose:
        real = os.path.realpath(path)
        if real in known:
            twice.append((path, f"the same file as {known[real]}"))
        else:
            known[real] = path
            unique.append(path)
    return unique, twice


def _checked(entries: Iterable[Entry]) -> list[Entry]:
    """Refuse entries whose files are missing, or that another entry is already."""
    seen: dict[tuple[str, ...], str] = {}
    checked = []
    for entry in entries:
        key = tuple(os.path.realpath(path) for path in entry.slides)
        missing = next((path for path in entry.files if not path.exists()), None)
        if entry.problem:
            problem = entry.problem
        elif missing is not None:
            problem = f"There is no file {missing}: check the path."
        elif key in seen:
            problem = f"The case {seen[key]} has the same slides: take one of the two rows out."
        else:
            problem = ""
            seen[key] = entry.name
        checked.append(replace(entry, problem=problem))
    return checked


def _scaled(entry: Entry, mpp: float | None, ihc_mpp: float | None) -> Entry:
    return replace(entry, mpp=entry.mpp or mpp, ihc_mpp=entry.ihc_mpp or ihc_mpp)


def _in_own_places(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Give slides of one name a folder each for their results: none may take the place of another's."""
    names = Counter(slide_name(path).casefold() for entry in entries for path in entry.slides)
    taken = set(names)
    placed = []
    for entry in entries:
        double = next((path for path in entry.slides if names[slide_name(path).casefold()] > 1), None)
        if double is None:
            placed.append(entry)
            continue
        folder = f"{slide_name(double)} ({double.parent.name[:60]})"
        number = 1
        while folder.casefold() in taken:
            number += 1
            folder = f"{slide_name(double)} ({double.parent.name[:60]} {number})"
        taken.add(folder.casefold())
        words = f"another slide is called {slide_name(double)}: its result goes to the folder {folder}"
        placed.append(replace(entry, place=folder, note=entry.with_note(words)))
    return tuple(placed)


def _looked_at(entry: Entry, known_scale: Callable[[Slide], tuple[float, str] | None] | None = None) -> Entry:
    """Open the slides of an entry: what they lack is its problem, what they warn of a note."""
    from napari_her2.slide.reader import open_slide

    notes = []
    for path, mpp in zip(entry.slides, entry.scales, strict=True):
        try:
            with open_slide(path, mpp=mpp) as slide:
                notes += [f"{path.name}: {text}" for text in slide.warnings]
                known = known_scale(slide) if known_scale is not None and mpp is None else None
                if known is not None:
                    entry = _with_scale(entry, path, *known)
                    notes.append(f"{path.name}: {known[0]:.4g} µm/px, {known[1]}")
                elif slide.mpp is None:
                    reason = (
                        f"{path.name} states no µm/px: give it in a table with the columns he, ihc, mpp and "
                        f"ihc_mpp."
                    )
                    return replace(entry, problem=reason)
        except SlideError as error:
            return replace(entry, problem=str(error))
    return replace(entry, note=entry.with_note(*notes))


def _with_scale(entry: Entry, path: Path, mpp: float, source: str) -> Entry:
    if path == entry.he:
        return replace(entry, mpp=mpp, mpp_source=source)
    return replace(entry, ihc_mpp=mpp, ihc_mpp_source=source)
