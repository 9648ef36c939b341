"""Which library opens a slide: tiffslide by default, OpenSlide for what only it can open, none for pictures.

The choice is never silent: the backend is named, and a choice other than the default is a warning.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol

from napari_her2.errors import SlideError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.slide.facts import SlideFacts
    from napari_her2.slide.sources import TileSource

BackendName = Literal["auto", "tiffslide", "openslide"]

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PICTURE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_INSTALL_OPENSLIDE = "install the OpenSlide extra (pip install 'napari-her2[openslide]') and open it again"


class Backend(Protocol):
    """An open slide file, whatever library reads it."""

    @property
    def path(self) -> Path:
        """The file that holds the slide itself."""

    @property
    def name(self) -> str:
        """Library and version, ``"tiffslide 3.0.1"``."""

    @property
    def facts(self) -> SlideFacts:
        """What the header states."""

    @property
    def levels(self) -> tuple[TileSource, ...]:
        """The levels as tiles, level 0 first."""

    @property
    def associated_images(self) -> tuple[str, ...]:
        """Names of label, overview and the like."""

    def associated_image(self, name: str) -> NDArray[np.uint8]:
        """Pixels of an associated image, (h, w, 3) uint8; SlideError where it cannot be read."""

    def close(self) -> None:
        """Close every file."""


def open_backend(path: Path, wanted: BackendName = "auto") -> tuple[Backend, tuple[str, ...]]:
    """Open a slide file with the library that can.

    Parameters
    ----------
    path : Path
        A file that exists, or a directory of DICOM files.
    wanted : str
        "tiffslide" or "openslide" insists; "auto" takes tiffslide for every TIFF that it can open, and reads
        a plain JPEG or PNG itself.

    Returns
    -------
    backend : Backend
    warnings : tuple of str
        Why it is not the default backend.

    Raises
    ------
    SlideError
        No library can open it.
    """
    if wanted == "tiffslide":
        return _open_tiffslide(path), ()
    if wanted == "openslide":
        return _open_openslide(path), ()
    if path.is_dir():
        return _open_openslide(path), ("Read with OpenSlide: a directory of DICOM files is not a TIFF.",)
    with path.open("rb") as file:
        magic = file.read(8)
    if magic.startswith(_PICTURE_MAGIC):
        return _open_picture(path), ()
    if magic[:4] not in _TIFF_MAGIC:
        _refuse_hopeless(path)
        return _open_openslide(path), ("Read with OpenSlide: this file is not a TIFF.",)
    try:
        return _open_tiffslide(path), ()
    except SlideError as error:
        try:
            backend = _open_openslide(path)
        except SlideError:
            raise error from None
        return backend, (f"Read with OpenSlide, because tiffslide cannot open this file: {error}",)


def _open_tiffslide(path: Path) -> Backend:
    from napari_her2.slide.tiff_backend import TiffBackend

    if path.is_dir():
        raise SlideError(f"{path.name} is a directory: choose a file, or another backend.")
    return TiffBackend(path)


def _open_picture(path: Path) -> Backend:
    from napari_her2.slide.image_backend import ImageBackend

    return ImageBackend(path)


def _open_openslide(path: Path) -> Backend:
    if find_spec("openslide") is None:
        raise SlideError(f"{path.name} needs OpenSlide, which is not installed: {_INSTALL_OPENSLIDE}.")
    from napari_her2.slide.openslide_backend import OpenSlideBackend

    return OpenSlideBackend(path)


def _refuse_hopeless(path: Path) -> None:
    """Refuse a file that no backend could ever open, in words that say why."""
    with path.open("rb") as file:
        head = file.read(512)
    if path.suffix.lower() in {".mrxs", ".vms", ".vmu", ".vsi"}:
        return  # a small index beside the pixel data; OpenSlide judges it
    printable = sum(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head)
    if printable == len(head):
        raise SlideError(f"{path.name} is a text file, not a slide: choose the slide file itself.")
    if not any(head):  # a DICOM file has its magic at byte 128
        raise SlideError(f"{path.name} is no slide, or was copied badly: copy it again from its source.")
