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
from napari_her2.inference.job import ScoringJob
from napari_her2.inference.loaded import loaded_bundle
from napari_her2.inference.options import ScoringOptions
from napari_her2.inference.regions import placed
from napari_her2.inference.result import Progress, SlideResult
from napari_her2.inference.unchanged import identified, unchanged
from napari_her2.methods.catalogue import method_of, model_named
from napari_her2.slide.reader import Slide, open_slide
from napari_her2.steps import finished

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_her2.inference.kept_scoring import KeptScoring
    from napari_her2.inference.regions import Regions
    from napari_her2.models.bundle import ModelBundle


def score_steps(
    slide: Slide | Path | str,
    model: ModelBundle | Path | str,
    ihc: Slide | Path | str | None = None,
    regions: Regions | None = None,
    device: str = "auto",
    kept: list[KeptScoring] | None = None,
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
        drawn = None if regions is None else placed(regions, first)
        job = ScoringJob(first, second, bundle, drawn, runs_on, chosen, kept=kept)
        result = yield from method.score(job)
        asked = asked_of([of for of in (first, second) if of is not None], job.terms, job.regions)
        if kept is not None:
            kept[:] = [replace(of, asked=asked) for of in kept]
        return replace(result, asked=asked)


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
    return replace(result, asked=kept.asked and kept.asked.limited_to(regions))


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
