"""The door to scoring: one slide, or the slides of a case, and a model give a result with its maps."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2.errors import ModelError
from napari_her2.inference.asked import asked_of
from napari_her2.inference.device import choose_device
from napari_her2.inference.further import FurtherSlide
from napari_her2.inference.job import ScoringJob
from napari_her2.inference.judging import redoubted
from napari_her2.inference.loaded import loaded_bundle
from napari_her2.inference.options import ScoringOptions
from napari_her2.inference.regions import placed
from napari_her2.inference.unchanged import identified, unchanged
from napari_her2.methods.catalogue import method_of, model_named
from napari_her2.models.card import PAIR
from napari_her2.slide.reader import Slide, open_slide
from napari_her2.steps import Progress, finished

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from napari_her2.inference.early import EarlyTiles
    from napari_her2.inference.front import Front
    from napari_her2.inference.kept_scoring import KeptScoring
    from napari_her2.inference.regions import Regions
    from napari_her2.inference.result import CaseOf, SlideResult
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.card import ModelCard


def score_steps(
    slide: Slide | Path | str,
    model: ModelBundle | Path | str,
    ihc: Slide | Path | str | None = None,
    regions: Regions | None = None,
    device: str = "auto",
    kept: list[KeptScoring] | None = None,
    further: Sequence[tuple[Slide | Path | str, str, Regions | None]] = (),
    case: CaseOf | None = None,
    front: Front | None = None,
    early: EarlyTiles | None = None,
    **options: Any,  # noqa: ANN401 - the fields of ScoringOptions
) -> Generator[Progress, None, SlideResult]:
    """Score a slide, or the two slides of a case, step by step.

    Parameters
    ----------
    slide : Slide, Path or str
        A path is opened, and closed at the end.
    model : ModelBundle, Path or str
        A model, its name or its file.
    ihc : Slide or path, optional
        The IHC slide of the case, for models that take both; ``slide`` is then the H&E slide. Such a model
        also scores either slide alone, given as ``slide``: the result says which of its heads answered.
    regions : Path, str or sequence of Region and shapely polygons, optional
        Only tiles whose centre lies inside are scored, and not in what is excluded; a GeoJSON file, regions
        of a kind (`napari_her2.inference.regions.Region`), or polygons of tumour, (x, y) in level-0 pixels
        of ``slide``. What was embedded before is not embedded again.
    device : str
        "auto", "cpu", "cuda", "cuda:0" or "mps".
    further : sequence of (Slide or path, stain, regions or None), optional
        More slides of the case, "H&E" or "IHC", each with regions of its own: the tiles of all slides of a
        stain are one bag, in this order. For methods that join bags
        (`napari_her2.methods.method.Method.joins_bags`).
    case : CaseOf, optional
        Whose slides these are; a promise that is none for such an answer is then not made.
    front : Front, optional
        From where tiles are computed; it may move meanwhile, and makes no difference to the result.
    early : EarlyTiles, optional
        Takes what is known of tiles before the slide is scored, of methods that take tiles.
    kept : list of KeptScoring, optional
        Takes what `again` needs; see `napari_her2.methods.method.Method.again`.
    **options
        The fields of `ScoringOptions`.

    Yields
    ------
    Progress
        At least once a batch. Closing the generator cancels; what was embedded stays in the cache.

    Returns
    -------
    SlideResult

    Raises
    ------
    SlideError, ModelError, JobFailed
        In words that say what to do next.
    """
    chosen = ScoringOptions(**options).calibrated()
    with ExitStack() as stack:
        yield Progress("Loading the model")
        runs_on = choose_device(device)
        if isinstance(model, str | Path):
            bundle = model_named(model, partial(loaded_bundle, device=runs_on))
        else:
            bundle = model
        card, method = bundle.card, method_of(bundle.card)
        if ihc is not None and not method.takes_pair:
            raise ModelError(
                f"{card.name} ({method.name}) scores one {card.stain} slide alone: leave the IHC slide out."
            )
        if chosen.of_cells and "cells" not in method.explains(card):
            raise ModelError(
                f"{card.name} ({method.name}) judges no cells: leave calibration and rules out, or choose a "
                f"model that reads cells."
            )
        first = slide if isinstance(slide, Slide) else stack.enter_context(open_slide(slide))
        second = ihc if ihc is None or isinstance(ihc, Slide) else stack.enter_context(open_slide(ihc))
        yield from identified(first, second)
        stack.enter_context(unchanged(first, second))
        more = yield from _opened(further, (first, second), card, stack)
        drawn = None if regions is None else placed(regions, first)
        job = ScoringJob(
            first, second, bundle, drawn, runs_on, chosen, kept=kept, further=more, front=front, early=early
        )
        result = yield from method.score(job)
        if chosen.overlap and method.no_overlap:
            words = f"Overlapping tiles were asked for and ignored: {card.name} {method.no_overlap}."
            result = replace(result, warnings=(*result.warnings, words))
        asked = asked_of([of for of in (first, second) if of is not None], job.terms, job.regions, more)
        if kept is not None:
            kept[:] = [replace(of, asked=asked, case=case) for of in kept]
        return of_case(replace(result, asked=asked), case)


def _opened(
    further: Sequence[tuple[Slide | Path | str, str, Regions | None]],
    known: Sequence[Slide | None],
    card: ModelCard,
    stack: ExitStack,
) -> Generator[Progress, None, tuple[FurtherSlide, ...]]:
    """Open further slides of a case, and refuse one that is there already."""
    if further and not method_of(card).joins_bags:
        raise ModelError(
            f"{card.name} ({card.method}) cannot score several slides as one bag: score each by itself, and "
            f"join the answers."
        )
    found: list[FurtherSlide] = []
    seen = {slide.fingerprint: slide for slide in known if slide is not None} if further else {}
    for given, stain, regions in further:
        slide = given if isinstance(given, Slide) else stack.enter_context(open_slide(given))
        yield from identified(slide)
        stack.enter_context(unchanged(slide))
        if slide.fingerprint in seen:
            raise ModelError(
                f"{slide.path.name} and {seen[slide.fingerprint].path.name} are the same slide: give each "
                f"slide of a case once."
            )
        if card.stain not in (PAIR, stain):
            raise ModelError(
                f"{card.name} takes {card.stain} slides, and {slide.path.name} is given as {stain}: leave it "
                f"out."
            )
        seen[slide.fingerprint] = slide
        found.append(FurtherSlide(slide, stain, None if regions is None else placed(regions, slide)))
    return tuple(found)


def of_case(result: SlideResult, case: CaseOf | None) -> SlideResult:
    """Return a result as that of a case, judged anew: what is promised hangs on how cases are answered.

    Parameters
    ----------
    result : SlideResult
    case : CaseOf or None
        None leaves it as it is.
    """
    if case is None or result.asked is None:
        return result
    wishes = result.asked.options
    return redoubted(
        replace(result, case=case),
        coverage=wishes.coverage,
        min_familiarity=wishes.min_familiarity,
        show_withheld=wishes.show_withheld,
    )


def again(kept: KeptScoring, regions: Regions | None, *, pixels: bool = True) -> SlideResult:
    """Answer a scoring again for other regions; see `napari_her2.methods.method.Method.again`.

    Parameters
    ----------
    kept : KeptScoring
        From `score_steps`.
    regions, pixels
        See there.

    Returns
    -------
    SlideResult
    """
    result = method_of(kept.terms.card).again(kept, regions, pixels=pixels)
    asked = kept.asked and kept.asked.limited_to(regions)
    if asked is not None and not any(slide.smooth for slide in result.slides):
        asked = asked.with_options(overlap=0.0)  # as whoever asked for what there is would have
    return of_case(replace(result, asked=asked), kept.case)


def score_slide(
    slide: Slide | Path | str,
    model: ModelBundle | Path | str,
    ihc: Slide | Path | str | None = None,
    regions: Regions | None = None,
    device: str = "auto",
    progress: Callable[[Progress], object] | None = None,
    **options: Any,  # noqa: ANN401 - the fields of ScoringOptions
) -> SlideResult:
    """Score a slide; `score_steps` with a callback instead of a generator.

    Parameters
    ----------
    slide, model, ihc, regions, device, **options
        As for `score_steps`.
    progress : callable, optional
        Called with each Progress.

    Returns
    -------
    SlideResult
    """
    return finished(score_steps(slide, model, ihc, regions, device, **options), progress)
