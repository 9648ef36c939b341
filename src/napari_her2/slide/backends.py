"""Which library opens a slide: tiffslide by default, OpenSlide for what only it can open, none for pictures.

The choice is never silent: the backend is named, and a choice other than the default is a warning.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol

from napari_her2.errors import SlideError
from napari_her2.slide.dicom import DICOM_HEAD_BYTES, dicom_slide, is_dicom
from napari_her2.slide.files import ByteFile, NotBrightfield
from napari_her2.slide.tiff_chain import DESCRIPTION, SOFTWARE, XMP, read_headers
from napari_her2.slide.tiff_limits import refuse_impossible, refuse_overlong
from napari_her2.slide.tiffslide_import import load_tiffslide

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.slide.facts import SlideFacts
    from napari_her2.slide.sources import TileSource
    from napari_her2.slide.tiff_chain import TiffHeaders

BackendName = Literal["auto", "tiffslide", "openslide"]

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ROOT_BYTES = 1000  # the root of an XML description names its kind
_NO_TIFF = "Read with OpenSlide: this file is not a TIFF."
_CUT = "The file ends early: levels or associated images are missing; copy it again from its source."
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
    if path.is_dir():
        return _open_dicom(path, wanted)
    file = ByteFile(path)
    try:
        magic = file.read_at(0, DICOM_HEAD_BYTES)
        headers = read_headers(file) if magic[:4] in _TIFF_MAGIC else None
    finally:
        file.close()
    if is_dicom(magic):
        return _open_dicom(path, wanted)
    if headers is not None:
        refuse_impossible(path, file.size, headers)
        return _open_tiff(path, headers, wanted)
    if wanted == "auto" and magic.startswith(_PICTURE_MAGIC):
        return _open_picture(path), ()
    if wanted == "tiffslide":
        raise SlideError(f"{path.name} is not a TIFF, which tiffslide reads: choose another backend.")
    _refuse_hopeless(path)
    return _open_openslide(path), () if wanted == "openslide" else (_NO_TIFF,)


def _open_dicom(path: Path, wanted: BackendName) -> tuple[Backend, tuple[str, ...]]:
    if wanted == "tiffslide":
        raise SlideError(f"{path.name} is not a TIFF, which tiffslide reads: choose another backend.")
    why = "Read with OpenSlide: a directory of DICOM files is not a TIFF." if path.is_dir() else _NO_TIFF
    volume, notes = dicom_slide(path)
    return _open_openslide(volume), notes if wanted == "openslide" else (why, *notes)


def _open_tiff(path: Path, headers: TiffHeaders, wanted: BackendName) -> tuple[Backend, tuple[str, ...]]:
    """Open a TIFF: with OpenSlide where it knows the format better, or where tiffslide fails."""
    cut = (_CUT,) if headers.state == "cut" else ()
    if wanted == "openslide":
        return _open_openslide(path, headers), cut
    better = _better_known(headers)
    if wanted == "auto" and better:
        if find_spec("openslide") is None:
            raise SlideError(
                f"{path.name} is a slide of {better}, which only OpenSlide puts together rightly: "
                f"{_INSTALL_OPENSLIDE}."
            )
        return _open_openslide(path, headers), (f"Read with OpenSlide, which knows slides of {better}.", *cut)
    wrong = (
        (f"tiffslide puts slides of {better} together wrongly: open it with OpenSlide.",) if better else ()
    )
    try:
        return _open_tiffslide(path), (*wrong, *cut)
    except SlideError as error:
        # Pixels that are no brightfield image stay so: OpenSlide would show them as one.
        if wanted == "tiffslide" or isinstance(error, NotBrightfield):
            raise
        try:
            backend = _open_openslide(path, headers)
        except SlideError:
            raise error from None
        return backend, (f"Read with OpenSlide, because tiffslide cannot: {error}", *cut)


def _better_known(headers: TiffHeaders) -> str:
    """Name the maker whose slides tiffslide reads wrongly: overlapping tiles, areas apart; or nothing."""
    first = headers.directories[0]
    if any(b"<iScan" in directory.texts.get(XMP, b"") for directory in headers.directories):
        return "Ventana"
    if b"leica-microsystems.com/scn" in first.texts.get(DESCRIPTION, b"")[:_ROOT_BYTES]:
        return "Leica"
    if first.texts.get(SOFTWARE, b"").startswith(b"MedScan"):
        return "Trestle"
    return ""


def _open_tiffslide(path: Path) -> Backend:
    load_tiffslide()
    from napari_her2.slide.tiff_backend import TiffBackend

    return TiffBackend(path)


def _open_picture(path: Path) -> Backend:
    from napari_her2.slide.image_backend import ImageBackend

    return ImageBackend(path)


def _open_openslide(path: Path, headers: TiffHeaders | None = None) -> Backend:
    if find_spec("openslide") is None:
        raise SlideError(f"{path.name} needs OpenSlide, which is not installed: {_INSTALL_OPENSLIDE}.")
    if headers is not None:
        refuse_overlong(path, headers)
    from napari_her2.slide.openslide_backend import OpenSlideBackend

    return OpenSlideBackend(path, headers)


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
