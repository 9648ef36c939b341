"""Open whole slide images, with words for whatever cannot be opened."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from napari_her2.errors import SlideError
from napari_her2.slide.backends import BackendName, open_backend
from napari_her2.slide.facts import GIVEN_BY_USER, MAX_MPP, MIN_MPP, as_float, plausible_mpp
from napari_her2.slide.identity import Identity
from napari_her2.slide.whole_slide import Slide

__all__ = ["Slide", "open_slide"]

# "https://...", and "https:/..." as a Path has it; a letter and a colon alone are a drive.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def open_slide(
    path: str | os.PathLike[str],
    *,
    mpp: float | tuple[float, float] | None = None,
    backend: BackendName = "auto",
    mpp_source: str = GIVEN_BY_USER,
) -> Slide:
    """Open a slide.

    Parameters
    ----------
    path : path-like
        A slide file, a plain JPEG or PNG, or a directory of the DICOM files of one slide.
    mpp : float or tuple of float, optional
        Your own µm per level-0 pixel, one number or (y, x); overrides what the file states.
    backend : {"auto", "tiffslide", "openslide"}
        Library to read with. "auto" takes tiffslide, and OpenSlide for what tiffslide cannot open;
        `Slide.backend` and `Slide.warnings` say which and why. A plain picture is decoded whole, and is a
        slide of one level that states no µm/px.
    mpp_source : str
        How your ``mpp`` is known, in words; `Slide.mpp_source` and every result have it.

    Returns
    -------
    Slide

    Raises
    ------
    SlideError
        It is not a readable slide, or the µm/px given make no sense.

    Examples
    --------
    >>> with open_slide("case.svs") as slide:  # doctest: +SKIP
    ...     slide.shape, slide.mpp
    """
    if backend not in ("auto", "tiffslide", "openslide"):
        raise SlideError(f'There is no slide backend {backend!r}: use "auto", "tiffslide" or "openslide".')
    given = None if mpp is None else _given_mpp(mpp)
    place = _place(os.fspath(path))
    try:
        mode = place.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise SlideError(f"{place.name} is no file but a pipe or a device: choose the file of a slide.")
        if stat.S_ISREG(mode) and place.stat().st_size == 0:
            raise SlideError(f"{place.name} is an empty file: copy the slide again from its source.")
        identity = Identity(place)  # first: what is read from now on belongs to the files as they are now
        opened, notes = open_backend(place, backend)
        return Slide(place, opened, notes, given, identity, mpp_source)
    except (FileNotFoundError, NotADirectoryError):
        raise SlideError(f"There is no file {place}: check the path.") from None
    except OSError as error:
        raise SlideError(
            f"{place.name} cannot be read ({error.strerror or error}): check its permissions and the drive."
        ) from error


def _place(named: str) -> Path:
    """Return the file or folder meant: a leading ~ is a home folder only where it leads to something."""
    if "\0" in named:
        raise SlideError("The path of the slide holds a NUL character: check the path.")
    path = Path(named)
    if os.path.lexists(path):
        return path
    if _ADDRESS.match(named):
        raise SlideError(f"{named} is an address, not a file: download the slide, and open it from the disk.")
    home = Path(os.path.expanduser(named))
    return home if os.path.lexists(home) else path


def _given_mpp(mpp: float | tuple[float, float]) -> tuple[float, float]:
    pair = tuple(mpp) if isinstance(mpp, (tuple, list)) else (mpp, mpp)
    y, x = (as_float(value) for value in pair) if len(pair) == 2 else (None, None)
    if y is None or x is None or not plausible_mpp((y, x)):
        raise SlideError(
            f"{mpp} is no µm/px of a slide: give one number, or (y, x), between {MIN_MPP} and {MAX_MPP:g}."
        )
    return y, x
