"""Slides in a folder, found by the names of their cases: case, leading zeros, subfolders and stains aside."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.folder_walk import folders_below
from napari_her2.outside import expanded, is_regular, shown
from napari_her2.slide.case_names import case_of, stain_in
from napari_her2.slide.names import SUFFIXES, slide_name
from napari_her2.spreadsheets import TABLES, WORKBOOKS
from napari_her2_training.cohort.contents import holds_dicom

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from napari_her2_training.cohort.manifest import Stain

_MOST_FILES, _DEEPEST = 2_000_000, 12
_PIECES = re.compile(r"\d+|[^\W\d_]+")
_GENERIC = frozenset(
    {
        "case",
        "patient",
        "pat",
        "pt",
        "slide",
        "sample",
        "id",
        "no",
        "nr",
        "wsi",
        "image",
        "img",
        "scan",
        "ome",
    }
)
"""Words that tell no case from another."""


def key_of(name: str) -> tuple[str, ...]:
    """Return what tells a case from others in a name.

    Examples
    --------
    >>> key_of("Case_063-HER2"), key_of("63")
    (('63',), ('63',))
    """
    pieces = [piece for word in case_of(name.casefold()) for piece in _PIECES.findall(word)]
    words = [piece.lstrip("0") or "0" if piece.isdigit() else piece for piece in pieces]
    telling = tuple(word for word in words if word not in _GENERIC)
    return telling or tuple(words) or (name.casefold(),)


class SlideIndex:
    """The slides under a folder.

    Parameters
    ----------
    folder : Path
    endings : collection of str
        In lower case.

    Raises
    ------
    JobFailed
        If the folder cannot be read.
    """

    def __init__(self, folder: Path, endings: Collection[str] = SUFFIXES) -> None:
        self.folder = folder
        self.slides = tuple(files_in(folder, endings))

    @cached_property
    def _by_key(self) -> Mapping[tuple[str, ...], list[Path]]:
        found: dict[tuple[str, ...], list[Path]] = defaultdict(list)
        for path in self.slides:
            found[key_of(slide_name(path))].append(path)
        return found

    @cached_property
    def _by_name(self) -> Mapping[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in self.slides:
            found[path.name.casefold()].append(path)
        return found

    def named(self, text: str, *places: Path) -> list[Path]:
        """Find the slide that a table names: by its path, else by its name, else by what its name tells.

        Parameters
        ----------
        text : str
            A path, a name with its ending or without.
        *places : Path
            Folders that a path may be relative to, beside that of the slides.
        """
        given = expanded(text.replace("\\", "/"))
        for place in (*places, self.folder):
            path = place / given
            if "\0" not in text and (is_regular(path) or holds_dicom(path)):
                return [path]
        exact = self._by_name.get(given.name.casefold(), [])
        return exact or self._by_key.get(key_of(slide_name(given)), [])

    def of_case(self, case_id: str, stain: Stain | None = None, *, unnamed: Stain = "he") -> list[Path]:
        """Find the slides whose names tell the same case.

        Parameters
        ----------
        case_id : str
        stain : {"he", "ihc"}, optional
            By the words in the name of the file, or of a folder above.
        unnamed : {"he", "ihc"}
            Stain of slides whose names tell none.
        """
        found = self._by_key.get(key_of(case_id), [])
        return [path for path in found if stain is None or (self.stain(path) or unnamed) == stain]

    def stain(self, path: Path) -> Stain | None:
        """Return the stain that a name tells, or the nearest folder that tells one."""
        for name in (slide_name(path), *(folder.name for folder in self._folders(path))):
            word = stain_in(name)
            if word:
                return "he" if word == "H&E" else "ihc"
        return None

    def shown(self, path: Path) -> str:
        """Return a path as messages have it: from the folder on."""
        return shown(os.path.relpath(path, self.folder).replace(os.sep, "/"))

    def several(self, paths: Iterable[Path]) -> str:
        """Name several that could be meant: "a/7.svs and b/7.svs"."""
        return " and ".join(self.shown(path) for path in list(paths)[:3])

    def _folders(self, path: Path) -> Iterator[Path]:
        for folder in path.parents:
            if folder == self.folder or self.folder not in folder.parents:
                return
            yield folder


def files_in(folder: Path, endings: Collection[str]) -> Iterator[Path]:
    """Find the files under a folder by their ending, by name; hidden ones are passed over.

    Raises
    ------
    JobFailed
        If it cannot be read, or holds too many.
    """
    seen = 0
    for _, files, _ in folders_below(folder, deepest=_DEEPEST, key=natural):
        found = [path for path in files if path.suffix.lower() in endings and path.is_file()]
        seen += len(found)
        if seen > _MOST_FILES:
            raise JobFailed(f"{folder} holds more than {_MOST_FILES:,} files: choose a folder further down.")
        yield from found


def clinical_table(folder: Path) -> Path | None:
    """Find the table of the patients in a folder: the first called clinical; None where there is none."""
    tables = files_in(folder, WORKBOOKS | TABLES)
    return next((path for path in tables if "clinical" in path.stem.casefold()), None)


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Order names as a person would: 2 before 10."""
    return tuple(
        (0, int(piece), "") if piece.isdecimal() and len(piece) < 19 else (1, 0, piece)
        for piece in re.findall(r"\d+|\D+", name.casefold())
    )
