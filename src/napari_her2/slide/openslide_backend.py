"""Slides read with OpenSlide: DICOM, MRXS, VSI and whatever else tiffslide cannot open."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import openslide

from napari_her2.errors import SlideError
from napari_her2.slide.facts import SlideFacts, as_float, checked_mpp
from napari_her2.slide.files import DamagedTile
from napari_her2.slide.sources import BackendTiles
from napari_her2.slide.tiff_backend import rgb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.slide.sources import TileSource

_HEADER_BYTES = 1 << 16
# Explicit-VR SeriesInstanceUID (0020,000E): tag, VR, two bytes of length, the UID.
_SERIES_UID = re.compile(rb"\x20\x00\x0e\x00UI..([0-9.]+)", re.DOTALL)
_MIN_TILE, _MAX_TILE = 64, 2048


class OpenSlideBackend:
    """A slide opened with OpenSlide.

    Parameters
    ----------
    path : Path
        A slide file, or a directory of the DICOM files of one slide.
    """

    def __init__(self, path: Path) -> None:
        self.path = dicom_volume(path) if path.is_dir() else path
        self.name = f"OpenSlide {openslide.__library_version__} (openslide-python {openslide.__version__})"
        self._lock = threading.Lock()
        self._slide: Any = self._open()
        found = dict(self._slide.properties)
        self.levels: tuple[TileSource, ...] = tuple(
            BackendTiles((height, width), _tile_shape(found, number, (height, width)), self._reader(number))
            for number, (width, height) in enumerate(self._slide.level_dimensions)
        )
        vendor = found.get("openslide.vendor")
        named = vendor.upper() if vendor == "dicom" else str(vendor).capitalize()
        mpp, source, doubts = checked_mpp(
            found.get("openslide.mpp-y"), found.get("openslide.mpp-x"), f"{named} header"
        )
        icc = self._icc_profile()
        self.facts = SlideFacts(
            vendor, as_float(found.get("openslide.objective-power")), mpp, source, icc, doubts
        )
        self.associated_images: tuple[str, ...] = tuple(self._slide.associated_images)
        self._probe()

    def associated_image(self, name: str) -> NDArray[np.uint8]:
        """Pixels of an associated image.

        Parameters
        ----------
        name : str
            One of `associated_images`.

        Returns
        -------
        (h, w, 3) uint8
        """
        try:
            return self._attempt(lambda slide: slide.associated_images[name])
        except openslide.OpenSlideError as error:
            raise SlideError(f"The {name} image of {self.path.name} cannot be read: {error}.") from error

    def close(self) -> None:
        """Let go of the file; OpenSlide closes it after the last read that is under way."""
        self._slide = None

    def _probe(self) -> None:
        """Refuse a file of which nothing can be decoded: OpenSlide opens it if its header is whole."""
        level = self.levels[0]
        height, width = level.shape
        error: DamagedTile | None = None
        for y, x in ((height // 2, width // 2), (0, 0), (height - 1, width - 1)):
            try:
                level.read(y, x, 1, 1)
            except DamagedTile as damage:
                error = damage
            else:
                return
        raise SlideError(
            f"{self.path.name} has no readable pixel ({error.__cause__ if error else ''}): it was cut off "
            f"or damaged: copy it again from its source."
        ) from error

    def _open(self) -> Any:  # noqa: ANN401 - openslide ships no types
        try:
            return openslide.OpenSlide(str(self.path))
        except (openslide.OpenSlideError, OSError) as error:
            raise SlideError(
                f"{self.path.name} cannot be opened as a slide ({error}): it is damaged, cut off or of an "
                f"unknown kind; copy it again from its source."
            ) from error

    def _icc_profile(self) -> bytes | None:
        profile = self._slide.color_profile
        return None if profile is None else bytes(profile.tobytes())

    def _reader(self, number: int) -> Callable[[int, int, int, int], NDArray[np.uint8]]:
        downsample = float(self._slide.level_downsamples[number])

        def read(y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
            origin = (round(x * downsample), round(y * downsample))
            try:
                return self._attempt(lambda slide: slide.read_region(origin, number, (width, height)))
            except openslide.OpenSlideError as error:
                raise DamagedTile(
                    f"{self.path.name} is damaged near y {y}, x {x} of level {number} ({error}): "
                    f"copy the slide again from its source."
                ) from error

        return read

    def _attempt(self, get: Callable[[Any], Any]) -> NDArray[np.uint8]:
        """Get an image; once more on a fresh handle after an error.

        After an error OpenSlide refuses every further call on the same handle, so an error may be
        the fault of another thread that met damage elsewhere.
        """
        slide = self._slide
        if slide is None:
            raise SlideError(f"{self.path.name} was closed: open it again to read from it.")
        try:
            return _flat(np.asarray(get(slide)))
        except openslide.OpenSlideError:
            with self._lock:
                try:
                    return _flat(np.asarray(get(self._open())))
                finally:
                    if self._slide is slide:
                        self._slide = self._open()


def _flat(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA of OpenSlide over white; nearly every window is opaque, and then it is only cut."""
    if pixels.ndim == 3 and pixels.shape[2] == 4 and bool((pixels[..., 3] == 255).all()):
        return np.ascontiguousarray(pixels[..., :3])
    return rgb(pixels)


def _tile_shape(found: dict[str, str], number: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Take the file's own tile size where it is sensible, so that no tile is decoded twice."""

    def side(name: str, limit: int) -> int:
        stated = as_float(found.get(f"openslide.level[{number}].tile-{name}"))
        size = 512 if stated is None else int(stated)
        return max(1, min(limit, min(max(size, _MIN_TILE), _MAX_TILE)))

    return side("height", shape[0]), side("width", shape[1])


def dicom_volume(folder: Path) -> Path:
    """Find the file of a DICOM directory that holds the slide itself, not its label or overview.

    Parameters
    ----------
    folder : Path
        Directory of the DICOM instances of one slide.

    Returns
    -------
    Path
        The largest instance of image type VOLUME.

    Raises
    ------
    SlideError
        There is no such file, or there are several slides.
    """
    volumes: list[Path] = []
    series: set[bytes] = set()
    for path in sorted(entry for entry in folder.iterdir() if entry.is_file()):
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
        if head[128:132] != b"DICM" or b"\\VOLUME" not in head:
            continue
        volumes.append(path)
        found = _SERIES_UID.search(head)
        series |= {found.group(1)} if found else set()
    if not volumes:
        raise SlideError(
            f"The directory {folder.name} holds no DICOM slide: choose another, or the files of "
            f"the slides themselves."
        )
    if len(series) > 1:
        raise SlideError(
            f"The directory {folder.name} holds {len(series)} slides: open one of its .dcm files."
        )
    return max(volumes, key=lambda path: path.stat().st_size)
