"""A slide scored field by field: each by itself, with a confidence, then joined (Corr-A-Net).

The rule by which tiles become a slide: the mean of their probabilities, weighted by the confidence that
the model has in each. It is ours; the paper scores single fields. A slide of which the model trusts less
than half of what it says, on average, is not answered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from napari_her2.errors import JobFailed
from napari_her2.explain.fields import field_maps
from napari_her2.inference.assemble import Clock, assemble, scored_slide
from napari_her2.inference.embed import embed_steps, refuse_ruins
from napari_her2.inference.result import Progress
from napari_her2.inference.selection import choose_tiles
from napari_her2.models.aggregator import MILOutput
from napari_her2.models.preprocessing import TilePreparation
from napari_her2.models.weights_file import weights_digest
from napari_her2.slide.macenko import IDENTITY, StainTransform, fit_slide, he_transform

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

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
STAGE = "Scoring tiles"


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """Sizes of what goes in and comes out of a `FieldEncoder`."""

    tile_px: int
    dim: int


class FieldEncoder(nn.Module):
    """A field model as embedding sees it: tiles of one slide go in, what it says of each comes out.

    Features are kept as float16, which is too coarse for logits: each number travels as a float16 and,
    in the second half of the vector, what that lacks.

    Parameters
    ----------
    model : FieldModel
    tile_px : int
    transform : StainTransform
        Of the slide.
    """

    def __init__(self, model: FieldModel, *, tile_px: int, transform: StainTransform) -> None:
        super().__init__()
        self.spec = FieldSpec(tile_px, 2 * (model.classes + 1))
        self.model = model
        self.transform = transform
        plain = transform.is_identity
        self.prepare = TilePreparation(
            tile_px=tile_px,
            out_px=model.field_px,
            matrix=None if plain else transform.matrix,
            offset=None if plain else transform.offset,
        )

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, t, t, 3) uint8 to (B, 2 (C + 1)) float32: logits and that of the confidence, in two parts."""
        output = self.model(self.prepare(tiles))
        said = torch.cat([output.logits, output.confidence_logits[:, None]], dim=1).float()
        coarse = said.half().float()
        return torch.cat([coarse, said - coarse], dim=1)

    def fingerprint(self) -> str:
        """SHA-256 over the weights and the slide's stain transform, in hexadecimal."""
        told = f"fields {self.spec.tile_px} {self.transform.matrix.tolist()} {self.transform.offset.tolist()}"
        return weights_digest(self.model.state_dict(), told)


def unpacked(features: NDArray[np.float16]) -> tuple[Tensor, Tensor]:
    """Logits (N, C) and confidence logits (N,), float64, of what a `FieldEncoder` gave."""
    values = torch.from_numpy(features.astype(np.float64))
    coarse, rest = values.chunk(2, dim=1)
    said = coarse + rest
    return said[:, :-1], said[:, -1]


def stain_transform(slide: Slide, card: ModelCard) -> tuple[StainTransform, MacenkoFit]:
    """Fit the stains of a slide once, and return what brings it to the reference."""
    fit = fit_slide(slide, mpp=card.mpp)
    return (IDENTITY if fit.fallback is not None else he_transform(fit)), fit


def score_fields(
    slide: Slide, bundle: ModelBundle, regions: Regions | None, device: Device, options: ScoringOptions
) -> Generator[Progress, None, SlideResult]:
    """Score one slide; see `napari_her2.inference.scoring.score_steps`."""
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
    logits, confidence_logits = unpacked(embeddings.features)
    if not bool(torch.isfinite(logits).all() & torch.isfinite(confidence_logits).all()):
        raise JobFailed(
            f"{card.name} gave values that are not numbers: check it with `napari-her2 models verify`."
        )
    probabilities, confidence = torch.softmax(logits, dim=1), torch.sigmoid(confidence_logits)
    weights = confidence / confidence.sum().clamp_min(1e-12)
    joined = (weights[:, None] * probabilities).sum(dim=0)
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
