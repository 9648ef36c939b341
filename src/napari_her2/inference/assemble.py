"""What scoring found, put together: a slide with its maps, and the result with where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2.explain.attention import attention_maps, attention_ranks
from napari_her2.explain.maps import TileMap
from napari_her2.inference.precision import other_precision
from napari_her2.inference.presentation import MIN_TILES, result_label, task_in_words
from napari_her2.inference.result import ScoredSlide, SlideResult, TileTable
from napari_her2.models.card import NOTICE
from napari_her2.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from napari_her2.inference.device import Device
    from napari_her2.inference.embed import Embeddings
    from napari_her2.inference.options import ScoringOptions
    from napari_her2.inference.selection import Chosen
    from napari_her2.models.aggregator import MILOutput
    from napari_her2.models.bags import BagUncertainty
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.card import ModelCard
    from napari_her2.slide.reader import Slide


@dataclass(slots=True)
class Clock:
    """Wall time of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    _start: float = field(default_factory=perf_counter)

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = perf_counter()
        self.seconds[stage] = round(now - self._start, 3)
        self._start = now


def scored_slide(
    slide: Slide,
    chosen: Chosen,
    embeddings: Embeddings,
    output: MILOutput | None,
    classes: tuple[str, ...],
    *,
    compared: int = 0,
) -> ScoredSlide:
    """Put together what a model said of the tiles of a slide.

    Parameters
    ----------
    slide : Slide
    chosen : Chosen
    embeddings : Embeddings
    output : MILOutput or None
        Of all tiles as one bag, on the CPU. None of a method that weighs no tiles against each other.
    classes : tuple of str
    compared : int, default 0
        Top and bottom tiles that the method compares.

    Returns
    -------
    ScoredSlide
        With attention, evidence of each class and attention as percentiles where there is any, tissue, and
        damage as maps.
    """
    grid = chosen.grid
    tissue = TileMap(
        kind="tissue",
        values=np.where(chosen.share > 0, chosen.share, np.nan).astype(np.float32),
        grid=grid,
        unit="share of the tile",
        description="How much of each tile was taken for tissue.",
    )
    corrupt = TileMap(
        kind="corrupt",
        values=grid.paint(embeddings.corrupt, np.ones(len(embeddings.corrupt), np.float32)),
        grid=grid,
        unit="1 where damaged",
        description="Tiles left out because the file is damaged there.",
    )
    evidence = None if output is None else output.evidence
    used: tuple[TileMap, ...] = ()
    if output is not None:
        used = attention_maps(grid, embeddings.index, output, classes)
        used += (attention_ranks(grid, embeddings.index, output),)
    return ScoredSlide(
        name=slide.name,
        path=slide.path,
        slide_id=slide.slide_id,
        fingerprint=slide.fingerprint,
        sha256_head=slide.identity.head,
        stain=chosen.stain,
        looks_like=chosen.looks_like,
        mpp_source=slide.mpp_source,
        table=TileTable(
            index=embeddings.index,
            origins_px0=grid.origins_px0(embeddings.index),
            attention=None if output is None else output.attention.numpy(),
            evidence=None if evidence is None else evidence.numpy(),
        ),
        maps=(*used, tissue, corrupt),
        grid=grid,
        tissue_mm2=chosen.tissue_mm2,
        corrupt=embeddings.corrupt,
        tissue=chosen.tissue,
        compared=compared,
    )


def assemble(
    slides: tuple[ScoredSlide, ...],
    bundle: ModelBundle,
    logits: Tensor,
    device: Device,
    clock: Clock,
    options: ScoringOptions,
    *,
    precision: str,
    task: str = "",
    spread: BagUncertainty | None = None,
    regions: str | None = None,
    head: str = "",
    heads: Mapping[str, Tensor] | None = None,
    min_tiles: int = MIN_TILES,
    doubt: str = "",
    rule: str = "",
    trust: Mapping[str, float] | None = None,
    warnings: tuple[str, ...] = (),
) -> SlideResult:
    """Put together the answer.

    Parameters
    ----------
    slides : tuple of ScoredSlide
    bundle : ModelBundle
    logits : (C,) float
        Of the head that gives the answer.
    device : Device
    clock : Clock
    options : ScoringOptions
    precision : str
        In which the features were computed; "float32" of models that take pixels.
    task : str
        Where it is not that of the card.
    spread : BagUncertainty or None
    regions : str or None
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

    Returns
    -------
    SlideResult
    """
    card = bundle.card
    probabilities = _chances(logits, card, head)
    score = max(card.classes, key=lambda name: probabilities[name])
    if other := other_precision(card.precision, precision):
        warnings = (*warnings, other)
    label, abstained = result_label(
        score,
        probabilities[score],
        {slide.name: len(slide.table) for slide in slides},
        min_confidence=options.least_confidence(card),
        min_tiles=min_tiles,
        doubt=doubt,
        own_labels=card.class_labels,
        class_scores=card.class_scores,
    )
    return SlideResult(
        slides=slides,
        model=card.name,
        model_sha256=bundle.sha256,
        task=task_in_words(task or card.task, slides),
        classes=card.classes,
        probabilities=probabilities,
        score=score,
        label=label,
        abstained=abstained,
        uncertainty=spread,
        device=device.name,
        precision=precision,
        seconds=clock.seconds,
        warnings=warnings,
        version=__version__,
        notice=_notice(card.notice),
        training_data=card.training_data,
        guideline=card.guideline,
        regions=regions,
        head=head,
        rule=rule,
        trust=trust or {},
        class_scores=card.class_scores,
        heads={name: _chances(values, card, name) for name, values in (heads or {}).items()},
    )


def _chances(logits: Tensor, card: ModelCard, head: str) -> dict[str, float]:
    chances: list[float] = torch.softmax(logits.double() / card.temperature(head), dim=-1).tolist()
    return dict(zip(card.classes, chances, strict=True))


def _notice(own: str) -> str:
    """Keep our notice: that of the model may say more than ours, never less."""
    return own if NOTICE in own else f"{NOTICE} {own}".strip()
