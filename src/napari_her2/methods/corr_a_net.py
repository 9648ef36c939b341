"""A slide scored field by field: each by itself, with a confidence, then joined (Corr-A-Net).

The rule by which tiles become a slide: the mean of their probabilities, weighted by the confidence that
the model has in each. It is ours; the paper scores single fields. A slide of which the model trusts less
than half of what it says, on average, is not answered.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from napari_her2.explain.fields import field_maps
from napari_her2.inference.assemble import Clock, assemble, scored_slide
from napari_her2.inference.embed import embed_steps, refuse_ruins
from napari_her2.inference.result import Progress
from napari_her2.inference.selection import choose_tiles
from napari_her2.inference.tile_scores import STAGE, TileScorer, refuse_nonsense, unpacked
from napari_her2.models.aggregator import MILOutput
from napari_her2.models.field_model import join_fields
from napari_her2.slide.macenko import IDENTITY, StainTransform, fit_slide, he_transform

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.inference.device import Device
    from napari_her2.inference.options import ScoringOptions
    from napari_her2.inference.regions import Regions
    from napari_her2.inference.result import SlideResult
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.card import ModelCard
    from napari_her2.models.field_model import FieldModel
    from napari_her2.slide.macenko import MacenkoFit
    from napari_her2.slide.reader import Slide

RULE = "mean of the probabilities of all tiles, weighted by the model's confidence in each"
MIN_FIELDS = 4
"""With fewer tiles the answer is "indeterminate". A field is 0.2 mm², as 100 tiles of other models are."""
LEAST_MEAN_CONFIDENCE = 0.5
STRATA = (("high", 0.9), ("medium", 0.75), ("low", 0.0))
"""Confidence from which a tile counts as highly, moderately or little trusted, as in the paper."""


class FieldEncoder(TileScorer):
    """A field model as embedding sees it: class logits and that of the confidence for each tile of a slide.

    Parameters
    ----------
    model : FieldModel
    tile_px : int
    transform : StainTransform
        Of the slide.
    """

    def __init__(self, model: FieldModel, *, tile_px: int, transform: StainTransform) -> None:
        super().__init__(
            model, numbers=model.classes + 1, tile_px=tile_px, out_px=model.field_px, transform=transform
        )

    def say(self, tiles: Tensor) -> Tensor:
        """(B, 3, h, h) float in [0, 1] to (B, C + 1): logits and that of the confidence."""
        output = self.model(tiles)
        return torch.cat([output.logits, output.confidence_logits[:, None]], dim=1)

    def told(self) -> str:
        """Tell the size of the tiles and the stain transform of the slide."""
        return f"fields {self.spec.tile_px} {self.transform.matrix.tolist()} {self.transform.offset.tolist()}"


def stain_transform(slide: Slide, card: ModelCard) -> tuple[StainTransform, MacenkoFit]:
    """Fit the stains of a slide once, and return what brings it to the reference."""
    fit = fit_slide(slide, mpp=card.mpp)
    return (IDENTITY if fit.fallback is not None else he_transform(fit)), fit


def score_fields(
    slide: Slide, bundle: ModelBundle, regions: Regions | None, device: Device, options: ScoringOptions
) -> Generator[Progress, None, SlideResult]:
    """Score one slide; see `napari_her2.methods.scoring.score_steps`."""
    card, clock = bundle.card, Clock()
    yield Progress("Finding tissue", note=device.name)
    chosen = choose_tiles(slide, card, regions, options, stain=card.stain)
    clock.lap("tissue")
    yield Progress("Measuring the stains", note=device.name)
    transform, fit = stain_transform(slide, card)
    clock.lap("stain")
    encoder = FieldEncoder(cast("FieldModel", bundle.head), tile_px=card.tile_px, transform=transform)
    embeddings = yield from embed_steps(
        slide,
        encoder,
        chosen.grid,
        chosen.keep,
        device,
        cache=options.cache,
        batch_size=options.batch_size,
        stage=STAGE,
    )
    clock.lap("embed")
    refuse_ruins(slide, embeddings)
    said = unpacked(embeddings.features)
    refuse_nonsense(said, card)
    logits, confidence_logits = said[:, :-1], said[:, -1]
    probabilities, confidence = torch.softmax(logits, dim=1), torch.sigmoid(confidence_logits)
    weights, joined = join_fields(probabilities, confidence)
    output = MILOutput(joined.log(), scores=confidence_logits, attention=weights.float())
    scored = scored_slide(slide, chosen, embeddings, output, card.classes)
    scored = replace(
        scored,
        table=replace(
            scored.table, probabilities=probabilities.float().numpy(), confidence=confidence.float().numpy()
        ),
        maps=(
            *field_maps(
                chosen.grid, embeddings.index, probabilities.numpy(), confidence.numpy(), card.classes
            ),
            *scored.maps,
        ),
    )
    clock.lap("model")
    warnings = (*slide.warnings, *chosen.warnings, *embeddings.warnings(slide.name))
    if fit.fallback is not None:
        warnings += (
            f"The stains of the slide could not be normalised ({fit.fallback}): colours are as scanned.",
        )
    return assemble(
        (scored,),
        bundle,
        output.logits,
        device,
        clock,
        options,
        regions=chosen.regions,
        precision=embeddings.precision,
        min_tiles=MIN_FIELDS,
        doubt=_doubt(confidence),
        rule=RULE,
        trust=trust_shares(confidence.numpy()),
        warnings=warnings,
    )


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
    shares, above = {}, np.inf
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
