"""The hash over the whole content of a file, in chunks and threads, and the older one over its ends.

Layout, so that others can work it out: SHA-256 over "napari-her2 file 1", the size of the file (8 bytes,
little end first) and the SHA-256 of each 16 MiB of it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_her2.slide.files import ByteFile

CHUNK_BYTES = 16 << 20
_READ_BYTES = 1 << 20
_MOST_THREADS = 4


class ContentHash:
    """One hash over a file.

    Parameters
    ----------
    file : ByteFile
    size : int
        Bytes that are hashed, all that it has.
    """

    def __init__(self, file: ByteFile, size: int) -> None:
        self._file, self._size = file, size
        self._stop = threading.Event()
        self._whole = hashlib.sha256(b"napari-her2 file 1" + size.to_bytes(8, "little"))

    def digest(self) -> str:
        """Return 64 hexadecimal digits, once all steps are done."""
        return self._whole.hexdigest()

    def steps(self) -> Generator[int, None, None]:
        """Yield the bytes that are done, after every chunk; closing it stops the reading."""
        chunks = -(-self._size // CHUNK_BYTES)
        if chunks <= 1:
            self._whole.update(self._chunk(0))
            yield self._size
            return
        threads = min(_MOST_THREADS, os.cpu_count() or 1, chunks)
        pool = ThreadPoolExecutor(threads, "her2-identity")
        try:
            for number, digest in enumerate(pool.map(self._chunk, range(chunks)), start=1):
                self._whole.update(digest)
                yield min(number * CHUNK_BYTES, self._size)
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def _chunk(self, number: int) -> bytes:
        digest = hashlib.sha256()  # lets other threads run while it works
        start = number * CHUNK_BYTES
        end = min(start + CHUNK_BYTES, self._size)
        for place in range(start, end, _READ_BYTES):
            if self._stop.is_set():
                break
            digest.update(self._file.read_at(place, min(_READ_BYTES, end - place)))
        return digest.digest()


def head_sha256(path: Path) -> str:
    """SHA-256 over the size of a file and its first and last MiB.

    It tells apart most files, not all: uncompressed scans share size, header and a white edge. Results name
    it beside the identity of the whole content (`napari_her2.slide.identity`), as older ones did.

    Parameters
    ----------
    path : Path
        A slide of gigabytes takes a millisecond.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest.update(size.to_bytes(8, "little"))
        file.seek(0)
        digest.update(file.read(_READ_BYTES))
        file.seek(max(0, size - _READ_BYTES))
        digest.update(file.read(_READ_BYTES))
    return digest.hexdigest()
