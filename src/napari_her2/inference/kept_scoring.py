"""What a scoring keeps, so that it can be answered again for other regions: nothing is read or embedded anew.

Of each tile is kept what the head made of it by itself, and where it lies in the spaces that say how familiar
it is; features are not needed again. Slides are known by name and by a reference that does not keep them
open. `napari_her2.methods.method.Method.again` takes it from here.
"""

from __future__ import annotations

import tempfile
import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import NotComputed as NotComputed
from napari_her2.inference.terms import Clock, Terms
from napari_her2.models.familiarity import FEATURES
from napari_her2.own_files import cache_base, private_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.asked import Asked
    from napari_her2.inference.embeddings import Embeddings
    from napari_her2.inference.result import CaseOf
    from napari_her2.inference.selection import Chosen
    from napari_her2.inference.slide_record import SlideRecord
    from napari_her2.models.familiarity import PlacedTiles
    from napari_her2.slide.reader import Slide

MOST_BYTES = 500_000_000
"""Of what is kept of the tiles of a slide in memory; more is kept on disk."""


@dataclass(frozen=True, slots=True, eq=False)
class ReadSlide:
    """A slide with its tiles read.

    Parameters
    ----------
    slide : SlideRecord
    chosen : Chosen
    embeddings : Embeddings
        Of the chosen tiles; once kept, without their features.
    numbers : tuple of (N, any) float
        What the model made of each tile by itself.
    placed : mapping of str to PlacedTiles
        Where its tiles, and squares of its pixels, lie in the spaces of the model.
    alone : object
        What the method made of all its tiles together; None for nothing.
    slide_placed : mapping of str to PlacedTiles or None
        As ``placed``, of tiles drawn over the whole slide: what regions are compared by. None where nobody
        needs it.
    """

    slide: SlideRecord
    chosen: Chosen
    embeddings: Embeddings
    numbers: tuple[NDArray[np.floating], ...] = ()
    placed: Mapping[str, PlacedTiles] = field(default_factory=dict)
    alone: object = None
    slide_placed: Mapping[str, PlacedTiles] | None = None

    def kept(self) -> ReadSlide:
        """Return it without features, and on disk where it is large."""
        bare = self.embeddings.features[:, :0].copy()
        return replace(self, embeddings=replace(self.embeddings, features=bare), numbers=stored(self.numbers))

    def settled(self) -> ReadSlide:
        """Return it without the numbers of its tiles, if something speaks for all of them together."""
        return self if self.alone is None else replace(self, numbers=())

    def limited_to(self, chosen: Chosen) -> ReadSlide:
        """Return the part of it that a choice of its tiles leaves.

        Parameters
        ----------
        chosen : Chosen
            Of the same grid.

        Returns
        -------
        ReadSlide
            Squares of pixels, which are drawn for the whole of a region, stay as they are.

        Raises
        ------
        NotComputed
            If it holds tiles that were not read.
        """
        missing = int((chosen.keep & ~self.chosen.keep).sum())
        if missing:
            raise NotComputed(
                f"{missing:,} of the {int(chosen.keep.sum()):,} tiles in the regions were not computed yet: "
                f"press Score to compute them."
            )
        known = self.embeddings
        rows = np.flatnonzero(chosen.keep[tuple(known.index.T)])
        left = replace(
            known,
            features=known.features[rows],
            index=known.index[rows],
            corrupt=known.corrupt[chosen.keep[tuple(known.corrupt.T)]],
        )
        placed = {kind: of.pick(rows) if kind == FEATURES else of for kind, of in self.placed.items()}
        alone = self.alone if len(rows) == len(known.index) else None
        numbers = tuple(part[rows] for part in self.numbers)
        return ReadSlide(self.slide, chosen, left, numbers, placed, alone, self.slide_placed)


@dataclass(frozen=True, slots=True, eq=False)
class KeptScoring:
    """What one scoring keeps; a method adds what it needs.

    Parameters
    ----------
    terms : Terms
    slides : tuple of callable
        Each returns an open slide, or None once it is gone or closed; in the order of the result.
    slide_ids : tuple of str
    asked : Asked or None
        What was asked; whoever scores adds it.
    case : CaseOf or None
        Whose slides these are; likewise.
    smooth : tuple of tuple of TileMap
        Smoother maps of each slide, which hold for the regions that were asked and no others; empty where
        there are none.
    """

    terms: Terms
    slides: tuple[Callable[[], Slide | None], ...]
    slide_ids: tuple[str, ...]
    asked: Asked | None = field(default=None, kw_only=True)
    case: CaseOf | None = field(default=None, kw_only=True)
    smooth: tuple[tuple[TileMap, ...], ...] = field(default=(), kw_only=True)

    def anew(self) -> Terms:
        """Return the terms with a clock of its own."""
        return replace(self.terms, clock=Clock())


@dataclass(frozen=True, slots=True, eq=False)
class KeptTiles(KeptScoring):
    """What the scoring of tiles keeps.

    Parameters
    ----------
    whole : Chosen
        All tiles with tissue of the first slide, whether they were scored or not.
    read : tuple of ReadSlide
    before, after : tuple of str
        Warnings that stand before and behind those of the slides.
    """

    whole: Chosen
    read: tuple[ReadSlide, ...]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class KeptImages(KeptScoring):
    """What the scoring of images of all tissue keeps.

    Parameters
    ----------
    placed : mapping of str to PlacedTiles
        Where squares of its pixels lie in the spaces of the model, and the images themselves.
    """

    placed: Mapping[str, PlacedTiles] = field(default_factory=dict)


def open_slide_or_none(slide: Slide) -> Callable[[], Slide | None]:
    """Return what gives a slide as long as it is open, and does not keep it open."""
    known = weakref.ref(slide)

    def found() -> Slide | None:
        held = known()
        return None if held is None or held.closed else held

    return found


def stored(
    parts: tuple[NDArray[np.floating], ...], most: int = MOST_BYTES
) -> tuple[NDArray[np.floating], ...]:
    """Keep arrays in memory, or in files without a name where they are larger than ``most`` bytes together.

    Parameters
    ----------
    parts : tuple of ndarray
    most : int

    Returns
    -------
    tuple of ndarray
        In memory also where the disk has no room.
    """
    if sum(part.nbytes for part in parts) <= most:
        return parts
    return tuple(_on_disk(part) for part in parts)


def _on_disk(part: NDArray[np.floating]) -> NDArray[np.floating]:
    try:
        folder = private_folder(cache_base())
        # It goes with the array: the file has no name, and Windows deletes it when it is closed.
        with tempfile.TemporaryFile(dir=folder, prefix="her2-kept-") as file:
            file.write(np.ascontiguousarray(part).tobytes())
            file.flush()
            return np.memmap(file, part.dtype, "r", shape=part.shape)
    except OSError:
        return part
