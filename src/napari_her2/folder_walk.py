"""Folders below a folder, from the top: hidden ones and links to folders are passed over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def folders_below(
    folder: Path, *, deepest: int, key: Callable[[str], Any] = str
) -> Iterator[tuple[Path, list[Path], int]]:
    """Walk through a folder.

    Parameters
    ----------
    folder : Path
    deepest : int
        Levels that are looked at; the folder itself is the first.
    key : callable
        Orders files, and folders of one folder, by their names.

    Yields
    ------
    tuple of Path, list of Path and int
        A folder, its files, and its level.

    Raises
    ------
    JobFailed
        If one of them cannot be read.
    """
    places = [(folder, 1)]
    for place, depth in places:
        files, below = [], []
        try:
            with os.scandir(place) as inside:
                for item in inside:
                    if item.name.startswith("."):
                        continue
                    if item.is_dir(follow_symlinks=False):
                        below.append(Path(item.path))
                    elif not item.is_dir():
                        files.append(Path(item.path))
        except OSError as error:
            reason = error.strerror or error
            raise JobFailed(f"{place} cannot be read ({reason}): check the path and its rights.") from error
        yield place, sorted(files, key=lambda path: key(path.name)), depth
        if depth < deepest:
            places += [(path, depth + 1) for path in sorted(below, key=lambda path: key(path.name))]
