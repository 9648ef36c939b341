"""A slide scored field by field: each by itself, with a confidence, then joined (Corr-A-Net).

The rule by which tiles become a slide: the mean of their probabilities, weighted by the confidence that
the model has in each. It is ours; the paper scores single fields. A slide of which the model trusts less
than half of what it says, on average, is not answered. A model without a confidence, as most of the
published scripts train it, counts all tiles alike, and nothing is shown of how far it trusts them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

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
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.terms import Terms
    from napari_her2.inference.tile_encoder import TileEncoder
    from napari_her2.methods.method import Explanation
    from napari_her2.models.card import ModelCard
    from napari_her2.steps import Progress

RULE = "mean of the probabilities of all tiles, weighted by the model's confidence in each"
PLAIN_RULE = "mean of the probabilities of all tiles"
"""Of a model that has no confidence in them."""
MIN_FIELDS = 4
"""With fewer tiles the answer is "indeterminate". A field is 0.2 mm², as 100 tiles of other models are."""
LEAST_MEAN_CONFIDENCE = 0.5
STRATA = (("high", 0.9), ("medium", 0.75), ("low", 0.0))
"""Confidence from which a tile counts as highly, moderately or little trusted, as in the paper."""


class CorrANetMethod(TileMethod):
    """Each field scored by itself, with a confidence where the model has one; the slide by their mean."""

    name = "corr-a-net"
    title = "Corr-A-Net (field by field)"
    paper = "Dutta et al. 2025, doi:10.1101/2025.04.22.25326227"
    takes = "fields"
    stains = ("H&E",)
    architectures = ("FieldModel",)
    explanations = frozenset({"tile gallery", "region Grad-CAM", "faithfulness", "representation"})
    stage = "Scoring tiles"
    no_overlap = ""

    def explains(self, card: ModelCard) -> frozenset[Explanation]:
        """As the method does; a model that takes the pixels themselves makes no representation to show."""
        if card.arguments.get("channels_from", "correlated") == "correlated":
            return self.explanations
        return self.explanations - {"representation"}

    def facts(self, result: SlideResult) -> tuple[tuple[str, str], ...]:
        """Its rule, and how far the model trusts its scores of the tiles; see `Method.facts`."""
        if not result.trust:
            return super().facts(result)
        above = {name: f" (from {lowest:g})" if lowest else "" for name, lowest in STRATA}
        shares = ", ".join(f"{100 * share:.0f} % {name}{above[name]}" for name, share in result.trust.items())
        learnt = f"{shares}. It is learnt, not a probability of being right."
        return (*super().facts(result), ("confidence in the tiles", learnt))

    def encoder(self, job: ScoringJob) -> Generator[Progress, None, tuple[TileEncoder, tuple[str, ...]]]:
        """Fit the stains of the slide, and make the scorer of its fields; see `TileMethod.encoder`."""
        from napari_her2.inference.familiarity import wants_features
        from napari_her2.inference.prepared import prepared_fields
        from napari_her2.inference.tile_scores import TileScorer

        prepared = yield from prepared_fields(job.slide, job.bundle, job.device)
        job.clock.lap("stain")
        scorer = TileScorer(
            prepared.head,
            prepared.preparation,
            numbers=_numbers(job.card),
            cache_salt=prepared.cache_salt,
            features=wants_features(job),
        )
        return scorer, prepared.warnings

    def features(self, terms: Terms, read: ReadSlide) -> NDArray[np.floating]:
        """Features of the predictor; see `TileMethod.features`."""
        from napari_her2.inference.tile_scores import features_behind

        return features_behind(read.embeddings.features, _numbers(terms.card))

    def numbers(self, terms: Terms, read: ReadSlide) -> tuple[NDArray[np.floating], ...]:
        """Logits of the classes and of the confidence; see `TileMethod.numbers`."""
        from napari_her2.inference.tile_scores import unpacked

        return (unpacked(read.embeddings.features, _numbers(terms.card)).numpy(),)

    def join(self, terms: Terms, read: Sequence[ReadSlide]) -> Answer:
        """Join the fields, weighted by the confidence in each; see `TileMethod.join`."""
        from napari_her2.explain.fields import REGION_CAM
        from napari_her2.explain.geometries import OnRequest
        from napari_her2.inference.assemble import Answer, scored_tiles
        from napari_her2.models.aggregator import MILOutput
        from napari_her2.models.field_model import join_fields

        (slide,) = read
        probabilities, confidence, confidence_logits = _of_fields(terms, slide)
        weights, joined = join_fields(probabilities, confidence)
        weighed = None  # tiles that all count alike have no weights to show
        if confidence is not None:
            weighed = MILOutput(joined.log(), scores=confidence_logits, attention=weights.float())
        scored = scored_tiles(
            slide.slide,
            slide.chosen,
            slide.embeddings,
            terms.card.classes,
            weighed,
            probabilities=probabilities,
            confidence=confidence,
            extras=(OnRequest(REGION_CAM),),
        )
        answer = Answer(joined.log(), (scored,), min_tiles=MIN_FIELDS, rule=PLAIN_RULE)
        if confidence is None:
            return answer
        trust = trust_shares(confidence.numpy())
        return replace(answer, doubt=_doubt(confidence), rule=RULE, trust=trust)

    def so_far(self, terms: Terms, stain: str, features: NDArray[np.floating]) -> EarlyValues:
        """Return the class of each field; see `TileMethod.so_far`."""
        from napari_her2.explain.early import scores_so_far
        from napari_her2.inference.tile_scores import unpacked

        del stain
        # Behind a softmax the largest logit is the largest probability.
        logits = unpacked(features, _numbers(terms.card)).numpy()
        return scores_so_far(logits[:, : len(terms.card.classes)], terms.card.classes)

    def beside(self, terms: Terms, read: Sequence[ReadSlide], other: ReadSlide) -> Findings:
        """Score other fields, weighted as those that were joined; see `TileMethod.beside`."""
        from napari_her2.explain.findings import Findings
        from napari_her2.models.aggregator import MILOutput
        from napari_her2.models.field_model import field_weights, join_fields

        (slide,) = read
        own, trusted, _ = _of_fields(terms, slide)
        probabilities, confidence, logits = _of_fields(terms, other)
        if confidence is None or trusted is None:
            return Findings(probabilities=probabilities)
        joined = join_fields(own, trusted)[1].log()
        weights = field_weights(confidence, trusted).float()
        return Findings(MILOutput(joined, scores=logits, attention=weights), probabilities, confidence)


def _of_fields(terms: Terms, read: ReadSlide) -> tuple[Tensor, Tensor | None, Tensor]:
    """Probabilities (N, C) of fields, the confidence in each (N,) where there is one, and its logits (N,)."""
    import torch

    from napari_her2.inference.head import refuse_nonsense

    numbers = torch.from_numpy(read.numbers[0])
    refuse_nonsense(terms.card, numbers)
    probabilities = torch.softmax(numbers[:, : len(terms.card.classes)], dim=1)
    confidence = torch.sigmoid(numbers[:, -1]) if _confident(terms.card) else None
    return probabilities, confidence, numbers[:, -1]


def _numbers(card: ModelCard) -> int:
    """Logits of a tile: of each class, and of the confidence where the model has one."""
    return len(card.classes) + _confident(card)


def _confident(card: ModelCard) -> bool:
    """Whether a model says how far to trust its score of a tile."""
    return bool(card.arguments.get("confidence", True))


def trust_shares(confidence: NDArray[np.floating]) -> dict[str, float]:
    """Share of the tiles that the model trusts highly, moderately and little.

    Parameters
    ----------
    confidence : (N,) float

    Returns
    -------
    dict of str to float
        "high" (from 0.9), "medium" (from 0.75) and "low"; they sum to one.
    """
    shares, above = {}, math.inf
    for name, lowest in STRATA:
        shares[name] = (
            float(((confidence >= lowest) & (confidence < above)).mean()) if len(confidence) else 0.0
        )
        above = lowest
    return shares


def _doubt(confidence: Tensor) -> str:
    mean = float(confidence.mean())
    if mean >= LEAST_MEAN_CONFIDENCE:
        return ""
    return f"the model trusts its scores of the tiles too little ({mean:.2f} on average)"
