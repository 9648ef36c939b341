"""Files that the package keeps for itself: cache, locks, identities, settings of a case, installed models.

They lie in folders that others may be able to write to, and their names can be guessed. So no link is
followed, nothing but a plain file with a single name is written, and what is made is its owner's alone.
The folder that a user names (by an environment variable) may itself be a link; what lies in it may not.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Literal

from napari_her2.whole_files import replaced_file

FileMode = Literal["rb", "r+b", "ab"]
"""To read; to read and write, made where absent; to append, made where absent."""

_FLAGS: dict[FileMode, int] = {
    "rb": os.O_RDONLY,
    "r+b": os.O_RDWR | os.O_CREAT,
    "ab": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
}
# O_NONBLOCK: opening a FIFO must not wait for somebody at its other end.
_SAFELY = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_NO_LINK = "it is a link, and links are not followed there"
_NO_FILE = "it is not a plain file"
_SHARED = "it is one file under several names"


def cache_base() -> Path:
    """Folder for everything that can be made again: NAPARI_HER2_CACHE, else the user's cache folder."""
    import platformdirs

    chosen = os.environ.get("NAPARI_HER2_CACHE")
    return Path(chosen or platformdirs.user_cache_dir("napari-her2", appauthor=False))


def private_folder(folder: Path, *, within: bool = False) -> Path:
    """Make a folder, and those above it that are missing, readable by its owner alone.

    Parameters
    ----------
    folder : Path
        One that exists keeps its rights: a group may share it on purpose.
    within : bool
        Whether the folder is one of ours inside another, and so must not be a link.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OSError
        If it cannot be made, or is something else.
    """
    missing = []
    above = folder
    while not os.path.lexists(above):
        missing.append(above)
        above = above.parent
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)  # another program may have been quicker
    if within and folder.is_symlink():
        raise _refused(errno.ELOOP, _NO_LINK, folder)
    if not folder.is_dir():
        raise _refused(errno.ENOTDIR, "it is not a folder", folder)
    return folder


def open_own(path: Path, mode: FileMode, *, shared: bool = False) -> BinaryIO:
    """Open a file of ours; nothing of it is changed yet.

    Parameters
    ----------
    path : Path
    mode : {"rb", "r+b", "ab"}
    shared : bool
        Whether a new file gets the usual rights, for a folder that several people work in.

    Returns
    -------
    BinaryIO

    Raises
    ------
    OSError
        If it cannot be opened, is a link or no plain file, or (to be written) has a second name.
    """
    if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
        raise _refused(errno.ELOOP, _NO_LINK, path)
    try:
        descriptor = os.open(path, _FLAGS[mode] | _SAFELY, 0o666 if shared else 0o600)
    except OSError as error:
        if path.is_symlink():
            raise _refused(errno.ELOOP, _NO_LINK, path) from error
        raise
    found = os.fstat(descriptor)
    plain, names = stat.S_ISREG(found.st_mode), found.st_nlink
    if not plain or (mode != "rb" and names > 1):
        os.close(descriptor)
        raise _refused(errno.EMLINK if plain else errno.EINVAL, _SHARED if plain else _NO_FILE, path)
    return os.fdopen(descriptor, mode)


def read_own(path: Path, most: int) -> bytes:
    """Read a small file of ours.

    Parameters
    ----------
    path : Path
    most : int
        Bytes; a larger file is not ours.

    Returns
    -------
    bytes

    Raises
    ------
    OSError
        If it cannot be read, is a link, no plain file, or larger.
    """
    with open_own(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise _refused(errno.EFBIG, "it is larger than anything that is kept there", path)
    return data


def write_own(path: Path, data: bytes) -> None:
    """Write a file of ours, whole or not at all; a link of that name is replaced, never written through.

    Parameters
    ----------
    path : Path
        Its folder is there.
    data : bytes

    Raises
    ------
    OSError
        If it cannot be written.
    """
    with replaced_file(path) as file:
        file.write_bytes(data)
        file.chmod(0o600)


def is_plain(path: Path) -> bool:
    """Whether a path is a file by itself: no link, folder, pipe or device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _refused(code: int, reason: str, path: Path) -> OSError:
    return OSError(code, reason, str(path))
