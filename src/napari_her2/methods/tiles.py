"""The skeleton of every method that scores tiles: choose them, embed or score them, join, assemble.

Another choice of the same tiles (`TileMethod.again`) goes the same way from where the tiles are read.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, cast

from napari_her2.methods.method import Method

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.explain.early import EarlyValues
    from napari_her2.explain.findings import Findings
    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.assemble import Answer
    from napari_her2.inference.embed import Arrived
    from napari_her2.inference.encode import TileEncoder
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.kept_scoring import KeptScoring, KeptTiles, ReadSlide
    from napari_her2.inference.regions import Regions
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.selection import Chosen
    from napari_her2.inference.terms import Terms
    from napari_her2.methods.method import Takes
    from napari_her2.models.familiarity import PlacedTiles
    from napari_her2.slide.reader import Slide
    from napari_her2.steps import Progress


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """The slides to score, each with the stain that it is scored as, and what speaks against them."""

    slides: tuple[tuple[Slide, str], ...]
    warnings: tuple[str, ...] = ()


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
        from napari_her2.inference.leaving_out import without_poor
        from napari_her2.inference.selection import limited
        from napari_her2.steps import Progress

        yield Progress("Finding tissue", note=job.device.name)
        given = self.given(job)
        given = replace(given, slides=(*given.slides, *((of.slide, of.stain) for of in job.further)))
        whole = yield from _tissue(job, given)
        chosen = [limited(whole[0], job.regions), *whole[1:]]
        for at, further in enumerate(job.further, len(whole) - len(job.further)):
            chosen[at] = limited(whole[at], further.regions)
        for at, (slide, _) in enumerate(given.slides):
            chosen[at] = yield from without_poor(job, slide, chosen[at])
        job.clock.lap("tissue")
        encoder, after = yield from self.encoder(job)
        read = []
        for (slide, _), tiles in zip(given.slides, chosen, strict=True):
            read.append((yield from self._read(job, encoder, slide, tiles)))
        job.clock.lap("embed")
        if job.bundle.familiarity is not None or job.signatures is not None:
            for at, (slide, _) in enumerate(given.slides):
                read[at] = replace(read[at], placed=(yield from self._placed(job, slide, read[at])))
                compared = job.bundle.familiarity is not None
                if compared and (chosen[at].regions is not None or (at == 0 and job.kept is not None)):
                    over = yield from self._slide_placed(job, encoder, slide, whole[at], read[at])
                    read[at] = replace(read[at], slide_placed=over)
            job.clock.lap("familiarity")
        yield Progress("Scoring", note=job.device.name)
        read = [replace(of, numbers=self.numbers(job.terms, of)) for of in read]
        read = [replace(of, alone=self.alone(job.terms, of)) for of in read]
        smooth = yield from self._smooth(job, encoder, given, whole, read)
        if job.kept is not None:
            job.kept.append(replace(_kept(job, given, whole[0], read, after), smooth=smooth))
        return _with_smooth(self._answered(job.terms, read, given.warnings, after), smooth)

    def again(self, kept: KeptScoring, regions: Regions | None, *, pixels: bool = True) -> SlideResult:
        """Answer for other regions of the first slide; see `Method.again`."""
        from napari_her2.inference.embed import refuse_ruins
        from napari_her2.inference.leaving_out import without_known
        from napari_her2.inference.selection import limited

        held = cast("KeptTiles", kept)
        known = held.read[0].chosen.quality
        chosen = without_known(limited(held.whole, regions), known, held.terms.card)
        first = held.read[0].limited_to(chosen)
        refuse_ruins(first.slide, first.embeddings)
        if pixels:
            first = _pixels_read(held, first)
        terms = held.anew()
        if first.alone is None:
            first = replace(first, alone=self.alone(terms, first))
        result = self._answered(terms, [first, *held.read[1:]], held.before, held.after)
        # Of shifted tiles nothing is kept but the maps that they gave: of other regions those are not.
        same = held.asked is not None and held.asked.limited_to(regions) == held.asked
        return _with_smooth(result, held.smooth) if same else result

    def _answered(
        self, terms: Terms, read: Sequence[ReadSlide], before: tuple[str, ...], after: tuple[str, ...]
    ) -> SlideResult:
        """Join what was read, and assemble the result."""
        from napari_her2.inference.assemble import assemble, with_familiarity
        from napari_her2.inference.familiarity import judged_placed
        from napari_her2.inference.precision import joined

        answer = self.join(terms, read)
        least, known = terms.options.min_familiarity, terms.bundle.familiarity
        familiar = [
            judged_placed(
                known,
                of.chosen.stain,
                of.placed,
                least,
                of.slide_placed if of.chosen.regions is not None else None,
            )
            for of in read
        ]
        answer = replace(
            answer,
            slides=tuple(map(with_familiarity, answer.slides, familiar)),
            precision=joined([of.embeddings.precision for of in read]),
            graph=joined([of.embeddings.graph for of in read if of.embeddings.graph]),
            regions=read[0].chosen.regions,
            warnings=(
                *before,
                *(line for of in read for line in self._warnings(of, named=len(read) > 1)),
                *after,
            ),
        )
        terms.clock.lap("model")
        result = assemble(terms, answer)
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
    def numbers(self, terms: Terms, read: ReadSlide) -> tuple[NDArray[np.floating], ...]:
        """Return what the model makes of each tile by itself, which holds whatever other tiles there are.

        Parameters
        ----------
        terms : Terms
        read : ReadSlide
            With its embeddings.

        Returns
        -------
        tuple of (N, any) float
        """

    def alone(self, terms: Terms, read: ReadSlide) -> object:
        """Return what the model makes of all tiles of a slide, whatever the other slide of the case is.

        It is kept, and made again for the slide alone whose tiles changed; by default nothing.

        Parameters
        ----------
        terms : Terms
        read : ReadSlide
            With its `numbers`.

        Returns
        -------
        object
            On the CPU, and for `join` alone; None for nothing.
        """
        del terms, read
        return None

    @abstractmethod
    def join(self, terms: Terms, read: Sequence[ReadSlide]) -> Answer:
        """Join the numbers of the tiles to an answer.

        Parameters
        ----------
        terms : Terms
        read : sequence of ReadSlide
            In the order of `given`, with their `numbers` and what `alone` made of them. When it is done
            again, features are not there, nor are the numbers of a second slide that `alone` speaks for.

        Returns
        -------
        Answer
        """

    def beside(self, terms: Terms, read: Sequence[ReadSlide], other: ReadSlide) -> Findings:
        """Say what the model finds in tiles beside those that make the score, for smoother maps.

        Asked of methods with an empty ``no_overlap``. What is found is on the scale of the maps that
        `join` gives, and of tiles that are scored it is what stands there.

        Parameters
        ----------
        terms : Terms
        read : sequence of ReadSlide
            Tiles that make the score, with their numbers: of the slide, and of those in one bag with it.
        other : ReadSlide
            Tiles of the same slide, with theirs and without features.

        Returns
        -------
        Findings
            Of the other tiles.
        """
        raise NotImplementedError(f"{self.name} has no overlapping tiles")

    def so_far(self, terms: Terms, stain: str, features: NDArray[np.floating]) -> EarlyValues:
        """Say what is known of tiles by themselves while others are still to be computed.

        Asked where the answer cannot be withheld any more; else, and by default, it is only said that the
        model has looked at them.

        Parameters
        ----------
        terms : Terms
        stain : str
            What the slide is scored as.
        features : (n, D) float
            Of its encoder.

        Returns
        -------
        EarlyValues
        """
        from napari_her2.explain.early import looked_at

        del terms, stain
        return looked_at(len(features))

    def features(self, terms: Terms, read: ReadSlide) -> NDArray[np.floating]:
        """Return what the model takes or makes of each tile, (N, D); by default features of its encoder."""
        del terms
        return read.embeddings.features

    def remarks(self, result: SlideResult) -> tuple[str, ...]:
        """Warn of what a reader of the answer has to know first; nothing by default."""
        del result
        return ()

    def _read(
        self, job: ScoringJob, encoder: TileEncoder, slide: Slide, chosen: Chosen
    ) -> Generator[Progress, None, ReadSlide]:
        from napari_her2.inference.embed import refuse_ruins

        arrived = self._telling(job, slide, chosen)
        read = yield from self._embedded(job, encoder, slide, chosen, arrived=arrived)
        refuse_ruins(slide, read.embeddings)
        return read

    def _telling(self, job: ScoringJob, slide: Slide, chosen: Chosen) -> Arrived | None:
        """Make what tells of tiles as they come, where somebody wants to know."""
        from napari_her2.explain.early import looked_at
        from napari_her2.inference.early import may_be_withheld

        early, terms = job.early, job.terms
        if early is None:
            return None
        early.begin(slide.slide_id, chosen.grid, int(chosen.keep.sum()))
        hidden = may_be_withheld(terms, chosen.stain)

        def arrived(index: NDArray[np.integer], features: NDArray[np.float16]) -> None:
            if len(index):
                found = looked_at(len(index)) if hidden else self.so_far(terms, chosen.stain, features)
                early.put(slide.slide_id, index, found)

        return arrived

    def _embedded(
        self,
        job: ScoringJob,
        encoder: TileEncoder,
        slide: Slide,
        chosen: Chosen,
        words: str = "",
        arrived: Arrived | None = None,
    ) -> Generator[Progress, None, ReadSlide]:
        from napari_her2.inference.embed import embed_steps
        from napari_her2.inference.kept_scoring import ReadSlide
        from napari_her2.inference.slide_record import SlideRecord

        of = f"{self.stage} ({chosen.stain})" if self.takes_pair else self.stage
        embeddings = yield from embed_steps(
            slide,
            encoder,
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

    def _slide_placed(
        self, job: ScoringJob, encoder: TileEncoder, slide: Slide, whole: Chosen, read: ReadSlide
    ) -> Generator[Progress, None, Mapping[str, PlacedTiles]]:
        """Place tiles drawn over a whole slide, which its regions are compared by."""
        from napari_her2.inference.familiarity import Seen, drawn_over, placed_steps
        from napari_her2.models.familiarity import FEATURES

        drawn = drawn_over(whole.keep)
        if (whole.keep == read.chosen.keep).all():
            rows = drawn[tuple(read.embeddings.index.T)]
            return {kind: of.pick(rows) if kind == FEATURES else of for kind, of in read.placed.items()}
        sample = yield from self._embedded(job, encoder, slide, replace(whole, keep=drawn))
        features = self.features(job.terms, sample)
        seen = Seen(slide, whole.stain, features, whole.tissue, whole.grid, whole.keep)
        return (yield from placed_steps(replace(job, signatures=None), seen))

    def _smooth(
        self,
        job: ScoringJob,
        encoder: TileEncoder,
        given: Given,
        whole: Sequence[Chosen],
        read: Sequence[ReadSlide],
    ) -> Generator[Progress, None, tuple[tuple[TileMap, ...], ...]]:
        """Read overlapping tiles of each slide, where they are asked for, and map what is found in them."""
        if not job.options.overlap or self.no_overlap:
            return ()
        from napari_her2.inference.overlapping import smooth_steps

        found, paired = [], len(whole) - 1 - len(job.further)
        drawn = [job.regions, *[None] * paired, *(of.regions for of in job.further)]
        for at, (slide, _) in enumerate(given.slides):
            reading = partial(self._read_beside, job, encoder, slide)
            bag = [of for of in read if of.chosen.stain == read[at].chosen.stain]
            finding = partial(self.beside, job.terms, bag)
            steps = smooth_steps(job, slide, whole[at], drawn[at], read[at], reading, finding)
            found.append((yield from steps))
        job.clock.lap("smooth maps")
        return tuple(found)

    def _read_beside(
        self, job: ScoringJob, encoder: TileEncoder, slide: Slide, chosen: Chosen, words: str
    ) -> Generator[Progress, None, ReadSlide]:
        """Read tiles beside those of the score; features go once their numbers are known."""
        read = yield from self._embedded(job, encoder, slide, chosen, words)
        return replace(read, numbers=self.numbers(job.terms, read)).kept()

    def _placed(
        self, job: ScoringJob, slide: Slide, read: ReadSlide
    ) -> Generator[Progress, None, dict[str, PlacedTiles]]:
        from napari_her2.inference.familiarity import Seen, placed_steps

        chosen, features = read.chosen, self.features(job.terms, read)
        seen = Seen(slide, chosen.stain, features, chosen.tissue, chosen.grid, chosen.keep)
        return (yield from placed_steps(job, seen))

    def _warnings(self, read: ReadSlide, *, named: bool) -> tuple[str, ...]:
        slide = read.slide
        of = f"{slide.name}: " if named or self.takes_pair else ""
        own = tuple(f"{of}{line}" for line in slide.warnings)
        return (*own, *read.chosen.warnings, *read.embeddings.warnings(slide.name))


def _with_smooth(result: SlideResult, smooth: Sequence[tuple[TileMap, ...]]) -> SlideResult:
    """Add the smoother maps of each slide, where there are any."""
    if not smooth:
        return result
    slides = [replace(of, smooth=maps) for of, maps in zip(result.slides, smooth, strict=True)]
    return replace(result, slides=tuple(slides))


def _tissue(job: ScoringJob, given: Given) -> Generator[Progress, None, list[Chosen]]:
    """All tiles with tissue of each slide."""
    from napari_her2.inference.selection import tissue_tiles
    from napari_her2.steps import Progress

    chosen = []
    for slide, stain in given.slides:
        chosen.append(tissue_tiles(slide, job.card, job.options, stain=stain))
        yield Progress("Finding tissue", note=job.device.name)
    return chosen


def _kept(
    job: ScoringJob, given: Given, whole: Chosen, read: Sequence[ReadSlide], after: tuple[str, ...]
) -> KeptTiles:
    from napari_her2.inference.kept_scoring import KeptTiles, open_slide_or_none

    return KeptTiles(
        terms=job.terms,
        slides=tuple(open_slide_or_none(slide) for slide, _ in given.slides),
        slide_ids=tuple(slide.slide_id for slide, _ in given.slides),
        whole=whole,
        read=(read[0].kept(), *(_settled(of, read) for of in read[1:])),
        before=given.warnings,
        after=after,
    )


def _settled(of: ReadSlide, read: Sequence[ReadSlide]) -> ReadSlide:
    """Keep a further slide; what it is alone speaks for it only where it is the one slide of its stain."""
    stains = [each.chosen.stain for each in read]
    return of.kept().settled() if stains.count(of.chosen.stain) == 1 else of.kept()


def _pixels_read(kept: KeptTiles, read: ReadSlide) -> ReadSlide:
    """Return a slide with what its pixels look like where it is read now, if the model compares that."""
    from napari_her2.inference.familiarity import Seen, describes_pixels, placed_pixels
    from napari_her2.models.familiarity import FEATURES

    slide, chosen = kept.slides[0](), read.chosen
    same = bool((chosen.keep == kept.read[0].chosen.keep).all())
    if same or slide is None or not describes_pixels(kept.terms.bundle, chosen.stain):
        return read
    seen = Seen(slide, chosen.stain, read.embeddings.features, chosen.tissue, chosen.grid, chosen.keep)
    others = {kind: of for kind, of in read.placed.items() if kind == FEATURES}
    return replace(read, placed=others | placed_pixels(kept.terms.bundle, seen))
