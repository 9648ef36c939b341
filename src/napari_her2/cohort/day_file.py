"""The file that a day's list is kept in: a line for the list, then one for each change, appended and synced.

A program that is killed loses at most the last line, which is passed over when it is cut. Whoever works on a
list first writes the file anew, whole or not at all, and then appends.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_her2.cohort.day_items import (
    DayModel,
    DaySettings,
    Item,
    entry_from,
    entry_values,
    item_from,
    settings_from,
)
from napari_her2.cohort.sources import absolute
from napari_her2.errors import JobFailed
from napari_her2.inference.locks import FileLock
from napari_her2.outside import MiB, Reading
from napari_her2.whole_files import not_written, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_her2.cohort.entry import Entry

DAY_FILE = "day_list.jsonl"
LOCK_FILE = ".day_list.lock"
_FORMAT, _VERSION = "napari-her2 day list", 1
_LISTS = Reading(limit=256 * MiB, advice="choose another folder, or take the file away and begin anew")


@dataclass(frozen=True, slots=True)
class DayState:
    """A list as it stands.

    Parameters
    ----------
    entries : tuple of Entry
    models : tuple of DayModel
    items : tuple of Item
    settings : DaySettings
    """

    entries: tuple[Entry, ...]
    models: tuple[DayModel, ...]
    items: tuple[Item, ...]
    settings: DaySettings = field(default_factory=DaySettings)


def read_day(folder: Path) -> DayState:
    """Read the list in a folder.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    DayState
        What was running when the program ended waits again.

    Raises
    ------
    JobFailed
        If there is none, or it is damaged, or of a newer version.
    """
    path = folder / DAY_FILE
    if not path.is_file():
        raise JobFailed(f"{folder} holds no list: choose the folder that the results of a list went to.")
    lines = _LISTS.text(path).split("\n")
    state = _header(lines[0], path)
    items = list(state.items)
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        try:
            change = json.loads(line)
            at = change.pop("item")
            if type(at) is not int or not 0 <= at < len(items):
                raise ValueError("it is of no item")
            items[at] = item_from(change, len(state.entries), len(state.models))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if number == len(lines):  # cut: the program ended while it wrote
                break
            raise _LISTS.refusal(path, f"is damaged in line {number} ({error})") from error
    return replace(state, items=tuple(map(_not_running, items)))


def _not_running(item: Item) -> Item:
    if item.state != "running":
        return item
    return replace(item.again(), lost=item.lost + 1)


def _header(line: str, path: Path) -> DayState:
    try:
        values = json.loads(line)
        if not isinstance(values, dict) or values.get("format") != _FORMAT:
            raise ValueError("it is none of ours")
        if values["version"] != _VERSION:
            raise JobFailed(f"{path} was written by another version of napari-her2: update it to go on.")
        entries = tuple(entry_from(each) for each in values["entries"])
        models = tuple(DayModel(str(each["name"]), str(each["source"])) for each in values["models"])
        items = tuple(item_from(each, len(entries), len(models)) for each in values["items"])
        return DayState(entries, models, items, settings_from(values["settings"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _LISTS.refusal(path, f"holds no list that can be read ({error})") from error


def write_day(folder: Path, state: DayState) -> None:
    """Write a list whole, in place of the one before.

    Raises
    ------
    JobFailed
        If the folder cannot be written to.
    """
    values = {
        "format": _FORMAT,
        "version": _VERSION,
        "entries": [entry_values(entry) for entry in state.entries],
        "models": [{"name": model.name, "source": model.source} for model in state.models],
        "items": [item.values() for item in state.items],
        "settings": state.settings.values(),
    }
    with whole_file(folder / DAY_FILE) as file, file.open("w", encoding="utf-8") as stream:
        stream.write(_line(values))
        stream.flush()
        os.fsync(stream.fileno())


def append_item(folder: Path, number: int, item: Item) -> None:
    """Add how an item stands now, and wait until it is on the disk.

    Raises
    ------
    JobFailed
        If the folder cannot be written to.
    """
    path = folder / DAY_FILE
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(_line({"item": number} | item.values()))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise not_written(path, error) from error


def _line(values: dict[str, Any]) -> str:
    # Half a character of a file name that is no UTF-8 goes as its number.
    return json.dumps(values, ensure_ascii=True, allow_nan=False) + "\n"


def going_on(new: DayState, old: DayState) -> DayState:
    """Keep what a list did already of the same case and model; with other settings all is asked anew.

    Parameters
    ----------
    new, old : DayState
        As it is asked for, and as it stands in the file.

    Returns
    -------
    DayState
    """
    if old.settings.values() != new.settings.values():
        return new
    before_keys, keys = _keys(old.entries), _keys(new.entries)
    known = {(before_keys[item.entry], old.models[item.model]): item for item in old.items}
    items = []
    for item in new.items:
        before = known.get((keys[item.entry], new.models[item.model]))
        if before is not None and before.state != "skipped" and item.state != "skipped":
            item = replace(before, entry=item.entry, model=item.model)
        items.append(item)
    return replace(new, items=tuple(items))


def _keys(entries: Sequence[Entry]) -> list[tuple[object, ...]]:
    """Return what makes each row the same: its files, and all rows of its case."""
    own = [_key(entry) for entry in entries]
    cases: dict[str, list[tuple[object, ...]]] = {}
    for entry, key in zip(entries, own, strict=True):
        if entry.case_id:
            cases.setdefault(entry.case_id, []).append(key)
    return [
        (key, entry.case_id, *cases.get(entry.case_id, ())) for entry, key in zip(entries, own, strict=True)
    ]


def _key(entry: Entry) -> tuple[object, ...]:
    """Return what makes a case the same: its files, and what was given for them."""
    files = (entry.he, entry.ihc, entry.regions)
    paths = tuple(None if path is None else str(absolute(path)) for path in files)
    return (*paths, entry.mpp, entry.ihc_mpp, entry.place)


@contextmanager
def held_day(folder: Path) -> Iterator[None]:
    """Hold the list in a folder; the operating system lets go of it when the program ends.

    Parameters
    ----------
    folder : Path
        Made where it is missing.

    Raises
    ------
    JobFailed
        If somebody else holds it, or the folder cannot be written to.
    """
    lock = FileLock(folder / LOCK_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = lock.acquire()
    except OSError as error:
        raise not_written(folder, error) from error
    if not free:
        raise JobFailed(
            f"The list in {folder} is being worked on: pause it first, here or in the other window or "
            f"command."
        )
    try:
        yield
    finally:
        lock.release()
