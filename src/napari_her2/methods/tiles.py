"""The skeleton of every method that scores tiles: choose them, embed or score them, join, assemble."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from napari_her2.methods.method import Method

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.inference.assemble import Answer
    from napari_her2.inference.doubt import SlideFamiliarity
    from napari_her2.inference.embed import Embeddings
    from napari_her2.inference.encode import TileEncoder
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.result import Progress, SlideResult
    from napari_her2.inference.selection import Chosen
    from napari_her2.methods.method import Takes
    from napari_her2.slide.reader import Slide


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """The slides to score, each with the stain that it is scored as, and what speaks against them."""

    slides: tuple[tuple[Slide, str], ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ReadSlide:
    """A slide with its tiles embedded."""

    slide: Slide
    chosen: Chosen
    embeddings: Embeddings


class TileMethod(Method):
    """A method that scores the tiles of a slide; a subclass says how, in `join`.

    Attributes
    ----------
    stage : str
        What the progress calls the computing of tiles.
    """

    takes: ClassVar[Takes] = "tiles"
    stage: ClassVar[str] = "Embedding tiles"

    def score(self, job: ScoringJob) -> Generator[Progress, None, SlideResult]:
        """Score a slide, or the two slides of a case; see `Method.score`."""
        from napari_her2.inference.assemble import assemble, with_familiarity
        from napari_her2.inference.precision import joined
        from napari_her2.inference.result import Progress

        yield Progress("Finding tissue", note=job.device.name)
        given = self.given(job)
        chosen = yield from _choose(job, given)
        encoder, warnings = yield from self.encoder(job)
        read = []
        for (slide, _), tiles in zip(given.slides, chosen, strict=True):
            read.append((yield from self._embed(job, encoder, slide, tiles)))
        job.clock.lap("embed")
        familiar = yield from self._familiarity(job, read)
        yield Progress("Scoring", note=job.device.name)
        answer = self.join(job, read)
        job.clock.lap("model")
        answer = replace(
            answer,
            slides=tuple(map(with_familiarity, answer.slides, familiar)),
            precision=joined([item.embeddings.precision for item in read]),
            regions=chosen[0].regions,
            warnings=(*given.warnings, *(line for item in read for line in self._warnings(item)), *warnings),
        )
        result = assemble(job, answer)
        return replace(result, warnings=(*self.remarks(result), *result.warnings))

    def given(self, job: ScoringJob) -> Given:
        """Say which slides are scored, and as what; by default the one slide as the stain of the model.

        Raises
        ------
        ModelError, ModelMisfit
            If the slides do not suit the method.
        """
        return Given(((job.slide, job.card.stain),))

    def encoder(self, job: ScoringJob) -> Generator[Progress, None, tuple[TileEncoder, tuple[str, ...]]]:
        """Make what turns tiles into numbers; by default the patch encoder of the model.

        Yields
        ------
        Progress

        Returns
        -------
        encoder : TileEncoder
        warnings : tuple of str
            What the result has to carry.
        """
        yield from ()
        return job.bundle.patch_encoder, ()

    @abstractmethod
    def join(self, job: ScoringJob, read: Sequence[ReadSlide]) -> Answer:
        """Join the numbers of the tiles to an answer.

        Parameters
        ----------
        job : ScoringJob
        read : sequence of ReadSlide
            In the order of `given`.

        Returns
        -------
        Answer
        """

    def features(self, job: ScoringJob, read: ReadSlide) -> NDArray[np.floating]:
        """Return what the model takes or makes of each tile, (N, D); by default features of its encoder."""
        del job
        return read.embeddings.features

    def remarks(self, result: SlideResult) -> tuple[str, ...]:
        """Warn of what a reader of the answer has to know first; nothing by default."""
        del result
        return ()

    def _embed(
        self, job: ScoringJob, encoder: TileEncoder, slide: Slide, chosen: Chosen
    ) -> Generator[Progress, None, ReadSlide]:
        from napari_her2.inference.embed import embed_steps, refuse_ruins

        embeddings = yield from embed_steps(
            slide,
            encoder,
            chosen.grid,
            chosen.keep,
            job.device,
            cache=job.options.cache,
            batch_size=job.options.batch_size,
            stage=f"{self.stage} ({chosen.stain})" if self.takes_pair else self.stage,
        )
        refuse_ruins(slide, embeddings)
        return ReadSlide(slide, chosen, embeddings)

    def _familiarity(
        self, job: ScoringJob, read: Sequence[ReadSlide]
    ) -> Generator[Progress, None, list[SlideFamiliarity]]:
        from napari_her2.inference.doubt import NOTHING_KNOWN
        from napari_her2.inference.familiarity import Seen, familiarity_steps

        if job.bundle.familiarity is None and job.signatures is None:
            return [NOTHING_KNOWN] * len(read)
        found = []
        for item in read:
            chosen, features = item.chosen, self.features(job, item)
            seen = Seen(item.slide, chosen.stain, features, chosen.tissue, chosen.grid, chosen.keep)
            found.append((yield from familiarity_steps(job, seen)))
        job.clock.lap("familiarity")
        return found

    def _warnings(self, read: ReadSlide) -> tuple[str, ...]:
        slide = read.slide
        of = f"{slide.name}: " if self.takes_pair else ""
        own = tuple(f"{of}{line}" for line in slide.warnings)
        return (*own, *read.chosen.warnings, *read.embeddings.warnings(slide.name))


def _choose(job: ScoringJob, given: Given) -> Generator[Progress, None, list[Chosen]]:
    from napari_her2.inference.leaving_out import without_poor
    from napari_her2.inference.result import Progress
    from napari_her2.inference.selection import choose_tiles

    chosen = []
    for slide, stain in given.slides:
        regions = job.regions if slide is job.slide else None
        tiles = choose_tiles(slide, job.card, regions, job.options, stain=stain)
        yield Progress("Finding tissue", note=job.device.name)
        chosen.append((yield from without_poor(job, slide, tiles)))
    job.clock.lap("tissue")
    return chosen
