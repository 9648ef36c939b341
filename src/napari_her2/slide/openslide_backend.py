"""Slides read with OpenSlide: DICOM, MRXS, VSI and whatever else tiffslide cannot open."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import openslide
from PIL.ImageCms import PyCMSError

from napari_her2.errors import SlideError
from napari_her2.slide.facts import TIFF_RESOLUTION, SlideFacts, as_float, ome_facts, stated_facts
from napari_her2.slide.files import DamagedTile
from napari_her2.slide.frame import frame_of
from napari_her2.slide.header_scale import aperio_fields, leica_scale, tag_scale
from napari_her2.slide.openslide_levels import LevelWindows
from napari_her2.slide.sources import BackendTiles
from napari_her2.slide.tiff_chain import DESCRIPTION, RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION
from napari_her2.slide.tiff_colour import rgb
from napari_her2.slide.tiff_limits import MAX_SIDE_PX, MAX_STRIP_BYTES, MAX_TILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.slide.facts import Stated
    from napari_her2.slide.sources import TileSource
    from napari_her2.slide.tiff_chain import TiffHeaders

_MIN_TILE, _MAX_TILE = 64, 2048


class OpenSlideBackend:
    """A slide opened with OpenSlide.

    Parameters
    ----------
    path : Path
        A slide file; of a DICOM slide any file of it.
    headers : TiffHeaders, optional
        The directories of a TIFF: they may state a scale that OpenSlide does not read.
    """

    def __init__(self, path: Path, headers: TiffHeaders | None = None) -> None:
        self.path = path
        self.name = f"OpenSlide {openslide.__library_version__} (openslide-python {openslide.__version__})"
        self._lock = threading.Lock()
        self._slide: Any = self._open()
        found = dict(self._slide.properties)
        _refuse_impossible(path, self._slide.level_dimensions, found)
        self.levels: tuple[TileSource, ...] = tuple(
            BackendTiles((height, width), _tile_shape(found, number, (height, width)), self._reader(number))
            for number, (width, height) in enumerate(self._slide.level_dimensions)
        )
        self.frame = frame_of(found)
        self.facts = _facts(found, self.levels[0].shape, headers, self._icc_profile())
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
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise SlideError(
                f"{self.path.name} cannot be opened as a slide: OpenSlide does not know its kind, or it is "
                f"so badly damaged or cut off that it is not recognised; copy it again from its source, or "
                f"export the slide as a tiled TIFF."
            ) from error
        except (openslide.OpenSlideError, OSError) as error:
            raise SlideError(
                f"{self.path.name} cannot be opened as a slide, because OpenSlide refuses it ({error}): copy "
                f"it again from its source, with all files that belong to it, or export it as a tiled TIFF."
            ) from error

    def _icc_profile(self) -> bytes | None:
        try:
            profile = self._slide.color_profile
        except PyCMSError:  # damaged: the pixels are as good without it
            return None
        return None if profile is None else bytes(profile.tobytes())

    def _reader(self, number: int) -> Callable[[int, int, int, int], NDArray[np.uint8]]:
        width, height = self._slide.level_dimensions[number]

        def read(origin: tuple[int, int], height: int, width: int) -> NDArray[np.uint8]:
            try:
                return self._attempt(lambda slide: slide.read_region(origin, number, (width, height)))
            except openslide.OpenSlideError as error:
                raise DamagedTile(
                    f"{self.path.name} is damaged near y {origin[1]}, x {origin[0]} (seen at level {number}: "
                    f"{error}): copy the slide again from its source."
                ) from error

        return LevelWindows((height, width), float(self._slide.level_downsamples[number]), read).window

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


def _facts(
    found: dict[str, str], shape: tuple[int, int], headers: TiffHeaders | None, icc_profile: bytes | None
) -> SlideFacts:
    """Put together what the header states, where OpenSlide reads it and where it does not."""
    vendor = found.get("openslide.vendor")
    named = "DICOM" if vendor == "dicom" else str(vendor).capitalize()
    comment = found.get("openslide.comment") or _description(headers)
    objective: object = found.get("openslide.objective-power")
    y: object = found.get("openslide.mpp-y")
    x: object = found.get("openslide.mpp-x")
    source = TIFF_RESOLUTION if vendor == "generic-tiff" else f"{named} header"
    ome = ome_facts(comment, shape) if vendor == "generic-tiff" else None
    others: list[Stated] = []
    if ome and (ome[0] is not None or ome[1] is not None):
        others.append((source, y, x))
        y, x, source = ome[0], ome[1], "OME-XML"
    if vendor == "aperio" and (x is None or objective is None):
        fields = aperio_fields(comment)
        y, x = (y, x) if x is not None else (fields.get("MPP") or None,) * 2
        objective = objective or fields.get("AppMag")
    if vendor == "leica" and x is None:
        y, x = leica_scale(comment)
    if x is None and y is None and headers is not None:
        y, x = _tag_scale(headers, shape)
        source = TIFF_RESOLUTION
    return stated_facts(
        vendor=vendor,
        objective=ome[2] if ome and ome[2] else objective,
        mpp=(y, x),
        source=source,
        shape=shape,
        icc_profile=icc_profile,
        others=others,
    )


def _description(headers: TiffHeaders | None) -> str:
    text = headers.directories[0].texts.get(DESCRIPTION, b"") if headers else b""
    return text.decode("utf-8", "replace").strip("\0")


def _tag_scale(headers: TiffHeaders, shape: tuple[int, int]) -> tuple[float | None, float | None]:
    """Scale from the resolution tags of the directory that holds level 0."""
    for directory in headers.directories:
        if directory.shape == shape:
            numbers = directory.numbers
            return tag_scale(
                numbers.get(RESOLUTION_UNIT), numbers.get(Y_RESOLUTION), numbers.get(X_RESOLUTION)
            )
    return None, None


def _refuse_impossible(
    path: Path, level_dimensions: tuple[tuple[int, int], ...], found: dict[str, str]
) -> None:
    """Refuse sizes for which OpenSlide would reserve more memory than there is, and end the process."""
    sizes = [(w, h, MAX_SIDE_PX**2) for w, h in level_dimensions]
    for name, value in found.items():
        # "openslide.level[0].tile-width", "openslide.associated.label.width"
        if name.endswith("width") and (".associated." in name or ".tile-" in name):
            width, height = as_float(value), as_float(found.get(name.replace("width", "height")))
            limit = MAX_TILE_BYTES if ".tile-" in name else MAX_STRIP_BYTES
            sizes.append((int(width or 0), int(height or 0), limit // 4))
    for width, height, limit_px in sizes:
        if max(width, height) > MAX_SIDE_PX or width * height > limit_px:
            raise SlideError(
                f"{path.name} claims an image or a tile of {width:,} x {height:,} px, which no slide has: it "
                f"is damaged; copy it again from its source."
            )
