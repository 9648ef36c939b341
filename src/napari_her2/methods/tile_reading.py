"""The tiles of one scoring, read for a method: those of the score, those around it, and those beside it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.early import looked_at
from napari_her2.inference.early import may_be_withheld
from napari_her2.inference.embed import embed_steps
from napari_her2.inference.embeddings import refuse_ruins
from napari_her2.inference.familiarity import Seen, drawn_over, placed_steps
from napari_her2.inference.kept_scoring import ReadSlide
from napari_her2.inference.overlapping import smooth_steps
from napari_her2.inference.selection import tissue_tiles
from napari_her2.inference.slide_record import SlideRecord
from napari_her2.models.familiarity import FEATURES
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_her2.explain.early import EarlyValues
    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.embed import Arrived
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.selection import Chosen
    from napari_her2.inference.tile_encoder import TileEncoder
    from napari_her2.methods.tile_parts import Given, TileParts
    from napari_her2.models.familiarity import PlacedTiles
    from napari_her2.slide.reader import Slide


def tissue_steps(job: ScoringJob, given: Given) -> Generator[Progress, None, list[Chosen]]:
    """Choose all tiles with tissue of each slide."""
    chosen = []
    for slide, stain in given.slides:
        chosen.append(tissue_tiles(slide, job.card, job.options, stain=stain))
        yield Progress("Finding tissue", note=job.device.name)
    return chosen


class TileReading:
    """Reads tiles for a method, through the cache.

    Parameters
    ----------
    method : TileParts
    job : ScoringJob
    encoder : TileEncoder
        Of the method.
    """

    def __init__(self, method: TileParts, job: ScoringJob, encoder: TileEncoder) -> None:
        self._method, self._job, self._encoder = method, job, encoder

    def read(self, slide: Slide, chosen: Chosen) -> Generator[Progress, None, ReadSlide]:
        """Read the tiles that make the score, and tell of them as they come."""
        read = yield from self._embedded(slide, chosen, arrived=self._telling(slide, chosen))
        refuse_ruins(slide, read.embeddings)
        return read

    def placed(self, slide: Slide, read: ReadSlide) -> Generator[Progress, None, dict[str, PlacedTiles]]:
        """Say where the tiles of the score lie in the spaces of the model."""
        chosen, features = read.chosen, self._method.features(self._job.terms, read)
        seen = Seen(slide, chosen.stain, features, chosen.tissue, chosen.grid, chosen.keep)
        return (yield from placed_steps(self._job, seen))

    def placed_over(
        self, slide: Slide, whole: Chosen, read: ReadSlide
    ) -> Generator[Progress, None, Mapping[str, PlacedTiles]]:
        """Place tiles drawn over a whole slide, which its regions are compared by."""
        drawn = drawn_over(whole.keep)
        if (whole.keep == read.chosen.keep).all():
            rows = drawn[tuple(read.embeddings.index.T)]
            return {kind: of.pick(rows) if kind == FEATURES else of for kind, of in read.placed.items()}
        sample = yield from self._embedded(slide, replace(whole, keep=drawn))
        features = self._method.features(self._job.terms, sample)
        seen = Seen(slide, whole.stain, features, whole.tissue, whole.grid, whole.keep)
        return (yield from placed_steps(replace(self._job, signatures=None), seen))

    def smooth(
        self, given: Given, whole: Sequence[Chosen], read: Sequence[ReadSlide]
    ) -> Generator[Progress, None, tuple[tuple[TileMap, ...], ...]]:
        """Read overlapping tiles of each slide, where they are asked for, and map what is found in them."""
        job = self._job
        if not job.options.overlap or self._method.no_overlap:
            return ()
        found, paired = [], len(whole) - 1 - len(job.further)
        drawn = [job.regions, *[None] * paired, *(of.regions for of in job.further)]
        for at, (slide, _) in enumerate(given.slides):
            reading = partial(self._beside, slide)
            bag = [of for of in read if of.chosen.stain == read[at].chosen.stain]
            finding = partial(self._method.beside, job.terms, bag)
            steps = smooth_steps(job, slide, whole[at], drawn[at], read[at], reading, finding)
            found.append((yield from steps))
        job.clock.lap("smooth maps")
        return tuple(found)

    def _beside(self, slide: Slide, chosen: Chosen, words: str) -> Generator[Progress, None, ReadSlide]:
        """Read tiles beside those of the score; features go once their numbers are known."""
        read = yield from self._embedded(slide, chosen, words)
        return replace(read, numbers=self._method.numbers(self._job.terms, read)).kept()

    def _telling(self, slide: Slide, chosen: Chosen) -> Arrived | None:
        """Make what tells of tiles as they come, where somebody wants to know."""
        early, terms, method = self._job.early, self._job.terms, self._method
        if early is None:
            return None
        early.begin(slide.slide_id, chosen.grid, int(chosen.keep.sum()))
        hidden = may_be_withheld(terms, chosen.stain)

        def known(features: NDArray[np.float16]) -> EarlyValues:
            return looked_at(len(features)) if hidden else method.so_far(terms, chosen.stain, features)

        def arrived(index: NDArray[np.integer], features: NDArray[np.float16]) -> None:
            if len(index):
                early.put(slide.slide_id, index, known(features))
            else:  # any tile shows what they will be: so the map can be put over the slide before they come
                found = known(np.zeros((1, features.shape[1]), np.float16))
                early.put(slide.slide_id, index, replace(found, values=found.values[:0]))

        return arrived

    def _embedded(
        self, slide: Slide, chosen: Chosen, words: str = "", arrived: Arrived | None = None
    ) -> Generator[Progress, None, ReadSlide]:
        job, stage = self._job, self._method.stage
        of = f"{stage} ({chosen.stain})" if self._method.takes_pair else stage
        embeddings = yield from embed_steps(
            slide,
            self._encoder,
            chosen.grid,
            chosen.keep,
            job.device,
            cache=job.options.cache,
            batch_size=job.options.batch_size,
            stage=f"{of} {words}" if words else of,
            stored_only=job.stored_only,
            front=job.front,
            arrived=arrived,
        )
        return ReadSlide(SlideRecord.of(slide), chosen, embeddings)
