"""Slides in a folder: files by their ending, and folders of DICOM files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.folder_walk import folders_below
from napari_her2.slide.names import SUFFIXES

if TYPE_CHECKING:
    from pathlib import Path

_PICTURES = frozenset({".jpg", ".jpeg", ".jpe", ".jp2", ".j2k", ".png", ".bmp", ".gif", ".webp", ".ppm"})
"""Plain pictures say no µm/px, and many lie beside slides that are none themselves."""
_DICOM = frozenset({".dcm", ".dicom", ".ima"})
_PICTURE = "a plain picture, which says no µm/px: name it in a table with its mpp"
_MOST = 100_000
_DEEPEST = 16


@dataclass(frozen=True, slots=True)
class FoundSlides:
    """What a folder holds.

    Parameters
    ----------
    slides : tuple of Path
        In the order of their names.
    left_out : tuple of (Path, str)
        What looks like a slide and is not taken, and why.
    """

    slides: tuple[Path, ...]
    left_out: tuple[tuple[Path, str], ...]


def found_slides(folder: Path, *, subfolders: bool) -> FoundSlides:
    """Find the slides in a folder.

    Parameters
    ----------
    folder : Path
        A folder of DICOM files is one slide.
    subfolders : bool

    Returns
    -------
    FoundSlides

    Raises
    ------
    JobFailed
        If it cannot be read, or holds more files than a day's list has.
    """
    slides: list[Path] = []
    left_out: list[tuple[Path, str]] = []
    seen = 0
    for place, files, depth in folders_below(folder, deepest=_DEEPEST if subfolders else 2):
        seen += len(files)
        if seen > _MOST:
            raise JobFailed(f"{folder} holds more than {_MOST:,} files: choose a folder further down.")
        if any(file.suffix.lower() in _DICOM for file in files):
            slides.append(place)
        if depth > 1 and not subfolders:
            continue  # but a folder of DICOM files, which is a slide
        for file in files:
            ending = file.suffix.lower()
            if ending in _PICTURES:
                left_out.append((file, _PICTURE))
            elif ending in SUFFIXES - _DICOM:
                slides.append(file)
    return FoundSlides(tuple(slides), tuple(left_out))


def is_slide_folder(folder: Path) -> bool:
    """Whether a folder is one slide: DICOM files lie in it, or in its only folder."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if len(inside) == 1 and inside[0].is_dir():
        inside = [path for path in inside[0].iterdir() if not path.name.startswith(".")]
    return any(path.suffix.lower() in _DICOM for path in inside if path.is_file())
