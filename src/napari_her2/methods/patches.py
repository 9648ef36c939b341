"""A slide scored patch by patch, the answers joined by their mean or by vote.

Each patch is looked at by itself and none is weighed against another: there is no attention, and no
confidence but the probabilities. A vote that no class wins is not answered.

A patch of 512 px at 1 µm/px is 0.26 mm², more than the 100 tiles of 96 px at 0.5 µm/px (0.23 mm²) that other
models need at least: one is enough to answer, of smaller patches as many as make up that area.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from napari_her2.inference.presentation import MIN_TILES
from napari_her2.methods.tiles import TileMethod

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.explain.early import EarlyValues
    from napari_her2.explain.findings import Findings
    from napari_her2.inference.assemble import Answer
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.kept_scoring import ReadSlide
    from napari_her2.inference.terms import Terms
    from napari_her2.inference.tile_encoder import TileEncoder
    from napari_her2.models.card import ModelCard
    from napari_her2.models.patch_classifier import Fusion, PatchConvNeXt
    from napari_her2.steps import Progress

LEAST_MM2 = MIN_TILES * (96 * 0.5e-3) ** 2
"""With patches of less area in all the answer is "indeterminate"."""


class PatchMethod(TileMethod):
    """Each patch scored by itself, the slide by their mean or their vote."""

    name = "patches"
    title = "ConvNeXt on patches"
    paper = "Chauhan et al. 2025, arXiv:2503.22069 (the arm of patches)"
    takes = "patches"
    architectures = ("PatchConvNeXt",)
    stage = "Scoring tiles"
    no_overlap = ""

    def encoder(self, job: ScoringJob) -> Generator[Progress, None, tuple[TileEncoder, tuple[str, ...]]]:
        """Make the scorer of patches; see `TileMethod.encoder`."""
        from napari_her2.inference.familiarity import wants_features
        from napari_her2.inference.tile_scores import TileScorer
        from napari_her2.models.preprocessing import TilePreparation

        yield from ()
        tile_px = job.card.tile_px
        # How patches are joined makes no difference to their logits, which both rules share in the cache.
        return TileScorer(
            cast("PatchConvNeXt", job.bundle.head),
            TilePreparation(tile_px=tile_px, out_px=tile_px),
            numbers=len(job.card.classes),
            cache_salt=f"patches {tile_px}",
            features=wants_features(job),
        ), ()

    def features(self, terms: Terms, read: ReadSlide) -> NDArray[np.floating]:
        """Pooled features of the patches; see `TileMethod.features`."""
        from napari_her2.inference.tile_scores import features_behind

        return features_behind(read.embeddings.features, len(terms.card.classes))

    def numbers(self, terms: Terms, read: ReadSlide) -> tuple[NDArray[np.floating], ...]:
        """Logits of each patch; see `TileMethod.numbers`."""
        from napari_her2.inference.tile_scores import unpacked

        return (unpacked(read.embeddings.features, len(terms.card.classes)).numpy(),)

    def join(self, terms: Terms, read: Sequence[ReadSlide]) -> Answer:
        """Join the patches by the rule of the model; see `TileMethod.join`."""
        from napari_her2.inference.assemble import Answer, scored_tiles
        from napari_her2.models.patch_classifier import FUSIONS

        (slide,) = read
        fusion = cast("PatchConvNeXt", terms.bundle.head).fusion
        probabilities = _probabilities(terms, slide)
        joined = fused(probabilities, fusion)
        scored = scored_tiles(
            slide.slide, slide.chosen, slide.embeddings, terms.card.classes, probabilities=probabilities
        )
        return Answer(
            joined.log(),
            (scored,),
            min_tiles=least_patches(terms.card),
            doubt=split_vote(joined, terms.card.classes) if fusion == "vote" else "",
            rule=FUSIONS[fusion],
        )

    def so_far(self, terms: Terms, stain: str, features: NDArray[np.floating]) -> EarlyValues:
        """Return the class of each patch; see `TileMethod.so_far`."""
        from napari_her2.explain.early import scores_so_far
        from napari_her2.inference.tile_scores import unpacked

        del stain
        # Behind a softmax the largest logit is the largest probability.
        logits = unpacked(features, len(terms.card.classes)).numpy()
        return scores_so_far(logits, terms.card.classes)

    def beside(self, terms: Terms, read: Sequence[ReadSlide], other: ReadSlide) -> Findings:
        """Score other patches, each by itself; see `TileMethod.beside`."""
        from napari_her2.explain.findings import Findings

        return Findings(probabilities=_probabilities(terms, other))


def _probabilities(terms: Terms, read: ReadSlide) -> Tensor:
    import torch

    from napari_her2.inference.head import refuse_nonsense

    logits = torch.from_numpy(read.numbers[0])
    refuse_nonsense(terms.card, logits)
    return torch.softmax(logits, dim=1)


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
    >>> import torch
    >>> patches = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    >>> [[round(value, 2) for value in fused(patches, rule).tolist()] for rule in ("mean", "vote")]
    [[0.57, 0.43], [0.33, 0.67]]
    """
    from torch.nn.functional import one_hot

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
