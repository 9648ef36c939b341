"""The skeleton of every method that scores tiles: choose them, embed or score them, join, assemble.

Another choice of the same tiles (`TileMethod.again`) goes the same way from where the tiles are read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from napari_her2.methods.tile_parts import Given, TileParts
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.kept_scoring import KeptScoring, KeptTiles, ReadSlide
    from napari_her2.inference.regions import Regions
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.selection import Chosen
    from napari_her2.inference.terms import Terms


class TileMethod(TileParts):
    """A method that scores the tiles of a slide; a subclass says how, in `numbers` and `join`."""

    def score(self, job: ScoringJob) -> Generator[Progress, None, SlideResult]:
        """Score a slide, or the two slides of a case; see `Method.score`."""
        from napari_her2.inference.leaving_out import without_poor
        from napari_her2.inference.selection import limited
        from napari_her2.methods.tile_reading import TileReading, tissue_steps

        yield Progress("Finding tissue", note=job.device.name)
        given = self.given(job)
        given = replace(given, slides=(*given.slides, *((of.slide, of.stain) for of in job.further)))
        whole = yield from tissue_steps(job, given)
        chosen = [limited(whole[0], job.regions), *whole[1:]]
        for at, further in enumerate(job.further, len(whole) - len(job.further)):
            chosen[at] = limited(whole[at], further.regions)
        for at, (slide, _) in enumerate(given.slides):
            chosen[at] = yield from without_poor(job, slide, chosen[at])
        job.clock.lap("tissue")
        encoder, after = yield from self.encoder(job)
        reading = TileReading(self, job, encoder)
        read = []
        for (slide, _), tiles in zip(given.slides, chosen, strict=True):
            read.append((yield from reading.read(slide, tiles)))
        job.clock.lap("embed")
        if job.bundle.familiarity is not None or job.signatures is not None:
            for at, (slide, _) in enumerate(given.slides):
                read[at] = replace(read[at], placed=(yield from reading.placed(slide, read[at])))
                compared = job.bundle.familiarity is not None
                if compared and (chosen[at].regions is not None or (at == 0 and job.kept is not None)):
                    over = yield from reading.placed_over(slide, whole[at], read[at])
                    read[at] = replace(read[at], slide_placed=over)
            job.clock.lap("familiarity")
        yield Progress("Scoring", note=job.device.name)
        read = [replace(of, numbers=self.numbers(job.terms, of)) for of in read]
        read = [replace(of, alone=self.alone(job.terms, of)) for of in read]
        smooth = yield from reading.smooth(given, whole, read)
        if job.kept is not None:
            job.kept.append(replace(_kept(job, given, whole[0], read, after), smooth=smooth))
        return _with_smooth(self._answered(job.terms, read, given.warnings, after), smooth)

    def again(self, kept: KeptScoring, regions: Regions | None, *, pixels: bool = True) -> SlideResult:
        """Answer for other regions of the first slide; see `Method.again`."""
        from napari_her2.inference.embeddings import refuse_ruins
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
        from napari_her2.inference.familiarity_verdict import judged_placed
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
