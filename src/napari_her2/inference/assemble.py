"""What scoring found, put together: a slide with its maps, and the result with where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from napari_her2.explain.fields import SCORED_TILES
from napari_her2.explain.findings import Findings, tile_maps
from napari_her2.explain.geometries import TILES
from napari_her2.explain.maps import DAMAGED, damage_map, tissue_map
from napari_her2.explain.quality import quality_map
from napari_her2.explain.unfamiliar import unfamiliar_map
from napari_her2.inference.class_words import class_label
from napari_her2.inference.doubt import NO_DOUBT_KNOWN, Spread
from napari_her2.inference.judging import redoubted as redoubted  # for whoever judges a result again
from napari_her2.inference.precision import other_precision
from napari_her2.inference.presentation import INDETERMINATE, MIN_TILES, task_in_words
from napari_her2.inference.result import AnswerLimits, SlideResult
from napari_her2.inference.scored_slide import ScoredSlide, TileTable
from napari_her2.inference.slide_record import SlideRecord
from napari_her2.models.card import NOTICE, SLIDE
from napari_her2.models.familiarity import IN_PART, UNLIKE
from napari_her2.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.cells.reading import CellReading
    from napari_her2.explain.maps import TileMap
    from napari_her2.explain.overlays import Drawing, OverlayInfo
    from napari_her2.inference.doubt import SlideFamiliarity
    from napari_her2.inference.embeddings import Embeddings
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.selection import Chosen
    from napari_her2.inference.terms import Terms
    from napari_her2.models.aggregator import MILOutput
    from napari_her2.models.bags import BagUncertainty
    from napari_her2.models.card import ModelCard
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.quality import Quality
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.thumbnail import Thumbnail
    from napari_her2.slide.tissue import TissueMask


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a method found, before it is worded.

    Parameters
    ----------
    logits : (C,) float or None
        Of the head that gives the answer; None of a method without probabilities, which gives ``score``.
    slides : tuple of ScoredSlide
    precision : str
        In which the features were computed; "float32" of models that take pixels.
    graph : str
        How, where not layer by layer; see `napari_her2.models.inference_graph`.
    task : str
        Where it is not that of the card.
    spread : BagUncertainty or None
    regions : str or None
        What the scoring was limited to, in words.
    head : str
    heads : mapping of str to (C,) float
        Logits of each head.
    min_tiles : int
        With fewer the answer is withheld.
    doubt : str
        Why else the answer is withheld; empty where nothing speaks against it.
    rule : str
    trust : mapping of str to float
    warnings : tuple of str
    score : str
        A class, of a method without probabilities; empty where it gives none, and ``doubt`` says why.
    measures : mapping of str to plain values
        As of `SlideResult`.
    members : mapping of str to (M, C) float
        Logits of each member, by head (`napari_her2.models.card.SLIDE` of models of one head), where the
        model is an ensemble.
    """

    logits: Tensor | None
    slides: tuple[ScoredSlide, ...]
    precision: str = ""
    graph: str = ""
    task: str = ""
    spread: BagUncertainty | None = None
    regions: str | None = None
    head: str = ""
    heads: Mapping[str, Tensor] = field(default_factory=dict)
    min_tiles: int = MIN_TILES
    doubt: str = ""
    rule: str = ""
    trust: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    score: str = ""
    measures: Mapping[str, Any] = field(default_factory=dict)
    members: Mapping[str, Tensor] = field(default_factory=dict)


def scored_tiles(
    slide: Slide | SlideRecord,
    chosen: Chosen,
    embeddings: Embeddings,
    classes: tuple[str, ...],
    output: MILOutput | None = None,
    *,
    probabilities: Tensor | None = None,
    confidence: Tensor | None = None,
    compared: int = 0,
    extras: tuple[Drawing, ...] = (),
) -> ScoredSlide:
    """Put together what a model found in the tiles of a slide.

    Parameters
    ----------
    slide : Slide or SlideRecord
    chosen : Chosen
    embeddings : Embeddings
        Of which the features are not needed.
    classes : tuple of str
    output : MILOutput, optional
        Of all tiles as one bag, on the CPU. Missing of a method that weighs no tiles against each other.
    probabilities : (N, C) float, optional
        Of each tile by itself, where the method scores tiles.
    confidence : (N,) float, optional
        Of the model in them.
    compared : int, default 0
        Top and bottom tiles that the method compares.
    extras : tuple of Drawing
        What the method draws beside maps.

    Returns
    -------
    ScoredSlide
        With score, confidence and probabilities where tiles have them, attention, evidence of each class and
        attention as percentiles where there is any, tissue, and damage as maps.
    """
    grid, index = chosen.grid, embeddings.index
    table = TileTable(
        index=index,
        origins_px0=grid.origins_px0(index),
        attention=None if output is None else output.attention.numpy(),
        evidence=None if output is None or output.evidence is None else output.evidence.numpy(),
        probabilities=None if probabilities is None else probabilities.float().numpy(),
        confidence=None if confidence is None else confidence.float().numpy(),
    )
    return scored_slide(
        slide,
        stain=chosen.stain,
        looks_like=chosen.looks_like,
        table=table,
        maps=tile_maps(grid, index, Findings(output, probabilities, confidence), classes),
        grid=grid,
        tissue=chosen.tissue,
        share=chosen.share,
        tissue_mm2=chosen.tissue_mm2,
        corrupt=embeddings.corrupt,
        compared=compared,
        extras=extras,
        quality=chosen.quality,
        tiles_info=TILES if probabilities is None else SCORED_TILES,
    )


def scored_slide(
    slide: Slide | SlideRecord,
    *,
    stain: str,
    looks_like: str,
    table: TileTable,
    maps: tuple[TileMap, ...],
    grid: TileGrid,
    tissue: TissueMask,
    share: NDArray[np.float32],
    tissue_mm2: float,
    corrupt: NDArray[np.int64],
    damage: OverlayInfo = DAMAGED,
    compared: int = 0,
    thumbnails: tuple[Thumbnail, ...] = (),
    extras: tuple[Drawing, ...] = (),
    tiles_info: OverlayInfo = TILES,
    cells: CellReading | None = None,
    quality: Quality | None = None,
) -> ScoredSlide:
    """Name a slide beside what was found on it, and add maps of tissue and damage.

    Parameters
    ----------
    slide : Slide or SlideRecord
    share : (rows, columns) float32
        Of each tile that is tissue.
    damage : OverlayInfo
        How the map of damage is described.
    stain, looks_like, table, maps, grid, tissue, tissue_mm2, corrupt, compared
    thumbnails, extras, tiles_info, cells, quality
        As of `ScoredSlide`.

    Returns
    -------
    ScoredSlide
    """
    of = SlideRecord.of(slide)
    scored = ScoredSlide(
        name=of.name,
        path=of.path,
        slide_id=of.slide_id,
        fingerprint=of.fingerprint,
        sha256_head=of.sha256_head,
        stain=stain,
        looks_like=looks_like,
        mpp_source=of.mpp_source,
        table=table,
        maps=(*maps, tissue_map(grid, share), damage_map(grid, corrupt, damage)),
        grid=grid,
        tissue_mm2=tissue_mm2,
        corrupt=corrupt,
        tissue=tissue,
        compared=compared,
        thumbnails=thumbnails,
        extras=extras,
        tiles_info=tiles_info,
        cells=cells,
        bounds_px0=of.bounds_px0,
    )
    return with_quality(scored, quality)


def with_quality(scored: ScoredSlide, quality: Quality | None) -> ScoredSlide:
    """Say how good the tissue of a slide is, with a map of it, where somebody looked.

    Parameters
    ----------
    scored : ScoredSlide
    quality : Quality or None

    Returns
    -------
    ScoredSlide
    """
    if quality is None:
        return scored
    return replace(scored, quality=quality, maps=(*scored.maps, quality_map(quality)))


def with_familiarity(scored: ScoredSlide, familiarity: SlideFamiliarity) -> ScoredSlide:
    """Say how familiar a slide is, with a map of its unfamiliar tiles where each was compared.

    Parameters
    ----------
    scored : ScoredSlide
    familiarity : SlideFamiliarity

    Returns
    -------
    ScoredSlide
    """
    distances, maps = familiarity.distances, scored.maps
    if distances is not None and len(distances) == len(scored.table):
        shown = familiarity.verdict in (IN_PART, UNLIKE)
        maps = (*maps, unfamiliar_map(scored.grid, scored.table.index, distances, visible=shown))
    return replace(scored, familiarity=familiarity, maps=maps)


def assemble(job: ScoringJob | Terms, answer: Answer) -> SlideResult:
    """Word an answer, and say where it came from.

    Parameters
    ----------
    job : ScoringJob or Terms
    answer : Answer

    Returns
    -------
    SlideResult
    """
    card, options, warnings = job.card, job.options, answer.warnings
    if other := other_precision(card.precision, answer.precision):
        warnings = (*warnings, other)
    probabilities, score, label, reason = dict[str, float](), answer.score, "", ""
    if answer.logits is None:
        label, reason = score_label(answer.score, answer.doubt, card)
    else:
        probabilities = chances(answer.logits, card, answer.head)
        score = max(card.classes, key=lambda name: probabilities[name])
    found = SlideResult(
        slides=answer.slides,
        method=card.method,
        model=card.name,
        model_sha256=job.bundle.sha256,
        task=task_in_words(answer.task or card.task, answer.slides),
        classes=card.classes,
        probabilities=probabilities,
        score=score,
        label=label,
        abstained=bool(reason),
        reason=reason,
        uncertainty=answer.spread,
        device=job.device.name if card.encoder is None else job.device.line(answer.precision, answer.graph),
        precision=answer.precision,
        seconds=job.clock.seconds,
        warnings=warnings,
        version=__version__,
        notice=_notice(card.notice),
        training_data=card.training_data,
        guideline=card.guideline,
        regions=answer.regions,
        head=answer.head,
        rule=answer.rule,
        trust=answer.trust,
        measures=answer.measures,
        class_scores=card.class_scores,
        heads={name: chances(values, card, name) for name, values in answer.heads.items()},
        doubt=replace(NO_DOUBT_KNOWN, spread=_spread(answer, card, score)),
        answer_sets=job.bundle.answer_sets,
        limits=AnswerLimits(
            options.least_confidence(card),
            answer.min_tiles,
            answer.doubt,
            card.class_labels,
            card.case_slides,
            card.case_rule,
        ),
    )
    return redoubted(
        found,
        coverage=options.coverage,
        min_familiarity=options.min_familiarity,
        show_withheld=options.show_withheld,
    )


def _spread(answer: Answer, card: ModelCard, score: str) -> Spread | None:
    """How far the members of an ensemble part, at the temperature of the head that answers."""
    members = answer.members.get(answer.head or SLIDE)
    if members is None or len(members) < 2:
        return None
    chances = torch.softmax(members.double() / card.temperature(answer.head), dim=-1)
    agree = int((chances.argmax(dim=-1) == card.classes.index(score)).sum())
    sds = dict(zip(card.classes, chances.std(dim=0).tolist(), strict=True))
    return Spread(len(members), agree, sds)


def score_label(score: str, doubt: str, card: ModelCard) -> tuple[str, str]:
    """How a score that comes without a probability is shown, and why it is withheld.

    Parameters
    ----------
    score : str
        Empty where there is none.
    doubt : str
        Why it is withheld; empty where it is given.
    card : ModelCard

    Returns
    -------
    label, reason : str
        As of `SlideResult`.
    """
    if doubt or not score:
        return f"{INDETERMINATE}: {doubt or 'there is no score'}", doubt or "there is no score"
    return class_label(score, card.class_labels, card.class_scores), ""


def chances(logits: Tensor, card: ModelCard, head: str = "") -> dict[str, float]:
    """Return the probability of each class, at the temperature of a head, or of the slide."""
    each: list[float] = torch.softmax(logits.double() / card.temperature(head), dim=-1).tolist()
    return dict(zip(card.classes, each, strict=True))


def _notice(own: str) -> str:
    """Keep our notice: that of the model may say more than ours, never less."""
    return own if NOTICE in own else f"{NOTICE} {own}".strip()
