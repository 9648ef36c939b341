"""DICOM slides: many files, of which one is opened; OpenSlide finds the others of its series beside it.

Whichever file or folder is chosen, the slide is the largest VOLUME of the series, so that a slide has one
identity.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.errors import SlideError
from napari_her2.slide.files import ByteFile

if TYPE_CHECKING:
    from pathlib import Path

DICOM_HEAD_BYTES = 132
_HEADER_BYTES = 1 << 16
# Explicit-VR ImageType (0008,0008), SeriesInstanceUID (0020,000E): tag, VR, two bytes of length, the value.
_IMAGE_TYPE = re.compile(rb"\x08\x00\x08\x00CS..([A-Z0-9_\\ ]+)", re.DOTALL)
_SERIES_UID = re.compile(rb"\x20\x00\x0e\x00UI..([0-9.]+)", re.DOTALL)
_IN_WORDS = {"LABEL": "label", "OVERVIEW": "overview", "THUMBNAIL": "thumbnail", "LOCALIZER": "overview"}


@dataclass(frozen=True, slots=True)
class _Part:
    """One file of a slide: what it shows, and the series that it belongs to."""

    path: Path
    kind: str
    series: bytes
    size: int


def is_dicom(head: bytes) -> bool:
    """Whether a file with these first bytes is a DICOM file."""
    return head[128:132] == b"DICM"


def dicom_slide(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Find the file that holds the slide itself.

    Parameters
    ----------
    path : Path
        A DICOM file of a slide, or a folder of them, or the folder above.

    Returns
    -------
    path : Path
        The largest VOLUME of the series.
    notes : tuple of str
        What was chosen instead of what.

    Raises
    ------
    SlideError
        There is no slide, or there are several.
    """
    if not path.is_dir():
        return _volume_of(path)
    found = _volumes(path)
    if found:
        return _only_one(path, found), ()
    below = {folder: _volumes(folder) for folder in sorted(path.iterdir()) if folder.is_dir()}
    below = {folder: volumes for folder, volumes in below.items() if volumes}
    if not below:
        raise SlideError(
            f"The directory {path.name} holds no DICOM slide: choose another, or the files of the slides "
            f"themselves."
        )
    if len(below) > 1:
        raise SlideError(
            f"The directory {path.name} holds {len(below)} directories with slides: choose one of them "
            f"({', '.join(folder.name for folder in list(below)[:5])}{' ...' if len(below) > 5 else ''})."
        )
    ((folder, volumes),) = below.items()
    return _only_one(folder, volumes), (f"The slide lies in {folder.name}, one directory deeper.",)


def dicom_series(volume: Path) -> tuple[Path, ...]:
    """List the files of a slide: all of its series that lie in one folder, whatever they show.

    Parameters
    ----------
    volume : Path
        The file that holds the slide itself.

    Returns
    -------
    tuple of Path
        ``volume`` first.
    """
    own = _part(volume)
    beside = (entry for entry in sorted(volume.parent.iterdir()) if entry.is_file() and entry != volume)
    if own is None or not own.series:
        return (volume,)
    return (
        volume,
        *(part.path for part in map(_part, beside) if part is not None and part.series == own.series),
    )


def _volume_of(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the volume of the series that a file belongs to; the file itself where that is not known."""
    chosen = _part(path)
    if chosen is None or not chosen.kind:
        return path, ()
    same = [part for part in _volumes(path.parent) if part.series == chosen.series]
    # Of two copies it is the chosen one.
    largest = max(same, key=lambda part: (part.size, part.path == path), default=None)
    if chosen.kind == "VOLUME":
        return largest.path if largest else path, ()
    word = _IN_WORDS.get(chosen.kind, chosen.kind.lower())
    if largest is None:
        raise SlideError(
            f"{path.name} is only the {word} of a slide, and the slide does not lie beside it: open the file "
            f"of the slide itself."
        )
    return largest.path, (
        f"{path.name} is only the {word}: the slide beside it is open, {largest.path.name}.",
    )


def _only_one(folder: Path, volumes: list[_Part]) -> Path:
    series = {part.series for part in volumes if part.series}
    if len(series) > 1:
        raise SlideError(
            f"The directory {folder.name} holds {len(series)} slides: open one of its .dcm files."
        )
    return max(volumes, key=lambda part: part.size).path


def _volumes(folder: Path) -> list[_Part]:
    parts = (_part(entry) for entry in sorted(folder.iterdir()) if entry.is_file())
    return [part for part in parts if part is not None and part.kind == "VOLUME"]


def _part(path: Path) -> _Part | None:
    file = ByteFile(path)
    head = file.read_at(0, _HEADER_BYTES)
    file.close()
    if not is_dicom(head):
        return None
    stated, series = _IMAGE_TYPE.search(head), _SERIES_UID.search(head)
    values = stated.group(1).decode("ascii").strip().split("\\") if stated else []
    kind = values[2].strip() if len(values) > 2 else ""
    return _Part(path, kind, series.group(1) if series else b"", file.size)
