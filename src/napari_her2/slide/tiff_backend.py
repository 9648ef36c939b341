"""Slides read with tiffslide: Aperio SVS, OME-TIFF, NDPI, Philips, generic TIFF.

tiffslide and tifffile read the headers; which image is what is found by `tiff_images`, the tiles are decoded
by `tiff_levels`, and what their samples mean is known by `tiff_colour`.
"""

from __future__ import annotations

import logging
import struct
import threading
import warnings
from typing import TYPE_CHECKING

import tifffile
import tiffslide

from napari_her2.errors import SlideError
from napari_her2.slide.decode import JPEG
from napari_her2.slide.facts import SlideFacts, stated_facts
from napari_her2.slide.files import ByteFile, DamagedTile, NotBrightfield
from napari_her2.slide.frame import frame_of
from napari_her2.slide.same_picture import shows_the_same
from napari_her2.slide.tiff_images import find_images
from napari_her2.slide.tiff_levels import all_fail, level_of
from napari_her2.slide.tiffslide_facts import header_facts, in_words, read_properties

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.slide.sources import TileSource
    from napari_her2.slide.tiff_images import TiffImage
    from napari_her2.slide.tiff_levels import Level

# Without a handler Python prints tifffile's complaints about damaged files to the terminal;
# an application that configures logging still gets them.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_ICC_TAG = 34675
_TRIED_PX = 512
_DARK = 64
_IRREGULAR = (
    "Every stored tile that was tried has irregular JPEG data, a habit of the writer of this file: damage "
    "inside a tile cannot be told from it."
)


class TiffBackend:
    """A slide opened with tiffslide.

    Parameters
    ----------
    path : Path
        The TIFF file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"tiffslide {tiffslide.__version__}"
        self._lock = threading.Lock()
        self._file = ByteFile(path)
        self._notes: list[str] = []
        # As a stream: tiffslide takes a name for an address, where "::" and "~" mean something.
        self._stream = path.open("rb")
        try:
            # Files that its OME-XML names besides it are left alone: a slide is one file.
            self._slide = tiffslide.TiffSlide(self._stream, tifffile_options={"_multifile": False})
        except Exception as error:  # parsers of damaged files fail in every way there is
            self._file.close()
            self._stream.close()
            raise SlideError(_cannot_open(path, error)) from error
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self._properties, failure = read_properties(self._slide)
                self._contents = find_images(self._slide.ts_tifffile, path.name, self._shows_the_same)
                self._notes += self._contents.notes
                self._found = self._find_levels()
            self._notes += in_words(caught)
            if failure:
                self._notes.append(
                    f"The header of the maker of the scanner cannot be understood ({failure}): the file is "
                    f"read as a plain TIFF."
                )
            self.levels: tuple[TileSource, ...] = tuple(level.source for level in self._found)
            self.associated_images: tuple[str, ...] = tuple(self._contents.associated)
            self.frame = frame_of(self._properties)
            self.facts = self._find_facts()
        except SlideError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise SlideError(_cannot_open(path, error)) from error

    @property
    def read_s(self) -> float:
        """Seconds that a read of the file takes at present."""
        return self._file.read_s

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
            image = self._contents.associated[name]
            with self._lock:  # its tags are read from the stream when they are first needed
                level = level_of(self._file, image, None, strict=False)
            return level.source.read(0, 0, *image.shape)
        except SlideError as error:
            raise SlideError(f"The {name} image of {self.path.name} cannot be read: {error}") from error
        except Exception as error:
            raise SlideError(
                f"The {name} image of {self.path.name} cannot be read: {_reason(error)}."
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        with self._lock:
            self._slide.close()
            self._stream.close()

    def _shows_the_same(self, finer: TiffImage, coarser: TiffImage) -> bool:
        try:
            images = [level_of(self._file, image, None, strict=False) for image in (finer, coarser)]
        except SlideError:  # such pixels are no level; those of the slide itself are refused in words
            return False
        return shows_the_same(images[0].source, images[1].source)

    def _find_levels(self) -> list[Level]:
        """Levels of the slide, the finest first: each may be made from the finer one where it has gaps."""
        found: list[Level] = []
        strict = True
        for image in self._contents.levels:
            finer = found[-1].source if found else None
            level = level_of(self._file, image, finer, strict=strict)
            if not found and int(image.pages[0].compression) == JPEG and all_fail(level.stored[0]):
                lenient = level_of(self._file, image, finer, strict=False)
                if not all_fail(lenient.stored[0]):
                    level, strict = lenient, False
                    self._notes.append(_IRREGULAR)
            found.append(level)
        if found[0].channels and _is_dark(found[-1].source):
            raise NotBrightfield(
                f"{self.path.name} holds three dark channels, as fluorescence images do, and no brightfield "
                f"colours: open the H&E or IHC slide itself."
            )
        return found

    def _find_facts(self) -> SlideFacts:
        shape = self.levels[0].shape
        tiff, page = self._slide.ts_tifffile, self._contents.levels[0].pages[0]
        vendor, objective, stated = header_facts(tiff, page, self._properties, self._contents.ome)
        (source, *mpp), *others = stated
        tag = page.tags.get(_ICC_TAG) or tiff.pages[0].tags.get(_ICC_TAG)
        return stated_facts(
            vendor=vendor,
            objective=objective,
            mpp=(mpp[0], mpp[1]),
            source=source,
            shape=shape,
            others=others,
            icc_profile=tag.value if tag is not None and isinstance(tag.value, bytes) else None,
            warnings=(*self._notes, *self._gaps()),
        )

    def _gaps(self) -> list[str]:
        """Sentences about tiles whose bytes are not in the file."""
        sentences = []
        for number, level in enumerate(self._found):
            missing = sum(int(tiles.missing.sum()) for tiles in level.stored)
            sparse = sum(int(tiles.sparse.sum()) for tiles in level.stored)
            total = sum(len(tiles.offsets) for tiles in level.stored)
            if missing + sparse == total and number == 0:
                raise SlideError(
                    f"{self.path.name} holds no pixel data of its full resolution, so the file was cut off: "
                    f"copy it again from its source."
                )
            if missing:
                sentences.append(
                    f"{missing:,} of {total:,} stored tiles of level {number} are not in the file, "
                    f"which seems to be cut off: they are left out; copy the slide again from its source."
                )
        return sentences


def _is_dark(level: TileSource) -> bool:
    """Whether a few places of a level are dark on average, as fluorescence is and glass never."""
    means = []
    for part in (0.1, 0.3, 0.5, 0.7, 0.9):
        height, width = (min(side, _TRIED_PX) for side in level.shape)
        y, x = int((level.shape[0] - height) * part), int((level.shape[1] - width) * part)
        try:
            means.append(float(level.read(y, x, height, width).mean()))
        except DamagedTile:
            continue
    return bool(means) and sum(means) / len(means) < _DARK


def _reason(error: BaseException) -> str:
    return str(error).strip().rstrip(".").splitlines()[0] if str(error).strip() else type(error).__name__


def _cannot_open(path: Path, error: BaseException) -> str:
    """Say what failed and what to do; damage only where it is the likely cause."""
    if isinstance(error, (tifffile.TiffFileError, struct.error, EOFError)):
        return (
            f"{path.name} cannot be opened as a slide ({_reason(error)}): it is damaged, cut off or of an "
            f"unknown kind; copy it again from its source."
        )
    return (
        f"{path.name} cannot be opened ({_reason(error)}): tiffslide does not understand its header; export "
        f"the slide as a tiled TIFF if other programs open it, or copy it again from its source."
    )
