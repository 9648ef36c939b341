"""What can be told of the inputs of a training at a glance, while they are being chosen."""

from __future__ import annotations

import csv
from pathlib import Path

from napari_her2.training_runs.processes import holds_run

_HEADER_BYTES = 16 * 1024
_COLUMNS = ("case_id", "score")


def data_problem(text: str, *, table: bool, folder: bool) -> str:
    """Say what is wrong with the path of a table or folder of cases; empty where nothing is at a glance.

    Parameters
    ----------
    text : str
        As it was typed or chosen.
    table, folder : bool
        What the method takes.
    """
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            return "" if folder else "This is a folder: choose the table of cases, a CSV file."
        if not path.is_file():
            return "There is no such file." if table else "There is no such folder."
        if not table:
            return "This is a file: choose a folder."
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except (OSError, ValueError) as error:
        return f"It cannot be read ({getattr(error, 'strerror', None) or error})."
    try:
        lines = head.decode("utf-8-sig", errors="strict" if len(head) < _HEADER_BYTES else "ignore")
    except UnicodeDecodeError:
        return 'This is no table in UTF-8: save it as "CSV UTF-8" in your spreadsheet program.'
    first = lines.split("\n", 1)[0].strip()
    columns = [name.strip() for name in next(csv.reader([first]), [])]
    missing = [name for name in _COLUMNS if name not in columns]
    if missing and any(mark in first for mark in ";\t"):
        return "Its columns are not separated by commas: save it as CSV with commas."
    if missing:
        return f"Its first line has no column {' and no column '.join(missing)}."
    return ""


def folder_problem(text: str) -> str:
    """Say why a training cannot begin in a folder; empty where it can at a glance."""
    path = Path(text).expanduser()
    try:
        if path.is_file():
            return "This is a file: choose a folder."
        if holds_run(path):
            return "This folder holds a training already: open it under Trainings, or choose another folder."
    except (OSError, ValueError) as error:
        return f"It cannot be used ({getattr(error, 'strerror', None) or error})."
    return ""


def suggested_folder(manifest: str, method: str) -> str:
    """Return a new folder for a training, beside its table of cases."""
    path = Path(manifest).expanduser()
    base = path if path.is_dir() else path.parent
    name = f"training-{method}"
    number = 1
    while True:
        folder = base / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            return str(folder)
        number += 1
