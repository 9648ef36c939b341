"""The files of a result: what they are called, whose they are, and what they say when they are read."""

from __future__ import annotations

import json
import os
import re
import stat
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed
from napari_her2.export.atomic import put_back
from napari_her2.models.card import STAINS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_her2.export.request import Request

RESULT_FILE = "result.json"
TILES_FILE = "tiles.csv"
MAPS_FILE = "maps.npz"
REGIONS_FILE = "regions.geojson"
KEPT_NAME = "result.her2"
"""The whole result, from which all the others can be written again (`napari_her2.export.kept_result`)."""
QUALITY_FILE = "quality.csv"
"""Of slides whose quality was looked at: the tiles that are poor."""
REPORTS = ("her2-report.html", "her2-report.pdf")
"""Pages about a result: of an older one they would speak of another answer."""
OF_A_SLIDE = (TILES_FILE, MAPS_FILE, REGIONS_FILE)
"""What every scored slide has: the first in the folder of the result, another in one named by its stain."""
OF_A_METHOD = ("cells.csv", "cells.geojson", "cells.geojson.zip")
"""What a method may add for a slide."""
_OURS = frozenset((RESULT_FILE, KEPT_NAME, QUALITY_FILE, *REPORTS, *OF_A_SLIDE, *OF_A_METHOD))
_IMAGE = re.compile(r"image-[0-9]+\.png")
_FURTHER = re.compile(rf"(?:{'|'.join(map(re.escape, STAINS))}) [1-9][0-9]{{0,3}}")
_MOST_BYTES = 64 << 20
"""Of a result.json: it holds no tiles, so that one of more is none of ours."""


def image_file(number: int) -> str:
    """Name an image that a model looked at, counted from 1."""
    return f"image-{number}.png"


def slide_folder(number: int, stains: Sequence[str]) -> str:
    """Name the folder of a slide of a result, within that of the result; empty of the first one.

    Parameters
    ----------
    number : int
        Of the slide.
    stains : sequence of str
        Of all slides of the result.

    Examples
    --------
    >>> [slide_folder(number, ("H&E", "IHC", "H&E", "H&E")) for number in range(4)]
    ['', 'IHC', 'H&E 2', 'H&E 3']
    """
    before = list(stains[: number + 1]).count(stains[number])
    return "" if number == 0 else stains[number] if before == 1 else f"{stains[number]} {before}"


def is_of_result(parts: tuple[str, ...]) -> bool:
    """Whether a name in the folder of a result is one that results have, so that a newer result replaces it.

    Parameters
    ----------
    parts : tuple of str
        Below the folder: ("tiles.csv",), ("IHC",) or ("IHC", "tiles.csv").

    Returns
    -------
    bool
    """
    if len(parts) == 2 and _is_folder_of_slide(parts[0]):
        return _is_file_of_result(parts[1])
    return len(parts) == 1 and (_is_folder_of_slide(parts[0]) or _is_file_of_result(parts[0]))


def _is_folder_of_slide(name: str) -> bool:
    return name in STAINS or _FURTHER.fullmatch(name) is not None


def _is_file_of_result(name: str) -> bool:
    return name in _OURS or _IMAGE.fullmatch(name) is not None


def result_folder(slide: str, sha256: str, sha256_head: str, out_dir: Path) -> Path:
    """Where the result of a slide goes; nothing is made yet, but what a killed run left is put back.

    Parameters
    ----------
    slide : str
        Name of the slide.
    sha256, sha256_head : str
        Fingerprint of the slide, and what results of older versions know a slide by.
    out_dir : Path

    Returns
    -------
    Path

    Raises
    ------
    JobFailed
        If the folder holds anything but an older result of this slide, which may be replaced, or is a link.
    """
    target = out_dir / slide
    put_back(target, is_of_result)
    if target.is_symlink():
        raise JobFailed(f"{target} is a link, which no result is written through: choose another folder.")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return target
    try:
        found = read_result(target / RESULT_FILE)
        same = found["slide_sha256"] == sha256 if "slide_sha256" in found else None
        same = found["slide_sha256_head"] == sha256_head if same is None else same
    except (OSError, ValueError, KeyError):
        raise JobFailed(f"{target} holds something other than a result: choose another folder.") from None
    if not same:
        raise JobFailed(
            f"{target} holds the result of another slide of the same name: choose another folder."
        )
    for item in target.iterdir():
        if _is_file_of_result(item.name) and item.is_dir() and not item.is_symlink():
            raise JobFailed(
                f"{item} is a folder, but results have a file of that name: rename it, or choose another one."
            )
    return target


def read_result(path: Path) -> dict[str, Any]:
    """Read a result.json, which may come from anywhere.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict

    Raises
    ------
    OSError
        If it cannot be read, or is a link.
    ValueError
        If it is no JSON object, or no file, or too large to be one of ours.
    """
    # A link is not followed, and a named pipe without a writer is not waited for.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(path, flags | getattr(os, "O_BINARY", 0)), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{path.name} is no file")
        text = file.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise ValueError(f"{path.name} is too large")
    try:
        values = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return values


def finished_result(folder: Path, request: Request) -> dict[str, Any] | None:
    """Return the result in a folder where it answers this very request, with all its files.

    Parameters
    ----------
    folder : Path
        Of a result; it may not exist.
    request : Request

    Returns
    -------
    dict or None
        Its label, task, warnings, doubt in a line and whether its answer is hidden; None where there is no
        result, one that something else was asked for, or one of which a file is gone.
    """
    try:
        values = read_result(folder / RESULT_FILE)
        label, task, warnings = (values[name] for name in ("label", "task", "warnings"))
        if not (isinstance(label, str) and isinstance(task, str) and isinstance(warnings, list)):
            return None
        if values["request"] != request.values() or not all(map(_is_there, _files(folder, values))):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {
        "label": label,
        "task": task,
        "warnings": [str(text) for text in warnings],
        "doubt": str(values.get("doubt", "")),
        "hidden": values.get("withheld") is True and values.get("shown_anyway") is not True,
    }


def _files(folder: Path, values: Mapping[str, Any]) -> Iterator[Path]:
    """Every file that goes with a result.json."""
    if values.get("kept") is not None:  # older results keep none
        yield folder / KEPT_NAME
    stains = [slide["stain"] for slide in values["slides"]]
    for number, slide in enumerate(values["slides"]):
        if (stain := stains[number]) not in STAINS:
            raise ValueError(f"there is no stain {stain!r:.40}")
        own = folder / slide_folder(number, stains)
        images = (image_file(image) for image in range(1, len(slide["images"]) + 1))
        added = slide.get("files", [])  # of which older results say nothing
        if not set(added) <= set(OF_A_METHOD):
            raise ValueError("no result has such files")
        looked = (QUALITY_FILE,) if slide.get("left_out") is not None else ()
        yield from (own / name for name in (*OF_A_SLIDE, *looked, *images, *added))


def _is_there(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_size > 0
