"""Slides that belong to one case, by their names: the words in them, or patterns of the user's own."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.cohort.entry import Entry
from napari_her2.errors import JobFailed
from napari_her2.slide.case_names import case_of, stain_in
from napari_her2.slide.names import slide_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_HE, _IHC = "H&E", "IHC"


@dataclass(frozen=True, slots=True)
class NamePatterns:
    """How the names of files look: "*_HE.svs" and "*_HER2.svs".

    Parameters
    ----------
    he, ihc : str
        With ``*`` for any text and ``?`` for a character; upper and lower case are the same. What stands for
        the ``*`` is the same in both slides of a case. An empty pattern fits no slide.
    """

    he: str = ""
    ihc: str = ""

    def __post_init__(self) -> None:
        for pattern in (self.he, self.ihc):
            if pattern and "*" not in pattern:
                raise JobFailed(
                    f"The pattern {pattern} has no *: put one where the name of the case stands (*_HE.svs)."
                )
        if self.he and self.he.lower() == self.ihc.lower():
            raise JobFailed("Both patterns are the same: give the H&E and the IHC slides one each.")

    def __bool__(self) -> bool:
        return bool(self.he or self.ihc)

    def match(self, name: str) -> tuple[str, tuple[str, ...]] | None:
        """Return the stain of a file and what stands for each ``*``; None where no pattern fits.

        Where both fit, the one with more letters of its own counts.
        """
        known = sorted(((self.he, _HE), (self.ihc, _IHC)), key=lambda pair: -len(pair[0].replace("*", "")))
        for pattern, stain in known:
            found = _expression(pattern).fullmatch(name) if pattern else None
            if found is not None:
                return stain, tuple(text.casefold() for text in found.groups())
        return None


@dataclass(frozen=True, slots=True)
class PairedSlides:
    """What came of pairing.

    Parameters
    ----------
    entries : tuple of Entry
    left_out : tuple of (Path, str)
        Files whose names fit no pattern.
    """

    entries: tuple[Entry, ...]
    left_out: tuple[tuple[Path, str], ...]


@dataclass(frozen=True, slots=True)
class _Named:
    """A file, and what its name tells: stain, case, and what the case is called."""

    path: Path
    stain: str
    case: tuple[object, ...]
    title: str


def paired(slides: Sequence[Path], patterns: NamePatterns | None = None) -> PairedSlides:
    """Put the slides of a case together.

    Two slides are a case where exactly one is an IHC slide, exactly one another is not, and the rest of their
    names is the same. A stain may also be named by the folder: HE/7.svs and IHC/7.svs.

    Parameters
    ----------
    slides : sequence of Path
    patterns : NamePatterns, optional

    Returns
    -------
    PairedSlides
        In the order of the first slide of each case.
    """
    groups: dict[tuple[object, ...], list[_Named]] = defaultdict(list)
    left_out = []
    for path in slides:
        named = _by_words(path) if not patterns else _by_pattern(path, patterns)
        if named is None:
            left_out.append((path, "its name fits neither pattern"))
        else:
            groups[named.case].append(named)
    because = "pattern" if patterns else "names"
    entries = [entry for group in groups.values() for entry in _of_case(group, because)]
    return PairedSlides(tuple(entries), tuple(left_out))


def _by_pattern(path: Path, patterns: NamePatterns) -> _Named | None:
    found = patterns.match(path.name)
    if found is None:
        return None
    stain, parts = found
    title = " ".join(part for part in parts if part) or slide_name(path)
    return _Named(path, stain, (_folder_words(path), *parts), title)


def _by_words(path: Path) -> _Named:
    name = slide_name(path)
    words = case_of(name)
    stain = stain_in(name) or stain_in(path.parent.name)
    # A file that is called after its stain alone is of the case of its folder.
    title = _without_stain(name) if words else path.parent.name
    return _Named(path, stain, (_folder_words(path), *words), title or name)


def _folder_words(path: Path) -> tuple[object, ...]:
    """Folder of a file; of one that is named after a stain, the folder above and what else its name says."""
    folder = path.absolute().parent
    if stain_in(folder.name):
        return (folder.parent, *case_of(folder.name))
    return (folder,)


def _without_stain(name: str) -> str:
    """Return a name as it is written, without the words of a stain and what joined them."""
    kept = set(case_of(name))
    parts = re.split(r"([^\w&]+|_)", name)
    words = [
        part if not re.fullmatch(r"[^\W_]+(?:&[^\W_]+)?", part) or part.lower() in kept else ""
        for part in parts
    ]
    text = "".join(words)
    return re.sub(r"([-_ .])[-_ .]+", r"\1", text).strip("-_ .")


def _of_case(group: Iterable[_Named], because: str) -> list[Entry]:
    group = list(group)
    ihc = [named for named in group if named.stain == _IHC]
    others = [named for named in group if named.stain != _IHC]
    if len(ihc) == len(others) == 1:
        return [Entry(others[0].title, others[0].path, ihc[0].path, because=because)]
    note = ""
    if ihc and others:
        note = f"not paired: {len(others)} H&E and {len(ihc)} IHC slides have this name; pair them in a table"
    entries = []
    for named in group:
        name = named.title if len(group) == 1 else slide_name(named.path)
        if named.stain == _IHC:
            entries.append(Entry(name, None, named.path, note=note))
        else:
            entries.append(Entry(name, named.path, stain_known=named.stain == _HE, note=note))
    return entries


def _expression(pattern: str) -> re.Pattern[str]:
    marks = {"*": "(.*)", "?": "."}
    text = "".join(marks.get(mark) or re.escape(mark) for mark in re.sub(r"\*+", "*", pattern))
    return re.compile(text, re.IGNORECASE | re.DOTALL)
