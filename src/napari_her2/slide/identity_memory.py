"""Hashes of files that were worked out before, kept on disk with what the file system says of each file.

While device, inode, size and times stay, so does the content; but a clock has steps, and a change within one
of them leaves the times as they are. So nothing is kept of a file that was written just now (git calls such
an entry "racy").
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, NamedTuple

from napari_her2.own_files import cache_base, private_folder, read_own, write_own

if TYPE_CHECKING:
    import os
    from pathlib import Path

SETTLED_NS = 2_000_000_000
"""Age of a file from which its times tell of every change: no file system in use has coarser ones."""
_FORMAT = 1
_MEMORY_BYTES = 4096
_HEX = frozenset("0123456789abcdef")


class FileState(NamedTuple):
    """What the file system says of a file: while all of it stays, so does the content."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileState:
        """Take what matters of a `stat`."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    @property
    def settled(self) -> bool:
        """Whether a change from now on would show in the times."""
        return time.time_ns() - max(self.mtime_ns, self.ctime_ns) >= SETTLED_NS


def _memory(state: FileState) -> Path:
    name = hashlib.sha256(f"{state.device} {state.inode}".encode()).hexdigest()[:40]
    return cache_base() / "identities" / f"{name}.json"


def remembered(state: FileState) -> str | None:
    """Return the digest that was worked out for this very state of a file; None where there is none."""
    path = _memory(state)
    try:
        if path.parent.is_symlink():
            return None
        kept = json.loads(read_own(path, _MEMORY_BYTES))
        if kept["format"] != _FORMAT or kept["state"] != list(state):
            return None
        digest = kept["sha256"]
    # What cannot be understood is worked out again.
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return digest if isinstance(digest, str) and len(digest) == 64 and set(digest) <= _HEX else None


def remember(state: FileState, digest: str) -> None:
    """Keep the digest of a file that was settled before it was read."""
    path = _memory(state)
    kept = {"format": _FORMAT, "state": list(state), "sha256": digest}
    try:
        private_folder(path.parent, within=True)
        write_own(path, json.dumps(kept).encode())
    except OSError:  # a full disk or a folder that cannot be written costs the next run the time, no more
        return
