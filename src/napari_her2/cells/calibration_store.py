"""Calibrations that the user keeps by name: a small JSON file each, in the user's data folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2.cells.calibration import Calibration, Control, checked_name
from napari_her2.cells.rules import CLASSES
from napari_her2.errors import CalibrationKept, Her2Error, JobFailed
from napari_her2.outside import Reading, shown
from napari_her2.own_files import private_folder, read_own, write_own

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER_VARIABLE = "NAPARI_HER2_CALIBRATIONS"
_FORMAT = 1
_KIND = "napari-her2 calibration"
_KEPT = Reading(limit=64 * 1024)
_MOST_FILES = 2_000
_LONGEST_TEXT, _MOST_CONTROLS = 200, 16
_MOST_CELLS = 10**9


@dataclass(frozen=True, slots=True)
class UnreadableCalibration:
    """A file among the calibrations that is none.

    Parameters
    ----------
    path : Path
    problem : str
        A sentence: what is wrong with it, and what to do.
    """

    path: Path
    problem: str


def calibration_folder() -> Path:
    """Folder of the kept calibrations: the environment variable, else in the data folder of the user."""
    import platformdirs

    chosen = os.environ.get(FOLDER_VARIABLE)
    base = platformdirs.user_data_path("napari-her2", appauthor=False) / "calibrations"
    return Path(chosen) if chosen else base


def kept_calibrations() -> tuple[tuple[Calibration, ...], tuple[UnreadableCalibration, ...]]:
    """Read all calibrations that are kept, by name, and what of their folder cannot be read.

    Returns
    -------
    (tuple of Calibration, tuple of UnreadableCalibration)
        Two files of one name are both unreadable: nobody can say which is meant.
    """
    found: dict[str, list[tuple[Path, Calibration]]] = {}
    broken = []
    for path in _files():
        try:
            calibration = _read(path)
        except JobFailed as error:
            broken.append(UnreadableCalibration(path, str(error)))
        else:
            found.setdefault(calibration.name, []).append((path, calibration))
    for name, held in found.items():
        if len(held) > 1:
            others = ", ".join(shown(path.name) for path, _ in held)
            problem = f"Several calibrations are called {name} ({others}): delete all but one of these files."
            broken += [UnreadableCalibration(path, problem) for path, _ in held]
    single = [held[0][1] for held in found.values() if len(held) == 1]
    single.sort(key=lambda kept: kept.name.casefold())
    return tuple(single), tuple(broken)


def load_calibration(name: str) -> Calibration:
    """Return a kept calibration.

    Parameters
    ----------
    name : str

    Raises
    ------
    JobFailed
        If there is none of that name, or its file cannot be read.
    """
    name = checked_name(name)
    calibrations, broken = kept_calibrations()
    for calibration in calibrations:
        if calibration.name == name:
            return calibration
    own = _path(name)
    for item in broken:
        if item.path == own or f"are called {name} (" in item.problem:
            raise JobFailed(item.problem)
    names = ", ".join(calibration.name for calibration in calibrations[:10])
    advice = f"choose one of {names}" if names else "make one with a 3+ control"
    raise JobFailed(f"No calibration is called {name}: {advice}.")


def check_free(name: str, *, replace: bool = False) -> str:
    """Refuse a name before the work that would be kept under it.

    Parameters
    ----------
    name : str
    replace : bool
        Whether another calibration of that name may be replaced.

    Returns
    -------
    str
        The name, without the space around it.

    Raises
    ------
    JobFailed
        If it can be no name.
    CalibrationKept
        If it is taken.
    """
    name = checked_name(name)
    if not replace and (os.path.lexists(_path(name)) or _of_name(name)):
        raise CalibrationKept(f"A calibration called {name} is kept already: choose another name.")
    return name


def keep_calibration(calibration: Calibration, *, replace: bool = False) -> Path:
    """Keep a calibration under its name.

    Parameters
    ----------
    calibration : Calibration
    replace : bool
        Whether it may take the place of another one of its name.

    Returns
    -------
    Path
        Its file.

    Raises
    ------
    CalibrationKept
        If there is one of that name, which may not be replaced.
    JobFailed
        If the folder cannot be written to.
    """
    target = _path(check_free(calibration.name, replace=replace))
    same = _of_name(calibration.name)
    values = {"kind": _KIND, "format": _FORMAT} | calibration.values()
    try:
        private_folder(target.parent)
        write_own(target, json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False).encode())
        for path in same:
            if path != target:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise JobFailed(
            f"The calibration could not be kept in {target.parent} ({error.strerror or error}): free space, "
            f"or set {FOLDER_VARIABLE} to another folder."
        ) from error
    return target


def remove_calibration(name: str) -> None:
    """Delete a kept calibration; results that were made with it hold its values.

    Parameters
    ----------
    name : str
        Where several files hold it, all of them go.

    Raises
    ------
    JobFailed
        If there is none of that name, or it cannot be deleted.
    """
    name = checked_name(name)
    paths = _of_name(name)
    if os.path.lexists(_path(name)) and _path(name) not in paths:
        paths.append(_path(name))  # damaged, but it stands under that name
    if not paths:
        raise JobFailed(f"No calibration is called {name}: nothing was removed.")
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise JobFailed(
                f"The calibration could not be removed ({error.strerror or error}): delete {path}."
            ) from error


def _path(name: str) -> Path:
    """File of a name: readable, and never a path that the name would lead to."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40].lower() or "calibration"
    return calibration_folder() / f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.json"


def _files() -> list[Path]:
    try:
        found = sorted(path for path in calibration_folder().iterdir() if path.suffix == ".json")
    except OSError:
        return []  # none were kept yet
    return found[:_MOST_FILES]


def _of_name(name: str) -> list[Path]:
    paths = []
    for path in _files():
        try:
            if _read(path).name == name:
                paths.append(path)
        except JobFailed:
            continue
    return paths


def _read(path: Path) -> Calibration:
    advice = "make the calibration again, or delete the file"
    try:
        data = read_own(path, _KEPT.limit)
    except OSError as error:
        raise JobFailed(
            f"{shown(path.name)} cannot be read ({error.strerror or error}): {advice}."
        ) from error
    values = _KEPT.parsed_json(_KEPT.text_of(data, path), path)
    if not isinstance(values, dict) or values.get("kind") != _KIND:
        raise JobFailed(f"{shown(path.name)} holds no calibration: {advice}.")
    version = values.get("format")
    if type(version) is int and version > _FORMAT:
        raise JobFailed(
            f"{shown(path.name)} was written by a newer version of napari-her2: update it, or {advice}."
        )
    if version != _FORMAT:
        raise JobFailed(f"{shown(path.name)} holds no calibration: {advice}.")
    try:
        return _calibration(values)
    except (_Wrong, Her2Error) as error:
        reason = str(error).rstrip(".")
        raise JobFailed(f"{shown(path.name)} holds no calibration ({reason}): {advice}.") from error


class _Wrong(Exception):
    """A field of a file is missing or wrong; the text says which."""


def _calibration(values: Mapping[str, Any]) -> Calibration:
    """Return a calibration from the values of a file; fields that are not known are left alone."""
    texts = {name: _text(values, name, needed=name == "name") for name in _TEXTS}
    controls, remarks = values.get("controls", ()), values.get("remarks", ())
    if not isinstance(controls, list | tuple) or len(controls) > _MOST_CONTROLS:
        raise _Wrong("its controls are no list")
    if not isinstance(remarks, list | tuple) or len(remarks) > 2 * _MOST_CONTROLS:
        raise _Wrong("its remarks are no list")
    return Calibration(
        **texts,
        gain=_number(values, "gain", 1e-3, 1e3),
        cells=int(_number(values, "cells", 0, _MOST_CELLS)),
        mpp=_number({"mpp": 0.0} | dict(values), "mpp", 0, 1e3),
        controls=tuple(_control(item) for item in controls),
        remarks=tuple(shown(item, _LONGEST_TEXT) for item in remarks if isinstance(item, str)),
    )


_TEXTS = tuple(of.name for of in fields(Calibration) if of.type == "str")


def _control(values: object) -> Control:
    if not isinstance(values, dict) or values.get("level") not in CLASSES:
        raise _Wrong("one of its controls has no level")
    shares = values.get("percentages")
    if not isinstance(shares, list | tuple) or len(shares) != len(CLASSES):
        raise _Wrong("one of its controls has no percentages")
    held = [_number({"percentage": share}, "percentage", 0, 100.001) for share in shares]
    return Control(
        values["level"],
        int(_number(values, "cells", 0, _MOST_CELLS)),
        int(_number(values, "complete", 0, _MOST_CELLS)),
        _number(values, "raw_mass", -1e3, 1e3),
        tuple(held),  # type: ignore[arg-type]  # four of them
    )


def _text(values: Mapping[str, Any], name: str, *, needed: bool) -> str:
    held = values.get(name, None if needed else "")
    if not isinstance(held, str):
        raise _Wrong(f"it has no {name}" if needed else f"its {name} is no text")
    return shown(held, _LONGEST_TEXT).strip()


def _number(values: Mapping[str, Any], name: str, least: float, most: float) -> float:
    held = values.get(name)
    if isinstance(held, bool) or not isinstance(held, int | float) or not least <= held <= most:
        raise _Wrong(f"its {name} is no number that can be")
    return float(held)
