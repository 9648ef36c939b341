"""A slide scored patch by patch, the answers joined by their mean or by vote.

Each patch is looked at by itself and none is weighed against another: there is no attention, and no
confidence but the probabilities. A vote that no class wins is not answered.

A patch of 512 px at 1 µm/px is 0.26 mm², more than the 100 tiles of 96 px at 0.5 µm/px (0.23 mm²) that other
models need at least: one is enough to answer, of smaller patches as many as make up that area.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch.nn.functional import one_hot

from napari_her2.explain.fields import field_maps
from napari_her2.inference.assemble import Clock, assemble, scored_slide
from napari_her2.inference.embed import embed_steps, refuse_ruins
from napari_her2.inference.presentation import MIN_TILES
from napari_her2.inference.result import Progress
from napari_her2.inference.selection import choose_tiles
from napari_her2.inference.tile_scores import STAGE, TileScorer, refuse_nonsense, unpacked
from napari_her2.models.patch_classifier import FUSIONS, PatchConvNeXt

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import Tensor

    from napari_her2.inference.device import Device
    from napari_her2.inference.options import ScoringOptions
    from napari_her2.inference.regions import Regions
    from napari_her2.inference.result import SlideResult
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.card import ModelCard
    from napari_her2.models.patch_classifier import Fusion
    from napari_her2.slide.reader import Slide

LEAST_MM2 = MIN_TILES * (96 * 0.5e-3) ** 2
"""With patches of less area in all the answer is "indeterminate"."""


class PatchScorer(TileScorer):
    """A `PatchConvNeXt` as embedding sees it; how patches are joined makes no difference to their numbers."""

    def __init__(self, model: PatchConvNeXt) -> None:
        super().__init__(model, numbers=model.classes, tile_px=model.tile_px, out_px=model.tile_px)

    def say(self, tiles: Tensor) -> Tensor:
        """(B, 3, t, t) float in [0, 1] to (B, C) logits."""
        logits: Tensor = self.model(tiles)
        return logits

    def told(self) -> str:
        """Tell the size of the patches."""
        return f"patches {self.spec.tile_px}"


def score_patches(
    slide: Slide, bundle: ModelBundle, regions: Regions | None, device: Device, options: ScoringOptions
) -> Generator[Progress, None, SlideResult]:
    """Score one slide; see `napari_her2.methods.scoring.score_steps`."""
    card, clock = bundle.card, Clock()
    model = cast("PatchConvNeXt", bundle.head)
    yield Progress("Finding tissue", note=device.name)
    chosen = choose_tiles(slide, card, regions, options, stain=card.stain)
    clock.lap("tissue")
    embeddings = yield from embed_steps(
        slide,
        PatchScorer(model),
        chosen.grid,
        chosen.keep,
        device,
        cache=options.cache,
        batch_size=options.batch_size,
        stage=STAGE,
    )
    clock.lap("embed")
    refuse_ruins(slide, embeddings)
    logits = unpacked(embeddings.features)
    refuse_nonsense(logits, card)
    probabilities = torch.softmax(logits, dim=1)
    joined = fused(probabilities, model.fusion)
    scored = scored_slide(slide, chosen, embeddings, None, card.classes)
    scored = replace(
        scored,
        table=replace(scored.table, probabilities=probabilities.float().numpy()),
        maps=(
            *field_maps(chosen.grid, embeddings.index, probabilities.numpy(), None, card.classes),
            *scored.maps,
        ),
    )
    clock.lap("model")
    return assemble(
        (scored,),
        bundle,
        joined.log(),
        device,
        clock,
        options,
        regions=chosen.regions,
        precision=embeddings.precision,
        min_tiles=least_patches(card),
        doubt=split_vote(joined, card.classes) if model.fusion == "vote" else "",
        rule=FUSIONS[model.fusion],
        warnings=(*slide.warnings, *chosen.warnings, *embeddings.warnings(slide.name)),
    )


def fused(probabilities: Tensor, fusion: Fusion) -> Tensor:
    """Join patches.

    Parameters
    ----------
    probabilities : (N, C) float
        Of each patch; N is at least 1.
    fusion : {"mean", "vote"}

    Returns
    -------
    (C,) float
        Probabilities of the slide: their mean, or the share of the patches whose first class it is.

    Examples
    --------
    >>> patches = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    >>> [[round(value, 2) for value in fused(patches, rule).tolist()] for rule in ("mean", "vote")]
    [[0.57, 0.43], [0.33, 0.67]]
    """
    if fusion == "mean":
        return probabilities.mean(dim=0)
    votes = one_hot(probabilities.argmax(dim=1), probabilities.shape[1])
    return votes.to(probabilities.dtype).mean(dim=0)


def split_vote(shares: Tensor, classes: tuple[str, ...]) -> str:
    """Say which classes share the first place of a vote; empty where one is first."""
    # Shares are multiples of 1/N, so equal numbers of votes are equal shares.
    most = float(shares.max())
    first = [name for name, share in zip(classes, shares.tolist(), strict=True) if share == most]
    return f"the patches are split evenly between {' and '.join(first)}" if len(first) > 1 else ""


def least_patches(card: ModelCard) -> int:
    """How many patches of the card's size make up the area that a score needs, at least 1."""
    area_mm2 = (card.tile_px * card.mpp * 1e-3) ** 2
    return max(1, math.ceil(LEAST_MM2 / area_mm2 - 1e-9))
