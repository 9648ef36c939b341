"""Which slide it is, by the whole content of its files: the same bytes are the same slide, under any name.

Every byte is hashed, since what is left out of a hash can differ without being seen: two uncompressed scans
on white share their size, their header and their last MiB.

A slide of one file has the hash of that file (`napari_her2.slide.content_hash`), one of several SHA-256 over
"napari-her2 slide 1" and, sorted, the label of each file, a zero byte and its hash.
"""

from __future__ import annotations

import hashlib
from contextlib import closing
from typing import TYPE_CHECKING

from napari_her2.errors import SlideChanged
from napari_her2.slide.content_hash import ContentHash, head_sha256
from napari_her2.slide.files import ByteFile
from napari_her2.slide.identity_memory import FileState, remember, remembered
from napari_her2.slide.slide_files import slide_parts
from napari_her2.steps import finished

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_her2.slide.slide_files import SlidePart

SMALL_BYTES = 32 << 20
"""Files of so many bytes in all are hashed in less time than a person notices."""


class Identity:
    """The files of a slide as they are now, and the hash over their content once it is asked for.

    Parameters
    ----------
    path : Path
        A slide file, or a directory of DICOM files.

    Attributes
    ----------
    key : str
        Tells the slide from any other that this computer can see, without reading it; another one after a
        change of the files, for a copy of them, and on another computer. 64 hexadecimal digits.

    Raises
    ------
    SlideError, OSError
        As of `napari_her2.slide.slide_files.slide_parts`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parts = slide_parts(path)
        self._states = self._file_states()
        self._value: str | None = None
        self._settled = False
        self.key = hashlib.sha256(repr(self._states).encode()).hexdigest()

    @property
    def head(self) -> str:
        """SHA-256 over size, first and last MiB of the first file: what older results know a slide by."""
        return head_sha256(self._parts[0].path)

    @property
    def settled(self) -> bool:
        """Whether a change of the files from when they were looked at on shows in their times."""
        return all(state.settled for state in self._states)

    @property
    def known(self) -> str | None:
        """The hash where it is to be had at once: it was worked out before, or the files are small."""
        if self._value is None:
            kept = [remembered(state) for state in self._states]
            digests = [digest for digest in kept if digest is not None]
            if len(digests) == len(kept):
                self._settled, self._value = True, _joined(self._parts, digests)
            elif sum(state.size for state in self._states) <= SMALL_BYTES:
                return self.value()
        return self._value

    def value(self) -> str:
        """Work out the hash; see `steps`."""
        return finished(self.steps())

    def steps(self) -> Generator[tuple[int, int], None, str]:
        """Work out the hash of the whole content, unless it is known.

        Yields
        ------
        done, total : int
            Bytes. Closing the generator stops the reading.

        Returns
        -------
        str
            64 hexadecimal digits.

        Raises
        ------
        SlideChanged
            If the files changed since they were first looked at.
        SlideError
            If they cannot be read.
        """
        if self._value is None:
            settled = all(state.settled for state in self._states)
            digests = yield from self._hashed(self._states, use_memory=True)
            self._settled, self._value = settled, _joined(self._parts, digests)
        return self._value

    def check_unchanged(self, *, thorough: bool = False) -> None:
        """Refuse to go on where the files changed since they were first looked at.

        Where only their times changed, the content decides: a slide may be copied over itself.

        Parameters
        ----------
        thorough : bool
            Whether files that were very young when they were hashed are hashed again: their times alone do
            not tell.

        Raises
        ------
        SlideChanged
        """
        try:
            now = self._file_states()
        except OSError as error:
            raise self._changed(error.strerror or str(error)) from error
        if now == self._states and (not thorough or self._settled or self._value is None):
            return
        if self._value is None or [state.size for state in self._states] != [state.size for state in now]:
            raise self._changed("")
        settled = all(state.settled for state in now)
        if _joined(self._parts, finished(self._hashed(now, use_memory=False))) != self._value:
            raise self._changed("")
        self._settled, self._states = settled, now

    def _file_states(self) -> list[FileState]:
        return [FileState.of(part.path.stat()) for part in self._parts]

    def _hashed(
        self, states: list[FileState], *, use_memory: bool
    ) -> Generator[tuple[int, int], None, list[str]]:
        """Digest of every file."""
        total = sum(state.size for state in states)
        done, digests = 0, []
        for part, state in zip(self._parts, states, strict=True):
            digest = remembered(state) if use_memory else None
            if digest is None:
                settled = state.settled  # before it is read: a change while it is read must show too
                digest = yield from self._hashed_file(part.path, state, done, total)
                if settled:
                    remember(state, digest)
            digests.append(digest)
            done += state.size
            yield done, total
        return digests

    def _hashed_file(
        self, path: Path, state: FileState, before: int, total: int
    ) -> Generator[tuple[int, int], None, str]:
        try:
            with closing(ByteFile(path)) as file:
                hashing = ContentHash(file, state.size)
                with closing(hashing.steps()) as steps:
                    for step in steps:
                        yield before + step, total
            # Looked at behind the reading: what was written meanwhile has changed it by now.
            same = FileState.of(path.stat()) == state
        except OSError as error:
            raise self._changed(error.strerror or str(error)) from error
        if not same:
            raise self._changed("")
        return hashing.digest()

    def _changed(self, reason: str) -> SlideChanged:
        what = f"cannot be read any more ({reason})" if reason else "was changed while it was in use"
        return SlideChanged(
            f"{self.path.name} {what}, and what was read of it may be damaged, so that nothing is kept: open "
            f"it again when no program writes to it any longer."
        )


def content_sha256(path: Path) -> str:
    """Identity of a slide by the whole content of its files; `Slide.fingerprint` of an open one.

    Parameters
    ----------
    path : Path
        A slide file, or a directory of DICOM files.

    Returns
    -------
    str
        64 hexadecimal digits; the layout is that of this module.

    Raises
    ------
    SlideError, SlideChanged, OSError
        If it is no slide, changes meanwhile or cannot be read.
    """
    return Identity(path).value()


def _joined(parts: tuple[SlidePart, ...], digests: list[str]) -> str:
    if len(digests) == 1:
        return digests[0]
    whole = hashlib.sha256(b"napari-her2 slide 1")
    for label, digest in sorted((part.label, digest) for part, digest in zip(parts, digests, strict=True)):
        whole.update(label.encode() + b"\0" + digest.encode())
    return whole.hexdigest()
