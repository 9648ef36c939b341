"""A field of H&E to a class and a confidence: Corr-A-Net and a predictor in a row, as they are deployed.

Dutta et al. 2025 train the two one after the other; a slide is scored by both at once. Without the
correlated representation (``channels_from="H&E"``) the predictor looks at the pixels themselves, which is
the arm that the representation has to be better than.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from napari_her2.errors import ModelError
from napari_her2.models.corr_a_net import CorrANet
from napari_her2.models.predictors import FIELD_PX, Predictor
from napari_her2.models.tile_models import FieldHead

if TYPE_CHECKING:
    from napari_her2.models.predictors import PredictorOutput

ChannelsFrom = Literal["correlated", "H&E"]
CHANNELS_FROM: tuple[ChannelsFrom, ...] = ("correlated", "H&E")


def join_fields(probabilities: Tensor, confidence: Tensor | None) -> tuple[Tensor, Tensor]:
    """Join the predictions of the fields of a slide: the mean, weighted by the confidence in each.

    The rule is ours; the paper scores single fields.

    Parameters
    ----------
    probabilities : (N, C) float
    confidence : (N,) float or None
        None of a predictor that has none: then every field counts alike.

    Returns
    -------
    weights : (N,) float
        Of the fields in the mean.
    joined : (C,) float
        Probabilities of the slide, not calibrated.
    """
    if confidence is None:
        confidence = torch.ones_like(probabilities[:, 0])
    weights = field_weights(confidence, confidence)
    return weights, (weights[:, None] * probabilities).sum(dim=0)


def field_weights(confidence: Tensor, joined: Tensor) -> Tensor:
    """Weigh fields by the confidence in each, (N,), among those that are ``joined``, of confidence (K,)."""
    return confidence / joined.sum().clamp_min(1e-12)


class FieldModel(FieldHead):
    """Class and confidence of fields of H&E.

    Parameters
    ----------
    predictor : str
        One of `napari_her2.models.predictors.PREDICTORS`.
    classes : int, default 4
    dim : int, default 16
        Channels of the correlated representation.
    attention : bool, default True
        Whether Corr-A-Net weighs its channels.
    channels_from : {"correlated", "H&E"}, default "correlated"
        What the predictor looks at.
    field_px : int, default 256
        Side of the fields.
    dilation : int, default 1
    scaling : {"field", "training"}, default "field"
        Variants of Corr-A-Net; by default that of the paper.
    confidence : bool, default True
        Whether the predictor has a confidence network, as that of the paper has.

    Attributes
    ----------
    network : CorrANet or None
        None where the predictor looks at H&E itself.
    predictor : Predictor
    """

    def __init__(
        self,
        *,
        predictor: str,
        classes: int = 4,
        dim: int = 16,
        attention: bool = True,
        channels_from: str = "correlated",
        field_px: int = FIELD_PX,
        dilation: int = 1,
        scaling: str = "field",
        confidence: bool = True,
    ) -> None:
        super().__init__()
        if channels_from not in CHANNELS_FROM:
            known = " or ".join(CHANNELS_FROM)
            raise ModelError(f"A predictor of fields looks at {known}, not at {channels_from!r:.40}.")
        self.network = None
        if channels_from == "correlated":
            self.network = CorrANet(dim=dim, attention=attention, dilation=dilation, scaling=scaling)
        self.predictor = Predictor(
            architecture=predictor,
            channels=3 if self.network is None else dim,
            classes=classes,
            size_px=field_px,
            confidence=confidence,
        )
        self.field_px = field_px
        self.classes = classes

    def represent(self, fields: Tensor) -> Tensor:
        """Make what the predictor looks at.

        Parameters
        ----------
        fields : (B, 3, H, W) float
            RGB of H&E in [0, 1].

        Returns
        -------
        (B, d, H, W) float
            The correlated representation on [0, 1], as `CorrANet.to_predictor` scales it; the pixels
            themselves where there is none.
        """
        return fields if self.network is None else self.network.to_predictor(self.network.represent(fields))

    def forward(self, fields: Tensor) -> PredictorOutput:
        """Predict; ``fields`` as for `represent`."""
        output: PredictorOutput = self.predictor(self.represent(fields))
        return output

    @property
    def width(self) -> int:
        """Numbers that describe a tile."""
        return self.predictor.features

    def tile_features(self, tiles: Tensor) -> Tensor:
        """Pooled features of the predictor, (B, F); ``tiles`` as for `represent`."""
        return self.predictor.pooled(self.represent(tiles))

    def logits_of(self, features: Tensor) -> Tensor:
        """Predict: (B, C + 1) logits of the classes, and that of the confidence; (B, C) without it."""
        output = self.predictor.from_pooled(features)
        if output.confidence_logits is None:
            return output.logits
        return torch.cat([output.logits, output.confidence_logits[:, None]], dim=1)
