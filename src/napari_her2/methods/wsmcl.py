"""The H&E and the IHC slide of a case scored together, or either alone, by WSMCL (Shi et al. 2025)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_her2.errors import ModelError, ModelMisfit
from napari_her2.methods.tile_parts import Given
from napari_her2.methods.tiles import TileMethod
from napari_her2.models.card import BOTH, PAIR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from napari_her2.explain.findings import Findings
    from napari_her2.inference.assemble import Answer
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.kept_scoring import ReadSlide
    from napari_her2.inference.options import ScoringOptions
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide
    from napari_her2.inference.terms import Terms
    from napari_her2.models.aggregator import MILOutput
    from napari_her2.models.wsmcl import BranchOutput, WSMCLOutput
    from napari_her2.slide.reader import Slide

HE, IHC = "H&E", "IHC"
TASKS: Mapping[str, str] = {
    HE: "H&E-based prediction of the HER2 IHC score",
    IHC: "Prediction of the HER2 IHC score from the IHC slide",
}
"""What the head of one slide answers; that of both has the task of the model's card."""


class WSMCLMethod(TileMethod):
    """Two bags, each with a head of its own, and one head over both.

    Where there are two slides they are given as H&E and IHC; one alone is recognised by its colours, or
    named by ``ScoringOptions.stain``. Regions are those of the first slide.
    """

    name = "wsmcl"
    title = "WSMCL (H&E and IHC together)"
    paper = "Shi et al. 2025, PMID 39919535"
    stains = (PAIR,)
    architectures = ("WSMCL",)
    explanations = frozenset({"tile gallery"})
    joins_bags = True
    no_overlap = ""

    def given(self, job: ScoringJob) -> Given:
        """Recognise the slides, and refuse two that are no pair; see `TileMethod.given`."""
        if job.ihc is None:
            return Given(((job.slide, _stain_alone(job.slide, job.options)),))
        warnings = _refuse_strangers(job.slide, job.ihc, job.options)
        return Given(((job.slide, HE), (job.ihc, IHC)), warnings)

    def numbers(self, terms: Terms, read: ReadSlide) -> tuple[NDArray[np.floating], ...]:
        """Let the branch of the slide look at each tile; see `TileMethod.numbers`."""
        from napari_her2.inference.head import tile_numbers

        return tile_numbers(terms.bundle, terms.device, read.embeddings.features, read.chosen.stain)

    def alone(self, terms: Terms, read: ReadSlide) -> tuple[BranchOutput, ...]:
        """Let the tiles of a slide attend to each other; see `TileMethod.alone`."""
        return _of_bag(terms, [read])

    def join(self, terms: Terms, read: Sequence[ReadSlide]) -> Answer:
        """Fuse the slides that there are, several of one stain as one bag; see `TileMethod.join`."""
        from napari_her2.inference.assemble import Answer
        from napari_her2.inference.head import refuse_nonsense, run_head

        of_stain = {stain: [of for of in read if of.chosen.stain == stain] for stain in (HE, IHC)}
        bags = {
            stain: own[0].alone if len(own) == 1 else _of_bag(terms, own)
            for stain, own in of_stain.items()
            if own
        }
        output = run_head(terms.bundle, terms.device, partial(_fused, bags))
        refuse_nonsense(terms.card, output.logits)
        branches = {
            stain: branch for stain, branch in ((HE, output.he), (IHC, output.ihc)) if branch is not None
        }
        heads = {stain: branch.logits for stain, branch in branches.items()}
        members = {stain: of.members for stain, of in branches.items() if of.members is not None}
        if output.fused is not None:
            heads = {BOTH: output.fused, **heads}
        if output.fused_members is not None:
            members[BOTH] = output.fused_members
        return Answer(
            output.logits,
            _scored_slides(terms, read, branches),
            task=TASKS.get(output.head, ""),
            head=output.head,
            heads=heads,
            members=members,
        )

    def beside(self, terms: Terms, read: Sequence[ReadSlide], other: ReadSlide) -> Findings:
        """Let its branch attend to other tiles of a slide as a bag of their own; see `TileMethod.beside`."""
        from napari_her2.explain.findings import Findings
        from napari_her2.inference.head import refuse_nonsense, run_head
        from napari_her2.models.aggregator import weighed_apart

        stain = other.chosen.stain
        output = run_head(terms.bundle, terms.device, partial(_fused, {stain: _of_bag(terms, [other])}))
        branch = output.he if stain == HE else output.ihc
        assert branch is not None
        refuse_nonsense(terms.card, branch.attention)
        tiles = sum(len(of.embeddings.index) for of in read)
        return Findings(weighed_apart(_received(branch, branch.attention), tiles))

    def remarks(self, result: SlideResult) -> tuple[str, ...]:
        """Which head answered, and whether the others agree; see `TileMethod.remarks`."""
        if result.head != BOTH:
            other = IHC if result.head == HE else HE
            return (
                f"Only the {result.head} slide was given: this is the answer of its own head, which has not "
                f"seen the {other} slide.",
            )
        lines = []
        if result.agree is False:
            # Without their scores: a warning is read also where the answer is withheld.
            lines.append("The two slides disagree by themselves. Look at both before you use the score.")
        if result.regions is not None:
            lines.append(f"The regions limit {result.slide}; of the paired slide all tissue was used.")
        return tuple(lines)


def _of_bag(terms: Terms, read: Sequence[ReadSlide]) -> tuple[BranchOutput, ...]:
    """Let the tiles of slides of one stain attend to each other, as one bag."""
    import torch

    from napari_her2.inference.bags import one_bag
    from napari_her2.inference.head import run_head

    tiles = one_bag([[torch.from_numpy(part) for part in of.numbers] for of in read])
    stain = read[0].chosen.stain

    def attended(head: Any, place: torch.device) -> tuple[BranchOutput, ...]:  # noqa: ANN401 - one of two
        found: tuple[BranchOutput, ...] = head.branches(stain, [part.to(place) for part in tiles])
        return found

    return run_head(terms.bundle, terms.device, attended)


def _fused(
    bags: Mapping[str, object],
    head: Any,  # noqa: ANN401 - one of two classes
    place: torch.device,
) -> WSMCLOutput:
    """Apply the head to the bag of each stain that there is."""
    from napari_her2.inference.head import on_device

    found: WSMCLOutput = head.of_branches(*(on_device(bags.get(stain), place) for stain in (HE, IHC)))
    return found


def _scored_slides(
    terms: Terms, read: Sequence[ReadSlide], branches: Mapping[str, BranchOutput]
) -> tuple[ScoredSlide, ...]:
    """Give each slide its part of the bag of its stain; of several, what its branch makes of it alone."""
    from napari_her2.inference.assemble import chances
    from napari_her2.inference.head import refuse_nonsense, run_head

    stains = [of.chosen.stain for of in read]
    begun = dict.fromkeys(stains, 0)
    found: list[ScoredSlide] = []
    for item, stain in zip(read, stains, strict=True):
        begin, end = begun[stain], begun[stain] + len(item.embeddings.index)
        begun[stain] = end
        branch = branches[stain]
        scored = _scored(item, branch, branch.attention[begin:end], terms.card.classes)
        if stains.count(stain) > 1:
            alone = run_head(terms.bundle, terms.device, partial(_fused, {stain: item.alone}))
            refuse_nonsense(terms.card, alone.logits)
            scored = replace(scored, alone=chances(alone.logits, terms.card, stain))
        found.append(scored)
    return tuple(found)


def _scored(
    read: ReadSlide, branch: BranchOutput, attention: torch.Tensor, classes: tuple[str, ...]
) -> ScoredSlide:
    from napari_her2.inference.assemble import scored_tiles

    compared = len(branch.top)
    return scored_tiles(
        read.slide, read.chosen, read.embeddings, classes, _received(branch, attention), compared=compared
    )


def _received(branch: BranchOutput, attention: torch.Tensor) -> MILOutput:
    """Attention received, which ranks tiles and says nothing of the classes: there is no evidence to show."""
    from napari_her2.models.aggregator import MILOutput

    return MILOutput(branch.logits, scores=attention, attention=attention)


def _stain_alone(slide: Slide, options: ScoringOptions) -> str:
    """Which slide of a case it is that was given alone."""
    if options.stain != "auto":
        return options.stain
    seen = _stain(slide, options)
    if seen == "unknown" and not options.override_fit:
        raise ModelMisfit(
            f"The stain of {slide.name} could not be recognised from its colours, and the model answers "
            f"differently for H&E and IHC: say which stain it is. It is taken for H&E otherwise."
        )
    return HE if seen == "unknown" else seen


def _refuse_strangers(he: Slide, ihc: Slide, options: ScoringOptions) -> tuple[str, ...]:
    """Refuse two slides that are no pair, or warn where the user insists."""
    from napari_her2.inference.case_table import other_case

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
    from napari_her2.inference.fit import slide_stain

    return slide_stain(slide, slide.tissue(options.preset), options.preset)
