"""A slide and a model to a score with its maps: the steps, and what is refused on the way."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from napari_her2.errors import JobFailed, ModelError, SlideError
from napari_her2.inference.assemble import Chosen, Clock, assemble
from napari_her2.inference.device import choose_device
from napari_her2.inference.embed import embed_steps, refuse_ruins
from napari_her2.inference.encode import is_out_of_memory
from napari_her2.inference.fit import check_grid, refuse_or_warn, slide_stain
from napari_her2.inference.presentation import MIN_CONFIDENCE
from napari_her2.inference.regions import tiles_inside
from napari_her2.inference.result import Progress, SlideResult
from napari_her2.models.aggregator import MILOutput
from napari_her2.models.bags import bag_uncertainty
from napari_her2.models.registry import load_model
from napari_her2.slide.reader import Slide, open_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_her2.inference.device import Device
    from napari_her2.inference.embed import Embeddings
    from napari_her2.inference.regions import Regions
    from napari_her2.models.aggregator import SlideAggregator
    from napari_her2.models.bags import BagUncertainty
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.tissue import Preset


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """How a slide is scored.

    Parameters
    ----------
    preset : str
        Of the tissue mask: "auto", "resection" or "biopsy".
    min_tissue : float
        Share of a tile that must be tissue.
    min_confidence : float
        Below this probability of the top class the answer is "indeterminate".
    batch_size : int or None
        Tiles read and computed together; None takes what suits the device.
    cache : bool
        Whether embeddings are kept on disk.
    override_fit : bool
        Score a slide that the model was not made for; the result then carries a warning.
    """

    preset: Preset = "auto"
    min_tissue: float = 0.5
    min_confidence: float = MIN_CONFIDENCE
    batch_size: int | None = None
    cache: bool = True
    override_fit: bool = False

    def __post_init__(self) -> None:
        if self.preset not in ("auto", "resection", "biopsy"):
            raise JobFailed(f"There is no tissue preset {self.preset!r}: use auto, resection or biopsy.")
        if not 0 <= self.min_tissue <= 1 or not 0 <= self.min_confidence <= 1:
            raise JobFailed("The least share of tissue and the least probability are numbers from 0 to 1.")
        if self.batch_size is not None and self.batch_size < 1:
            raise JobFailed("A batch holds at least one tile.")


def score_steps(
    slide: Slide | Path | str,
    model: ModelBundle | Path | str,
    ihc: Slide | Path | str | None = None,
    regions: Regions | None = None,
    device: str = "auto",
    **options: Any,  # noqa: ANN401 - the fields of ScoringOptions
) -> Generator[Progress, None, SlideResult]:
    """Score a slide step by step.

    Parameters
    ----------
    slide : Slide, Path or str
        A path is opened, and closed at the end.
    model : ModelBundle, Path or str
        A model, its name or its file.
    ihc : Slide or path, optional
        For methods that use the IHC slide beside the H&E slide.
    regions : Path, str or sequence of shapely polygons, optional
        Only tiles whose centre lies inside are scored; a GeoJSON file, or polygons of (x, y) level-0
        pixels. What was embedded before is not embedded again.
    device : str
        "auto", "cpu", "cuda", "cuda:0" or "mps".
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
    chosen = ScoringOptions(**options)
    with ExitStack() as stack:
        yield Progress("Loading the model")
        bundle = load_model(model) if isinstance(model, str | Path) else model
        _refuse_ihc(bundle, ihc)
        opened = slide if isinstance(slide, Slide) else stack.enter_context(open_slide(slide))
        return (yield from _score(opened, bundle, regions, device, chosen))


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
    steps = score_steps(slide, model, ihc, regions, device, **options)
    try:
        while True:
            step = next(steps)
            if progress is not None:
                progress(step)
    except StopIteration as end:
        result: SlideResult = end.value
        return result
    finally:
        steps.close()


def _refuse_ihc(bundle: ModelBundle, ihc: object) -> None:
    if ihc is not None:
        raise ModelError(
            f"{bundle.card.name} ({bundle.card.method}) scores one {bundle.card.stain} slide alone: "
            f"leave the IHC slide out."
        )


def _score(
    slide: Slide,
    bundle: ModelBundle,
    regions: Regions | None,
    wanted_device: str,
    options: ScoringOptions,
) -> Generator[Progress, None, SlideResult]:
    card, clock = bundle.card, Clock()
    device = choose_device(wanted_device)
    grid = slide.tile_grid(card.tile_px, card.mpp)
    # The scale first: finding the tissue, which the stain is guessed from, takes longer.
    refuse_or_warn(slide, card, card.stain, override=options.override_fit)
    check_grid(grid, slide)
    yield Progress("Finding tissue", note=device.name)
    chosen = _choose_tiles(slide, bundle, grid, regions, options)
    clock.lap("tissue")
    embeddings = yield from embed_steps(
        slide,
        bundle.encoder,
        grid,
        chosen.keep,
        device,
        cache=options.cache,
        batch_size=options.batch_size,
    )
    clock.lap("embed")
    refuse_ruins(slide, embeddings)
    yield Progress("Scoring", note=device.name)
    output = _run_head(bundle, embeddings, device)
    spread = _uncertainty(bundle, embeddings)
    return assemble(
        slide,
        bundle,
        chosen,
        embeddings,
        output,
        spread,
        device,
        clock,
        min_confidence=options.min_confidence,
        warnings=(*slide.warnings, *chosen.warnings),
    )


def _choose_tiles(
    slide: Slide, bundle: ModelBundle, grid: TileGrid, regions: Regions | None, options: ScoringOptions
) -> Chosen:
    tissue = slide.tissue(options.preset)
    keep = tissue.keep(grid, options.min_tissue)
    if not keep.any():
        raise SlideError(
            f"No tissue was found on {slide.name} in tiles of {grid.tile_um:g} µm: look at the slide, or try "
            f"the tissue preset for biopsies, or a smaller share of tissue in a tile."
        )
    stain = slide_stain(slide, tissue, options.preset)
    warnings = refuse_or_warn(slide, bundle.card, stain, override=options.override_fit)
    if regions is not None:
        keep &= tiles_inside(regions, grid)
        if not keep.any():
            raise JobFailed(
                "No tile of tissue lies inside the regions: check that they were drawn on this slide, in "
                "its level-0 pixels."
            )
    return Chosen(grid, keep, tissue, tissue.fraction(grid), _region_words(regions), warnings)


def _region_words(regions: Regions | None) -> str | None:
    if regions is None:
        return None
    if isinstance(regions, str | Path):
        return Path(regions).name
    return f"{len(regions)} drawn region{'s' if len(regions) != 1 else ''}"


def _run_head(bundle: ModelBundle, embeddings: Embeddings, device: Device) -> MILOutput:
    """All tiles as one bag, on the device where its memory suffices."""
    features = torch.from_numpy(embeddings.features)
    try:
        output = _apply(bundle, features, device.torch_device)
    except (RuntimeError, MemoryError) as error:
        if device.torch_device.type == "cpu" or not is_out_of_memory(error):
            raise
        output = None
    # Outside the handler, whose traceback keeps the memory of the failed attempt.
    output = output or _apply(bundle, features, torch.device("cpu"))
    if not bool(torch.isfinite(output.logits).all()):
        raise JobFailed(
            f"{bundle.card.name} gave values that are not numbers: check it with `napari-her2 models verify`."
        )
    return output


def _apply(bundle: ModelBundle, features: torch.Tensor, device: torch.device) -> MILOutput:
    head = bundle.head.to(device).eval()
    with torch.inference_mode():
        output: MILOutput = head(features.to(device))
        return MILOutput(
            **{
                name: getattr(output, name).float().cpu()
                for name in ("logits", "scores", "attention", "evidence", "votes")
            }
        )


def _uncertainty(bundle: ModelBundle, embeddings: Embeddings) -> BagUncertainty | None:
    # A few thousand tiles: on the CPU always, so that the same draw gives the same numbers everywhere.
    head = cast("SlideAggregator", bundle.head.to("cpu"))
    return bag_uncertainty(head, torch.from_numpy(embeddings.features))
