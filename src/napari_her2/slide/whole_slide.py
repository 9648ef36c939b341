"""An open whole slide image: levels, µm/px, pixels, pyramid, tissue and tiles."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import SlideError
from napari_her2.slide.display import DisplayLevel, display_levels
from napari_her2.slide.facts import GIVEN_BY_USER
from napari_her2.slide.files import SLOW_READ_S
from napari_her2.slide.frame import SlideFrame
from napari_her2.slide.names import slide_name
from napari_her2.slide.once import Once
from napari_her2.slide.pyramid import (
    CorruptRegion,
    PixelLevel,
    build_levels,
    dask_pyramid,
    small_image,
    with_levels_between,
)
from napari_her2.slide.sources import WHITE
from napari_her2.slide.tile_reading import TileReading

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    import dask.array as da
    from numpy.typing import NDArray

    from napari_her2.slide.backends import Backend
    from napari_her2.slide.identity import Identity
    from napari_her2.slide.sources import TileSource
    from napari_her2.slide.tissue import Preset, TissueMask

_MAX_READ_PIXELS = 1 << 30


class Slide(TileReading):
    """An open whole slide image.

    Made by `open_slide`. Reading is safe from many threads at once. The file closes with `close`,
    at the end of a ``with`` block, or with the last reference to the slide or to an array of its
    pyramid. A slide cannot be used in a forked child process: open it there.

    Attributes
    ----------
    path : Path
    name : str
        Of the file or folder; see `napari_her2.slide.names`.
    backend : str
        Library that reads it, with its version.
    vendor : str or None
    objective : float or None
        Magnification.
    shape : tuple of int
        (height, width) of level 0, pixels.
    level_shapes : tuple of tuple of int
        (height, width) of each level of the file.
    level_downsamples : tuple of tuple of float
        Exact (y, x) downsample of each level.
    mpp : tuple of float or None
        (y, x) µm per level-0 pixel; None where it is not stated.
    mpp_source : str
        "Aperio header", "OME-XML", "TIFF resolution", "given by the user", "not stated", ...
    mpp_given : bool
        Whether a person gave it, and the file was not asked.
    stated_scales : tuple of StatedScale
        All that the file says of the scale and that can be true.
    header_contradiction : str
        In which way the file contradicts itself about the scale, a sentence; empty where it does not.
    icc_profile : bytes or None
    associated_images : tuple of str
    warnings : tuple of str
        What a user should know, a sentence each.
    slide_id : str
        Tells open slides apart without reading them: the same file opened twice has one. It does not outlive
        a change or a copy of the file; that is what `fingerprint` is for.
    identity : Identity
        Of the files as they were when the slide was opened.
    """

    def __init__(
        self,
        path: Path,
        backend: Backend,
        notes: tuple[str, ...],
        mpp: tuple[float, float] | None,
        identity: Identity,
        mpp_source: str = GIVEN_BY_USER,
    ) -> None:
        self._pid = os.getpid()
        self._backend = backend
        self._closer = weakref.finalize(self, backend.close)
        self._lock = threading.Lock()
        self._corrupt: dict[tuple[int, int, int], CorruptRegion] = {}
        self._display: tuple[PixelLevel, ...] | None = None
        self._tissue = Once["TissueMask"]()
        facts = backend.facts
        self.path = path
        self.name = slide_name(path)
        self.backend = backend.name
        self.vendor = facts.vendor
        self.objective = facts.objective
        self.icc_profile = facts.icc_profile
        self.associated_images = backend.associated_images
        self.mpp = mpp or facts.mpp
        self.mpp_source = mpp_source if mpp else facts.mpp_source
        self.mpp_given = mpp is not None
        self.stated_scales = facts.stated
        self.header_contradiction = facts.scale_problem
        settled = () if mpp is None else facts.scale_doubts
        self.warnings = (*notes, *(words for words in facts.warnings if words not in settled))
        self.level_shapes = tuple(level.shape for level in backend.levels)
        self.shape = self.level_shapes[0]
        self.frame: SlideFrame = getattr(backend, "frame", SlideFrame())
        self.level_downsamples = tuple((self.shape[0] / h, self.shape[1] / w) for h, w in self.level_shapes)
        self.identity = identity
        self.slide_id = identity.key

    def __repr__(self) -> str:
        mpp = "µm/px not stated" if self.mpp is None else f"{self.mpp[1]:g} x {self.mpp[0]:g} µm/px"
        return f"<Slide {self.path.name}: {self.shape[1]} x {self.shape[0]} px, {mpp}, {self.backend}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether the file was closed."""
        return not self._closer.alive

    def close(self) -> None:
        """Close the file; further reads raise SlideError."""
        self._closer()

    @property
    def known_mpp(self) -> tuple[float, float]:
        """`mpp`; raises SlideError where it is not stated."""
        if self.mpp is None:
            raise SlideError(
                f"{self.path.name} says no µm/px, so nothing on it has a known size; "
                f"give it (--mpp, or the field in the dock)."
            )
        return self.mpp

    @property
    def fingerprint(self) -> str:
        """Hash over the whole content of the files. Gigabytes take seconds: see `Identity.steps`."""
        return self.identity.value()

    def read(self, level: int, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Pixels of a window of a level.

        Parameters
        ----------
        level : int
            Level of the file, 0 is the finest.
        y, x : int
            Upper left corner, pixels of that level; may lie outside.
        height, width : int
            Pixels of that level.

        Returns
        -------
        (height, width, 3) uint8
            RGB; white outside the slide.

        Raises
        ------
        SlideError
            The file is damaged there (the message names the place), was closed or was forked.
        """
        source = self._source(level)
        if height < 0 or width < 0 or height * width > _MAX_READ_PIXELS:
            raise SlideError(
                f"A window of {width} x {height} px is too large to read at once: read smaller ones."
            )
        y0, x0 = max(y, 0), max(x, 0)
        y1, x1 = min(y + height, source.shape[0]), min(x + width, source.shape[1])
        if (y0, x0, y1, x1) == (y, x, y + height, x + width) and height and width:
            return source.read(y, x, height, width)
        out = np.full((height, width, 3), WHITE, np.uint8)
        if y0 < y1 and x0 < x1:
            out[y0 - y : y1 - y, x0 - x : x1 - x] = source.read(y0, x0, y1 - y0, x1 - x0)
        return out

    def thumbnail(self, max_px: int = 1024) -> NDArray[np.uint8]:
        """Show the whole slide, small.

        Parameters
        ----------
        max_px : int
            Longer side at most, pixels; a smaller slide keeps its size.

        Returns
        -------
        (h, w, 3) uint8
            Averaged over areas from the coarsest sufficient level. Damage is drawn as magenta hatch.
        """
        self._guard()
        if max_px < 1:
            raise SlideError(f"A thumbnail of {max_px} px is not possible: ask for at least one pixel.")
        return small_image(self._levels(), max_px)

    def pyramid(self) -> list[da.Array]:
        """Lazy levels for display, largest first, in chunks of 1024 px.

        Returns
        -------
        list of (h, w, 3) uint8 dask arrays
            The last is at most 1,000 px on its longer side; levels that the file does not have are
            averaged from the next finer one when first needed. Damage is drawn as magenta hatch and
            listed by `corrupt_regions`.
        """
        self._guard()
        return dask_pyramid(self._levels(), self._guard, f"her2-{self.slide_id[:32]}")

    def display(self) -> list[DisplayLevel]:
        """Return the levels of `pyramid` as arrays for a viewer, which read what is indexed at once.

        Returns
        -------
        list of (h, w, 3) uint8 arrays
            The same pixels, and levels of half the size, averaged, where the next one of `pyramid` lies
            further than that. What was shown stays decoded, within a bound of memory, and what lies in the
            way of the view is decoded ahead.
        """
        self._guard()
        return display_levels(with_levels_between(self._levels()), self._guard, f"her2-{self.slide_id[:32]}")

    @property
    def slow_drive(self) -> str:
        """Why views of it come late, a sentence; empty where the file is read fast enough, or nobody knows.

        Not known of what OpenSlide reads.
        """
        wait_s = float(getattr(self._backend, "read_s", 0.0))
        if wait_s < SLOW_READ_S:
            return ""
        return (
            f"Views come late because each read of the file takes {1000 * wait_s:.0f} ms, as on a slow "
            f"network drive: copy the slide to a disk of this machine, or switch on Smooth panning (in the "
            f"dock HER2 Scoring) meanwhile."
        )

    def corrupt_regions(self) -> tuple[CorruptRegion, ...]:
        """Damaged places met so far while displaying."""
        with self._lock:
            return tuple(self._corrupt.values())

    def associated_image(self, name: str) -> NDArray[np.uint8]:
        """Label, overview or the like.

        Parameters
        ----------
        name : str
            One of `associated_images`.

        Returns
        -------
        (h, w, 3) uint8
        """
        self._guard()
        if name not in self.associated_images:
            known = ", ".join(self.associated_images) or "none"
            raise SlideError(f"{self.path.name} has no associated image {name!r}; it has: {known}.")
        return self._backend.associated_image(name)

    def tissue(self, preset: Preset = "auto") -> TissueMask:
        """Tissue mask of the slide, found once and kept, whichever thread asks first.

        Parameters
        ----------
        preset : {"auto", "resection", "biopsy"}
        """
        return self._tissue.get(preset, lambda: self._find_tissue(preset))

    def _find_tissue(self, preset: Preset) -> TissueMask:
        from napari_her2.slide.tissue import find_tissue

        self._guard()
        found = find_tissue(self, preset)
        self._guard()  # a file that was closed meanwhile looks like a damaged one
        return found

    def _levels(self) -> tuple[PixelLevel, ...]:
        with self._lock:
            if self._display is None:
                self._display = build_levels(self._backend.levels, self._note_corrupt)
            return self._display

    def _note_corrupt(self, region: CorruptRegion) -> None:
        with self._lock:
            self._corrupt[region.level, region.y, region.x] = region

    def _source(self, level: int) -> TileSource:
        self._guard()
        if not 0 <= level < len(self.level_shapes):
            raise SlideError(f"{self.path.name} has levels 0 to {len(self.level_shapes) - 1}, not {level}.")
        return self._backend.levels[level]

    def _guard(self) -> None:
        if os.getpid() != self._pid:
            raise SlideError(
                f"{self.path.name} was opened before this process was forked: open it in the new process."
            )
        if not self._closer.alive:
            raise SlideError(f"{self.path.name} was closed: open it again to read from it.")
