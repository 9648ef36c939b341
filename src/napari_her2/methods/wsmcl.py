"""The H&E and the IHC slide of a case scored together, or either alone, by WSMCL (Shi et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from napari_her2.errors import ModelError, ModelMisfit
from napari_her2.inference.assemble import Clock, assemble, scored_slide
from napari_her2.inference.case_table import other_case
from napari_her2.inference.embed import embed_steps, refuse_ruins
from napari_her2.inference.fit import slide_stain
from napari_her2.inference.head import run_head
from napari_her2.inference.precision import joined
from napari_her2.inference.result import Progress
from napari_her2.inference.selection import choose_tiles
from napari_her2.models.aggregator import MILOutput

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from napari_her2.inference.device import Device
    from napari_her2.inference.embed import Embeddings
    from napari_her2.inference.options import ScoringOptions
    from napari_her2.inference.regions import Regions
    from napari_her2.inference.result import ScoredSlide, SlideResult
    from napari_her2.inference.selection import Chosen
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.wsmcl import BranchOutput, WSMCLOutput
    from napari_her2.slide.reader import Slide

HE, IHC, FUSION = "H&E", "IHC", "fusion"
TASKS: Mapping[str, str] = {
    HE: "H&E-based prediction of the HER2 IHC score",
    IHC: "Prediction of the HER2 IHC score from the IHC slide",
}
"""What the head of one slide answers; that of both has the task of the model's card."""


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A slide with its tiles embedded."""

    slide: Slide
    chosen: Chosen
    embeddings: Embeddings


def score_pair(
    slide: Slide,
    ihc: Slide | None,
    bundle: ModelBundle,
    regions: Regions | None,
    device: Device,
    options: ScoringOptions,
) -> Generator[Progress, None, SlideResult]:
    """Score a case; see `napari_her2.methods.scoring.score_steps`.

    Parameters
    ----------
    slide : Slide
        The H&E slide; without ``ihc`` either, told by its colours or by ``options.stain``.
    ihc : Slide or None
    bundle : ModelBundle
    regions : Regions or None
        On ``slide``.
    device : Device
    options : ScoringOptions

    Yields
    ------
    Progress

    Returns
    -------
    SlideResult
        ``slides`` in the order given, ``head`` and ``heads`` filled in.

    Raises
    ------
    ModelMisfit
        If the slides are no pair of one case.
    """
    card, clock = bundle.card, Clock()
    warnings: tuple[str, ...] = ()
    yield Progress("Finding tissue", note=device.name)
    if ihc is None:
        stains: tuple[str, ...] = (_stain_alone(slide, options),)
    else:
        stains = (HE, IHC)
        warnings += _refuse_strangers(slide, ihc, options)
    chosen: list[tuple[Slide, Chosen]] = []
    for opened, stain in zip((slide, ihc), stains, strict=False):
        if opened is not None:
            found = choose_tiles(opened, card, regions if opened is slide else None, options, stain=stain)
            chosen.append((opened, found))
            yield Progress("Finding tissue", note=device.name)
    clock.lap("tissue")
    read = []
    for opened, found in chosen:
        embeddings = yield from _embed(opened, found, bundle, device, options)
        refuse_ruins(opened, embeddings)
        read.append(_Read(opened, found, embeddings))
    clock.lap("embed")
    yield Progress("Scoring", note=device.name)
    bags = {item.chosen.stain: torch.from_numpy(item.embeddings.features) for item in read}
    output: WSMCLOutput = run_head(bundle, device, bags.get(HE), bags.get(IHC))
    branches = {HE: output.he, IHC: output.ihc}
    scored = tuple(_scored(item, branches[item.chosen.stain], card.classes) for item in read)
    heads = {stain: branch.logits for stain, branch in branches.items() if branch is not None}
    if output.fused is not None:
        heads = {FUSION: output.fused, **heads}
    clock.lap("model")
    result = assemble(
        scored,
        bundle,
        output.logits,
        device,
        clock,
        options,
        task=TASKS.get(output.head, ""),
        regions=read[0].chosen.regions,
        precision=joined([item.embeddings.precision for item in read]),
        head=output.head,
        heads=heads,
        warnings=(*warnings, *(line for item in read for line in _warnings(item))),
    )
    return replace(result, warnings=(*_remarks(result), *result.warnings))


def _embed(
    slide: Slide, chosen: Chosen, bundle: ModelBundle, device: Device, options: ScoringOptions
) -> Generator[Progress, None, Embeddings]:
    """Embed a slide, saying which."""
    steps = embed_steps(
        slide,
        bundle.patch_encoder,
        chosen.grid,
        chosen.keep,
        device,
        cache=options.cache,
        batch_size=options.batch_size,
    )
    try:
        while True:
            step = next(steps)
            yield replace(step, stage=f"{step.stage} ({chosen.stain})")
    except StopIteration as end:
        embeddings: Embeddings = end.value
        return embeddings
    finally:
        steps.close()


def _scored(read: _Read, branch: BranchOutput | None, classes: tuple[str, ...]) -> ScoredSlide:
    assert branch is not None  # the model answers for every slide it was given
    # Received attention ranks tiles and says nothing of the classes: there is no evidence to show.
    output = MILOutput(branch.logits, scores=branch.attention, attention=branch.attention)
    return scored_slide(read.slide, read.chosen, read.embeddings, output, classes, compared=len(branch.top))


def _stain_alone(slide: Slide, options: ScoringOptions) -> str:
    """Which slide of a case it is that was given alone."""
    if options.stain != "auto":
        return options.stain
    seen = slide_stain(slide, slide.tissue(options.preset), options.preset)
    if seen == "unknown" and not options.override_fit:
        raise ModelMisfit(
            f"The stain of {slide.name} could not be recognised from its colours, and the model answers "
            f"differently for H&E and IHC: say which stain it is. It is taken for H&E otherwise."
        )
    return HE if seen == "unknown" else seen


def _refuse_strangers(he: Slide, ihc: Slide, options: ScoringOptions) -> tuple[str, ...]:
    """Refuse two slides that are no pair, or warn where the user insists."""
    problem = ""
    if he.fingerprint == ihc.fingerprint:
        raise ModelError(
            f"{he.path.name} was given as the H&E and as the IHC slide: choose the other slide of the "
            f"case, or score this one alone."
        )
    cases = other_case(he.path, ihc.path)
    if cases is not None:
        problem = (
            f"{he.path.name} belongs to case {cases[0]} and {ihc.path.name} to case {cases[1]} in "
            f"{cases[2]}: choose the two slides of one case."
        )
    elif _stain(he, options) != HE and _stain(ihc, options) == HE:
        problem = (
            f"The slides seem to be swapped: {ihc.name} looks like H&E, {he.name} does not. Give them the "
            f"other way round."
        )
    if problem and not options.override_fit:
        raise ModelMisfit(problem)
    return (f"Scored all the same: {problem}",) if problem else ()


def _stain(slide: Slide, options: ScoringOptions) -> str:
    return slide_stain(slide, slide.tissue(options.preset), options.preset)


def _warnings(read: _Read) -> tuple[str, ...]:
    slide = read.slide
    own = tuple(f"{slide.name}: {line}" for line in slide.warnings)
    return (*own, *read.chosen.warnings, *read.embeddings.warnings(slide.name))


def _remarks(result: SlideResult) -> tuple[str, ...]:
    """Tell what a reader of the score has to know of the heads that spoke, and did not."""
    if result.head != FUSION:
        other = IHC if result.head == HE else HE
        return (
            f"Only the {result.head} slide was given: this is the answer of its own head, which has not seen "
            f"the {other} slide.",
        )
    lines = []
    if result.agree is False:
        says = result.head_scores
        lines.append(
            f"The two slides disagree: by itself the H&E slide says {says[HE]}, the IHC slide {says[IHC]}. "
            f"Look at both before you use the score."
        )
    if result.regions is not None:
        lines.append(f"The regions limit {result.slide}; of the paired slide all tissue was used.")
    return tuple(lines)
