"""The desk: a folder for each slide that a person worked on, found again by the content of the slide.

    <desk>/<digest of the fingerprint>/slide.json       everything small: score, µm/px, view, which results
                                       regions.geojson  drawn shapes, which other programs read too
                                       <digest>.her2    a result, whole

Each file appears whole or not at all, and is on the disk before the next one is begun: whatever ends the
program leaves all that was kept before. A file that this version cannot read is never written over: it is
moved aside, with a name that says when.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.desk.kept_shapes import read_shapes, shapes_geojson
from napari_her2.desk.kept_slide import KeptSlide, now, read_slide, slide_json
from napari_her2.errors import JobFailed
from napari_her2.inference.locks import FileLock
from napari_her2.outside import MiB
from napari_her2.own_files import private_folder, read_own
from napari_her2.whole_files import replaced_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from napari_her2.desk.kept_shapes import KeptShape
    from napari_her2.inference.result import SlideResult

FOLDER_VARIABLE = "NAPARI_HER2_DESK"
SLIDE_FILE, REGIONS_FILE = "slide.json", "regions.geojson"
_LOCK = "desk.lock"
_ASIDE = ".aside-"
_MOST_SLIDE, _MOST_REGIONS = 4 * MiB, 512 * MiB
_LEFT_BEHIND_S = 3600.0
_PATIENCE_S = 10.0
"""How long another program may take for a write of its own."""


def desk_folder() -> Path:
    """Folder of the desk: the environment variable, else in the data folder of the user."""
    import platformdirs

    chosen = os.environ.get(FOLDER_VARIABLE)
    base = platformdirs.user_data_path("napari-her2", appauthor=False) / "desk"
    return Path(chosen) if chosen else base


class Desk:
    """What is kept of slides; one object may be used from one thread at a time, several from several.

    Parameters
    ----------
    folder : Path, optional
        By default that of `desk_folder`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = desk_folder() if folder is None else folder
        self._sound: dict[Path, tuple[int, int]] = {}
        """Files of regions that were read or written here, with their time and size."""

    def read(self, fingerprint: str) -> KeptSlide | None:
        """Return what is kept of a slide; None where nothing is.

        Parameters
        ----------
        fingerprint : str
            `Slide.fingerprint`.

        Returns
        -------
        KeptSlide or None
            Regions that cannot be read are missing, and ``problems`` says so.

        Raises
        ------
        JobFailed
            If its file is of a newer version, damaged, or cannot be read. It is left as it is.
        """
        place = self.place(fingerprint)
        kept = self._read_slide(place, fingerprint)
        if kept is None:
            return None
        try:
            return replace(kept, regions=self._regions(place / REGIONS_FILE))
        except FileNotFoundError:
            return kept
        except JobFailed as error:
            return replace(kept, problems=(str(error),))
        except OSError as error:
            return replace(kept, problems=(_unreadable(place / REGIONS_FILE, error),))

    def keep(self, kept: KeptSlide) -> KeptSlide:
        """Keep all of a slide in place of what was kept; see `change`, which keeps what others changed."""
        return self.change(kept.fingerprint, lambda _: kept, kept.regions)

    def change(
        self,
        fingerprint: str,
        change: Callable[[KeptSlide], KeptSlide],
        regions: Sequence[KeptShape] | None = None,
    ) -> KeptSlide:
        """Change what is kept of a slide: read, changed and written while nobody else does.

        Parameters
        ----------
        fingerprint : str
        change : callable
            From what is kept, with nothing in it where nothing is, to what is to be kept. It sees no regions.
        regions : sequence of KeptShape, optional
            In place of those that are kept; without any these stay.

        Returns
        -------
        KeptSlide
            As it is kept now; with the regions that were given.

        Raises
        ------
        JobFailed
            If it cannot be written, because the disk is full for example; what was kept before stays.
        """
        place = self.place(fingerprint)
        try:
            with self._locked():
                before = self._before(place, fingerprint)
                kept = replace(change(before), fingerprint=fingerprint, time=now(), problems=())
                private_folder(place)
                _clean(place)
                if regions is not None:
                    kept = replace(kept, regions=tuple(regions))
                    self._write_regions(place / REGIONS_FILE, kept.regions)
                _write(place / SLIDE_FILE, slide_json(kept).encode())
                self._drop(place, set(before.results.values()) - set(kept.results.values()))
                return kept
        except OSError as error:
            raise JobFailed(
                f"Your work on this slide cannot be kept in {self.folder} ({error.strerror or error}): free "
                f"space there, or set {FOLDER_VARIABLE} to another folder; it is tried again with the next "
                f"change."
            ) from error

    def keep_result(self, fingerprint: str, result: SlideResult) -> str:
        """Write a result beside what is kept of a slide, in place of one of the same model.

        Parameters
        ----------
        fingerprint : str
        result : SlideResult

        Returns
        -------
        str
            Its name, for ``KeptSlide.results``.

        Raises
        ------
        JobFailed
            If it cannot be written.
        """
        from napari_her2.export.kept_result import write_kept

        place = self.place(fingerprint)
        name = hashlib.sha256(result.model.encode()).hexdigest()[:16] + ".her2"
        try:
            private_folder(place)
        except OSError as error:
            raise JobFailed(
                f"The result cannot be kept in {self.folder} ({error.strerror or error}): free space there, "
                f"or set {FOLDER_VARIABLE} to another folder."
            ) from error
        try:
            write_kept(result, place / name)
        except ValueError as error:
            raise JobFailed(
                f"The result of {result.model} cannot be kept ({error}), and will not come back with the "
                f"slide: write it to a folder of its own."
            ) from error
        return name

    def result(self, kept: KeptSlide, model: str, slide_ids: Mapping[str, str] | None = None) -> SlideResult:
        """Read a kept result.

        Parameters
        ----------
        kept : KeptSlide
        model : str
            A key of its ``results``.
        slide_ids : mapping of str to str, optional
            Fingerprints of open slides to their ids.

        Raises
        ------
        JobFailed
            If it cannot be read.
        """
        from napari_her2.export.kept_result import read_kept

        found: SlideResult = read_kept(self.place(kept.fingerprint) / kept.results[model], slide_ids)
        return found

    def forget(self, fingerprint: str) -> None:
        """Delete what is kept of a slide, and what was set aside of it.

        Raises
        ------
        JobFailed
            If it cannot be deleted.
        """
        try:
            if self.folder.is_dir():
                with self._locked():
                    for place in self._places(fingerprint):
                        shutil.rmtree(place)
        except OSError as error:
            raise JobFailed(
                f"What is kept of this slide could not be deleted ({error.strerror or error}): delete "
                f"{self.place(fingerprint)}."
            ) from error

    def place(self, fingerprint: str) -> Path:
        """Folder of a slide. Fingerprints come from files of others: only their digest becomes a name."""
        return self.folder / hashlib.sha256(fingerprint.encode()).hexdigest()[:40]

    def size(self, fingerprint: str = "") -> int:
        """Bytes that are kept of a slide, or of all slides."""
        places = self._places(fingerprint) if fingerprint else [self.folder]
        files = (file for place in places if place.is_dir() for file in place.rglob("*"))
        return sum(file.lstat().st_size for file in files if not file.is_dir())

    def __len__(self) -> int:
        """How many slides something is kept of."""
        found = self.folder.glob(f"*/{SLIDE_FILE}") if self.folder.is_dir() else ()
        return sum(_ASIDE not in path.parent.name for path in found)

    def _places(self, fingerprint: str) -> list[Path]:
        place = self.place(fingerprint)
        found = [place, *self.folder.glob(f"{place.name}{_ASIDE}*")] if self.folder.is_dir() else []
        return [each for each in found if each.is_dir() and not each.is_symlink()]

    def _before(self, place: Path, fingerprint: str) -> KeptSlide:
        """Return what is kept; what cannot be read is moved aside."""
        try:
            kept = self._read_slide(place, fingerprint)
        except JobFailed:
            _move_aside(place)
            kept = None
        return KeptSlide(fingerprint) if kept is None else kept

    def _read_slide(self, place: Path, fingerprint: str) -> KeptSlide | None:
        path = place / SLIDE_FILE
        try:
            return read_slide(read_own(path, _MOST_SLIDE), fingerprint)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise JobFailed(_unreadable(path, error)) from error

    def _regions(self, path: Path) -> tuple[KeptShape, ...]:
        state = _state(path)
        shapes = read_shapes(read_own(path, _MOST_REGIONS))
        self._sound[path] = state
        return shapes

    def _write_regions(self, path: Path, shapes: Sequence[KeptShape]) -> None:
        try:
            if self._sound.get(path) != _state(path):
                self._regions(path)
        except FileNotFoundError:
            pass
        except JobFailed:
            _move_aside(path)
        if shapes:
            _write(path, shapes_geojson(shapes).encode())
            self._sound[path] = _state(path)
        else:
            path.unlink(missing_ok=True)

    @staticmethod
    def _drop(place: Path, names: set[str]) -> None:
        for name in names:
            (place / name).unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(private_folder(self.folder) / _LOCK)
        deadline = time.monotonic() + _PATIENCE_S
        while not lock.acquire():
            if time.monotonic() > deadline:
                raise OSError(0, "another program is writing there")
            time.sleep(0.02)
        try:
            yield
        finally:
            lock.release()


def _state(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_mtime_ns, found.st_size


def _write(path: Path, data: bytes) -> None:
    """Write a file of ours whole, and wait until it is on the disk."""
    with replaced_file(path) as file:
        with file.open("xb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        file.chmod(0o600)


def _clean(place: Path) -> None:
    """Take away what a write left behind that was ended in its midst, long ago."""
    for scratch in place.glob(".*-*"):
        if scratch.is_dir() and time.time() - scratch.lstat().st_mtime > _LEFT_BEHIND_S:
            shutil.rmtree(scratch, ignore_errors=True)


def _move_aside(path: Path) -> None:
    """Give a file or folder another name beside its own, which nobody reads or writes any more."""
    stem = f"{path.name}{_ASIDE}{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    names = (path.with_name(stem if number == 1 else f"{stem}-{number}") for number in count(1))
    path.rename(next(name for name in names if not os.path.lexists(name)))


def _unreadable(path: Path, error: OSError) -> str:
    return (
        f"{path} cannot be read ({error.strerror or error}), and what it holds of this slide is missing: "
        f"check its rights."
    )
