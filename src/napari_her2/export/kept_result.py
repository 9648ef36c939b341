"""A whole result of any method in one file, read back without its slide being scored.

A zip file of ``tree.json`` and arrays (``.npy``, never a pickle). The tree lists the values of our package
that the result is made of, each with the name of its class and its fields; a value refers to those before it
by number, so that what two of them share is shared when it is read. Classes come from a fixed list
(`napari_her2.export.kept_classes`), whatever a file names.

A field that is added later has a default, and older files are read with it. Whoever renames a field or a
class raises `VERSION`, and says below how files of the version before are read.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import zipfile
import zlib
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np

from napari_her2.cells.table import CellsPart
from napari_her2.errors import Her2Error, JobFailed
from napari_her2.export.kept_arrays import members_of, read_array, read_bytes, write_member
from napari_her2.export.kept_checks import refuse_mismatch
from napari_her2.export.kept_classes import class_named, name_of, refuse_misfit
from napari_her2.export.result_files import KEPT_NAME as KEPT_NAME
from napari_her2.inference.result import SlideResult
from napari_her2.outside import Reading, open_without_waiting, shown
from napari_her2.version import __version__
from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

FORMAT, VERSION = "napari-her2 result", 1
_TREE = "tree.json"
_MOST_TREE, _MOST_VALUES = 64 << 20, 100_000
_ADVICE = "score the slide again"
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError),
    *(ValueError, TypeError, LookupError, OverflowError, SyntaxError, MemoryError, Her2Error),
)
"""What libraries raise at bytes that are not what they claim to be."""


def write_kept(result: SlideResult, path: Path) -> None:
    """Write a whole result; nothing is left out, an answer that is withheld neither.

    Parameters
    ----------
    result : SlideResult
    path : Path
        Replaced where it exists.

    Raises
    ------
    JobFailed
        If it cannot be written, or the disk is full.
    ValueError
        If the result holds anything that is not kept: a class that is not in the list.
    """
    writer = _Writer()
    root = writer.value(result)["value"]
    tree = {"format": FORMAT, "version": VERSION, "written_by": __version__, "values": writer.values}
    text = json.dumps(tree | {"root": root}, ensure_ascii=False, separators=(",", ":")).encode()
    with whole_file(path) as scratch, zipfile.ZipFile(scratch, "w") as archive:
        write_member(archive, _TREE, text)
        for number, array in enumerate(writer.arrays):
            write_member(archive, _array_name(number), array)


def read_kept(path: Path, slide_ids: Mapping[str, str] | None = None) -> SlideResult:
    """Read a result that `write_kept` wrote; the file may come from anywhere.

    Parameters
    ----------
    path : Path
    slide_ids : mapping of str to str, optional
        Fingerprints of open slides to their `Slide.slide_id`, so that the viewer lays the result over them.

    Returns
    -------
    SlideResult

    Raises
    ------
    JobFailed
        If it cannot be read, is no such file, is of a newer version, or is damaged.
    """
    try:
        with open_without_waiting(path) as file:
            result = _read(file)
    except OSError as error:
        reason = error.strerror or str(error)
        raise JobFailed(f"{shown(str(path))} cannot be read ({reason}): check the path.") from error
    except _Newer as newer:
        raise JobFailed(f"{shown(path.name)} {newer}: update napari-her2, or {_ADVICE}.") from newer
    except _UNREADABLE as error:
        # Libraries word their errors for programmers: the first line says what is wrong with the file.
        reason = shown((str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__, 80)
        raise JobFailed(f"{shown(path.name)} holds no result that can be read ({reason}): {_ADVICE}.") from (
            error
        )
    opened = slide_ids or {}
    return replace(
        result,
        slides=tuple(
            replace(slide, slide_id=opened.get(slide.fingerprint, slide.slide_id)) for slide in result.slides
        ),
    )


class _Newer(Exception):
    """A file of a version that knows more than this one."""


def _array_name(number: int) -> str:
    return f"arrays/{number}.npy"


class _Writer:
    """Turns a result into a list of values, and a list of arrays."""

    def __init__(self) -> None:
        self.values: list[dict[str, Any]] = []
        self.arrays: list[NDArray[Any]] = []
        self._numbers: dict[int, int] = {}
        self._held: list[object] = []  # or a number could pass to another object

    def value(self, value: Any) -> Any:  # noqa: ANN401 - any value of a result
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, str | bool | int | float):
            return value
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, tuple):
            return {"tuple": [self.value(item) for item in value]}
        if isinstance(value, dict):
            return {"mapping": {self._key(key): self.value(item) for key, item in value.items()}}
        if isinstance(value, Path):
            return {"path": quote_from_bytes(os.fsencode(value))}
        if isinstance(value, np.ndarray):
            return {"array": self._number(value) if id(value) in self._numbers else self._array(value)}
        return {"value": self._number(value) if id(value) in self._numbers else self._object(value)}

    def _number(self, value: object) -> int:
        return self._numbers[id(value)]

    def _key(self, key: object) -> str:
        if not isinstance(key, str):
            raise ValueError(f"a mapping by {key!r:.40} is not kept")
        return key

    def _array(self, array: NDArray[Any]) -> int:
        self.arrays.append(np.asarray(array))
        return self._remembered(array, len(self.arrays) - 1)

    def _object(self, value: Any) -> int:  # noqa: ANN401 - any value of a result
        kept = value.copied() if isinstance(value, CellsPart) else value
        kind = type(kept)
        name = name_of(kind)
        if name is None or not is_dataclass(kind):
            raise ValueError(f"a result holds a {kind.__qualname__}: name it in kept_classes")
        held = {field.name: getattr(kept, field.name) for field in fields(kind)}
        refuse_misfit(kind, held)
        self.values.append({"class": name, "fields": {key: self.value(item) for key, item in held.items()}})
        return self._remembered(value, len(self.values) - 1)

    def _remembered(self, value: object, number: int) -> int:
        self._held.append(value)
        self._numbers[id(value)] = number
        return number


class _Reader:
    """Builds the values of a file, each from those before it."""

    def __init__(self, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> None:
        self._archive, self._members = archive, members
        self._arrays: dict[int, NDArray[Any]] = {}
        self.values: list[Any] = []

    def add(self, stored: Any) -> None:  # noqa: ANN401 - JSON
        name, own = stored["class"], stored["fields"]
        kind = class_named(name) if isinstance(name, str) else None
        if kind is None:
            raise _Newer(f"holds {shown(str(name), 60)!r}, which this version does not know")
        known = {field.name for field in fields(kind)}
        if unknown := next((key for key in own if key not in known), None):
            raise _Newer(f"holds {shown(unknown, 60)!r} of {name}, which this version does not know")
        values = {key: self.value(item) for key, item in own.items()}
        refuse_misfit(kind, values)
        self.values.append(kind(**values))

    def value(self, stored: Any) -> Any:  # noqa: ANN401 - JSON
        if isinstance(stored, list):
            return [self.value(item) for item in stored]
        if not isinstance(stored, dict):
            return stored
        ((kind, held),) = stored.items()
        match kind, held:
            case "tuple", list():
                return tuple(self.value(item) for item in held)
            case "mapping", dict():
                return {key: self.value(item) for key, item in held.items()}
            case "path", str():
                return Path(os.fsdecode(unquote_to_bytes(held)))
            case "array", int():
                return self._array(held)
            case "value", int() if 0 <= held < len(self.values):
                return self.values[held]
        raise ValueError("it refers to what is not there")

    def _array(self, number: int) -> NDArray[Any]:
        if number not in self._arrays:
            self._arrays[number] = read_array(self._archive, self._members[_array_name(number)])
        return self._arrays[number]


def _read(file: IO[bytes]) -> SlideResult:
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no file")
    with zipfile.ZipFile(file) as archive:
        members = members_of(archive, found.st_size)
        text = read_bytes(archive, members[_TREE], _MOST_TREE).decode()
        tree = Reading(_MOST_TREE, nan=True).parsed_json(text, _TREE)
        if not isinstance(tree, dict) or tree.get("format") != FORMAT:
            raise ValueError("it is another kind of file")
        if tree["version"] != VERSION:
            raise _Newer(f"was written by napari-her2 {shown(str(tree.get('written_by')), 20)}")
        if len(tree["values"]) > _MOST_VALUES:
            raise ValueError("it holds too many values")
        reader = _Reader(archive, members)
        for stored in tree["values"]:
            reader.add(stored)
        result = reader.values[tree["root"]]
    if not isinstance(result, SlideResult):
        raise ValueError("it holds no result")
    refuse_mismatch(result)
    return result
