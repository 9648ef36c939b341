"""Which files a slide is made of: one as a rule, with some formats an index and the files it names.

No pixel is read. Names in an index that lead out of the folder of the slide are left out: no reader of ours
follows them either.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import SlideError
from napari_her2.slide.dicom import DICOM_HEAD_BYTES, dicom_series, dicom_slide, is_dicom
from napari_her2.slide.files import ByteFile
from napari_her2.slide.tiff_chain import DESCRIPTION, read_headers

if TYPE_CHECKING:
    from collections.abc import Iterable

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_INDEX_BYTES = 1 << 20
_MOST_BELOW, _DEEPEST = 10_000, 4
"""Files and folders in the folder of a slide, all together, and its depth: MIRAX writes some hundred files
and no folder, Olympus two folders deep."""
_OME_FILE = re.compile(rb"""(?:FileName|MetadataFile)\s*=\s*["']([^"']+)["']""")


@dataclass(frozen=True, slots=True)
class SlidePart:
    """One file of a slide.

    Parameters
    ----------
    path : Path
    label : str
        What tells it from the other files of the slide; empty for the only or first one, and where the file
        itself says what it is (DICOM). A slide that is renamed as a whole keeps its labels.
    """

    path: Path
    label: str = ""


def slide_parts(path: Path) -> tuple[SlidePart, ...]:
    """List the files of a slide.

    Parameters
    ----------
    path : Path
        A slide file, or a directory of DICOM files.

    Returns
    -------
    tuple of SlidePart
        The one that is opened first.

    Raises
    ------
    SlideError
        It is a directory that holds no DICOM slide, or several; or the folder of its further files holds more
        than those of a slide.
    OSError
        It cannot be read.
    """
    if path.is_dir():
        return tuple(SlidePart(file) for file in dicom_series(dicom_slide(path)[0]))
    suffix = path.suffix.lower()
    if suffix == ".mrxs":
        return (SlidePart(path), *_below(path, path.with_suffix("")))
    if suffix == ".vsi":
        return (SlidePart(path), *_below(path, path.with_name(f"_{path.stem}_")))
    if suffix in (".vms", ".vmu"):
        return (SlidePart(path), *_named(path, _hamamatsu_names(path)))
    file = ByteFile(path)
    try:
        head = file.read_at(0, DICOM_HEAD_BYTES)
        names = _ome_names(file) if head.startswith(TIFF_MAGIC) else []
    finally:
        file.close()
    if is_dicom(head):
        return tuple(SlidePart(part) for part in dicom_series(dicom_slide(path)[0]))
    return (SlidePart(path), *_named(path, names))


def _below(index: Path, folder: Path) -> list[SlidePart]:
    """Every file in the folder that belongs to an index; links to folders are not followed."""
    if not folder.is_dir():
        return []
    files: list[Path] = []
    places, seen = [(folder, 1)], 0
    for place, depth in places:
        with os.scandir(place) as entries:
            for entry in entries:
                seen += 1
                deeper = entry.is_dir(follow_symlinks=False)
                if seen > _MOST_BELOW or (deeper and depth == _DEEPEST):
                    raise SlideError(
                        f"The folder {folder.name} beside {index.name} is no folder of a slide: it holds "
                        f"more than {_MOST_BELOW:,} files, or folders more than {_DEEPEST} deep; keep the "
                        f"files of the slide alone in it."
                    )
                if deeper:
                    places.append((Path(entry.path), depth + 1))
                elif entry.is_file():
                    files.append(Path(entry.path))
    return [SlidePart(file, file.relative_to(folder).as_posix()) for file in sorted(files)]


def _named(index: Path, names: Iterable[str]) -> list[SlidePart]:
    """Files beside an index that it names and that are there."""
    parts = []
    for name in sorted(set(names)):
        if name == index.name or name in ("", ".", "..") or any(mark in name for mark in "/\\\0"):
            continue
        file = index.with_name(name)
        try:
            if file.is_file() and not file.samefile(index):
                parts.append(SlidePart(file, name))
        except OSError:  # a name that no file can have
            continue
    return parts


def _hamamatsu_names(index: Path) -> list[str]:
    """Values of the "key=value" lines of a .vms or .vmu file: those that are no file names do no harm."""
    file = ByteFile(index)
    try:
        text = file.read_at(0, _INDEX_BYTES)
    finally:
        file.close()
    lines = text.decode("utf-8", errors="replace").splitlines()
    return [line.partition("=")[2].strip() for line in lines if "=" in line]


def _ome_names(file: ByteFile) -> list[str]:
    """Names of files in the OME-XML of a TIFF, none in any other TIFF."""
    directories = read_headers(file).directories
    text = directories[0].texts.get(DESCRIPTION, b"") if directories else b""
    if b"<OME" not in text:
        return []
    return [name.decode("utf-8", errors="replace") for name in _OME_FILE.findall(text)]
