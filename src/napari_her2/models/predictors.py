"""Predictors of the HER2 score of a field, which also say how far to trust them.

Dutta et al. 2025 (Corr-A-Net) classify one field, as correlated representation (d channels), H&E or IHC
(3) or both (6), with ResNeXt-50 (Xie et al. 2017, arXiv:1611.05431), EfficientNet-B7 (Tan and Le 2019,
arXiv:1905.11946) or a Vision Transformer (Dosovitskiy et al. 2021, arXiv:2010.11929), all from timm. From
the pooled features two heads part: one classifies, the other says with what confidence (DeVries and Taylor
2018, arXiv:1802.04865)::

    f = pooled features of the backbone               (B, F)
    logits = Linear(f)                                (B, C)
    c = sigmoid(Linear(ReLU(Linear(f))))              (B,)

The confidence is learnt from hints, not from a label of its own; the loss is in the training package. It is
no probability of being right until measured to be one.

Grad-CAM looks at the layer `Predictor.cam_layer`: the last feature map ahead of pooling of a convolutional
network, the norm ahead of the last attention of a transformer. `Predictor.cam_maps` brings what comes out of
it into one shape.

Differences from the paper
--------------------------
- Width of the confidence network, number of heads and rate of dropout are not stated: a quarter of the
  features and at most 256; 16 heads; 0.1 behind the position embedding, attention and perceptron.
- Smaller members of each family beside the three, for demonstration and where memory is short.

Differences from the published code
-----------------------------------
- There, EfficientNet is B0 in some arms, and the transformer another one (``vit-reg4-512x20`` here); the
  confidence network is one layer, missing from most scripts, and fed by the class scores in others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_her2.errors import ModelError
from napari_her2.models.nystrom import at_least_float32

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELD_PX = 256
PATCH_PX = 16
WIDEST_CONFIDENCE = 256
_LIMITS = {"channels": (1, 1024), "classes": (2, 1024), "size_px": (32, 2048)}


@dataclass(frozen=True, slots=True)
class PredictorFamily:
    """How a named predictor is made of a model of timm.

    Parameters
    ----------
    timm_name : str
    cam_layer : str
        Layer of the timm model that Grad-CAM looks at.
    transformer : bool, default False
        Whether it takes fields of one size only, and gives tokens instead of maps.
    arguments : mapping, optional
        Handed to timm.
    """

    timm_name: str
    cam_layer: str
    transformer: bool = False
    arguments: Mapping[str, object] = field(default_factory=dict)


# With the activation and ahead of pooling: the normalisation of timm's EfficientNet holds the activation.
_RESNEXT, _EFFICIENTNET = "layer4", "bn2"

PREDICTORS: Mapping[str, PredictorFamily] = {
    "resnext50-32x4d": PredictorFamily("resnext50_32x4d", _RESNEXT),
    "efficientnet-b7": PredictorFamily("efficientnet_b7", _EFFICIENTNET),
    "vit-1024x12": PredictorFamily(
        "vit_base_patch16_224",
        "blocks.11.norm1",
        transformer=True,
        arguments={"embed_dim": 1024, "num_heads": 16, "pos_drop_rate": 0.1, "proj_drop_rate": 0.1},
    ),
    "vit-reg4-512x20": PredictorFamily(
        "vit_mediumd_patch16_reg4_gap_256", "blocks.19.norm1", transformer=True
    ),
    "resnext14-32x4d": PredictorFamily("resnext50_32x4d", _RESNEXT, arguments={"layers": (1, 1, 1, 1)}),
    "efficientnet-b0": PredictorFamily("efficientnet_b0", _EFFICIENTNET),
    # EfficientNet scaled down (Han et al. 2020, arXiv:2010.14819): 0.8 million parameters.
    "tinynet-e": PredictorFamily("tinynet_e", _EFFICIENTNET),
    "vit-tiny": PredictorFamily("vit_tiny_patch16_224", "blocks.11.norm1", transformer=True),
}
"""The three of the paper, the transformer of its code, then small members of the families."""


@dataclass(frozen=True, slots=True, eq=False)
class PredictorOutput:
    """What a predictor says of a batch of fields.

    Parameters
    ----------
    logits : (B, C) float
    confidence_logits : (B,) float or None
        Of the confidence network, ahead of its sigmoid; None of a predictor that has none.
    """

    logits: Tensor
    confidence_logits: Tensor | None

    @property
    def probabilities(self) -> Tensor:
        """(B, C) softmax of the logits, at least float32."""
        return torch.softmax(at_least_float32(self.logits), dim=-1)

    @property
    def confidence(self) -> Tensor | None:
        """(B,) learnt confidence, 0 to 1, at least float32; None of a predictor that has none."""
        if self.confidence_logits is None:
            return None
        return torch.sigmoid(at_least_float32(self.confidence_logits))

    def needed_confidence(self) -> Tensor:
        """(B,) logits of the confidence, for whoever cannot do without.

        Raises
        ------
        ModelError
            If the predictor has no confidence network.
        """
        if self.confidence_logits is None:
            raise ModelError(
                "This predictor has no confidence network: use one that was trained with confidence."
            )
        return self.confidence_logits


class ConfidenceNetwork(nn.Sequential):
    """Two linear layers from pooled features to the logit of a confidence.

    Parameters
    ----------
    features : int
        F.
    """

    def __init__(self, features: int) -> None:
        hidden = min(max(features // 4, 1), WIDEST_CONFIDENCE)
        super().__init__(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Flatten(0))


class Predictor(nn.Module):
    """Class and confidence of fields; random weights.

    Parameters
    ----------
    architecture : str
        One of `PREDICTORS`.
    channels : int, default 3
        Of the fields: d of a correlated representation, 3 for one stain, 6 for both.
    classes : int, default 4
        C.
    size_px : int, default 256
        Side of the fields. Transformers take no other; the rest take any of 32 px or more.
    confidence : bool, default True
        Whether it has a confidence network; most of the published scripts train none.

    Raises
    ------
    ModelError
        If there is no such architecture, or a number is out of its bounds.

    Examples
    --------
    >>> model = Predictor(architecture="tinynet-e", channels=16).eval()
    >>> output = model(torch.zeros(2, 16, 64, 64))
    >>> output.probabilities.shape, output.confidence.shape
    (torch.Size([2, 4]), torch.Size([2]))
    >>> model.cam_layer, model.features
    ('backbone.bn2', 1280)
    """

    def __init__(
        self,
        *,
        architecture: str,
        channels: int = 3,
        classes: int = 4,
        size_px: int = FIELD_PX,
        confidence: bool = True,
    ) -> None:
        super().__init__()
        if architecture not in PREDICTORS:
            raise ModelError(
                f"There is no predictor called {architecture!r:.80}: use {', '.join(PREDICTORS)}."
            )
        for name, value in (("channels", channels), ("classes", classes), ("size_px", size_px)):
            low, high = _LIMITS[name]
            if not low <= value <= high:
                raise ModelError(f"A predictor takes {name} from {low} to {high}, not {value!r:.40}.")
        family = PREDICTORS[architecture]
        if family.transformer and size_px % PATCH_PX:
            raise ModelError(
                f"{architecture} cuts a field into patches of {PATCH_PX} px, but {size_px} px is no multiple."
            )
        self.architecture = architecture
        self.channels = channels
        self.classes = classes
        self.size_px = size_px
        self.backbone = build_backbone(architecture, channels=channels, size_px=size_px)
        self.features = int(self.backbone.num_features)  # type: ignore[arg-type]
        self.classify = nn.Linear(self.features, classes)
        self.confide = ConfidenceNetwork(self.features) if confidence else None

    @property
    def cam_layer(self) -> str:
        """Name of the layer that Grad-CAM looks at, for ``get_submodule``."""
        return f"backbone.{PREDICTORS[self.architecture].cam_layer}"

    def forward(self, fields: Tensor) -> PredictorOutput:
        """Predict.

        Parameters
        ----------
        fields : (B, channels, H, W) float
            As in training: images on [0, 1], representations as their own scaling left them.

        Returns
        -------
        PredictorOutput

        Raises
        ------
        ModelError
            If the fields have other channels or another size than the model takes.
        """
        return self.from_pooled(self.pooled(fields))

    def pooled(self, fields: Tensor) -> Tensor:
        """Pooled features of the backbone, (B, features); ``fields`` as for `forward`."""
        self._check(fields)
        features: Tensor = self.backbone(fields)
        return features

    def from_pooled(self, features: Tensor) -> PredictorOutput:
        """Predict from (B, features) of `pooled`."""
        confidence = None if self.confide is None else self.confide(features)
        return PredictorOutput(logits=self.classify(features), confidence_logits=confidence)

    def cam_maps(self, activations: Tensor) -> Tensor:
        """Bring what leaves `cam_layer`, or its gradient, into maps.

        Parameters
        ----------
        activations : (B, K, h, w) or (B, tokens, K) float
            The second of a transformer, whose class and register tokens are left out.

        Returns
        -------
        (B, K, h, w) float

        Raises
        ------
        ModelError
            If it did not come from that layer.
        """
        if not PREDICTORS[self.architecture].transformer:
            if activations.ndim != 4:
                raise self._foreign(activations)
            return activations
        side = self.size_px // PATCH_PX
        prefix = int(self.backbone.num_prefix_tokens)  # type: ignore[arg-type]
        if activations.ndim != 3 or activations.shape[1] != prefix + side * side:
            raise self._foreign(activations)
        return activations[:, prefix:].mT.reshape(len(activations), -1, side, side)

    def _check(self, fields: Tensor) -> None:
        if fields.ndim != 4 or not fields.is_floating_point():
            raise ModelError(
                f"The predictor takes batches of fields, (B, {self.channels}, height, width) in floating "
                f"point, not {fields.dtype} of shape {tuple(fields.shape)}."
            )
        given, (height, width) = fields.shape[1], fields.shape[2:]
        if given != self.channels:
            raise ModelError(
                f"This predictor was made for fields of {self.channels} channels, not of {given}: give it "
                f"the representation or the stains that it was trained on."
            )
        if PREDICTORS[self.architecture].transformer:
            if (height, width) != (self.size_px, self.size_px):
                raise ModelError(
                    f"{self.architecture} takes fields of {self.size_px} x {self.size_px} px, not of "
                    f"{height} x {width}: resize them first."
                )
        elif min(height, width) < _LIMITS["size_px"][0]:
            raise ModelError(
                f"{self.architecture} takes fields of at least {_LIMITS['size_px'][0]} px, not of "
                f"{height} x {width}: give it larger ones."
            )

    def _foreign(self, activations: Tensor) -> ModelError:
        return ModelError(
            f"Activations of shape {tuple(activations.shape)} did not come from {self.cam_layer} of "
            f"{self.architecture}: hook that layer."
        )


def build_backbone(architecture: str, *, channels: int, size_px: int) -> nn.Module:
    """Build the network of a predictor without its heads, with random weights.

    Parameters
    ----------
    architecture : str
        One of `PREDICTORS`.
    channels, size_px : int
        Of the fields; only transformers hold on to the size.

    Returns
    -------
    nn.Module
        Of timm: takes (B, channels, H, W) float, gives (B, features).
    """
    import timm  # seconds to import: only for those who need it

    family = PREDICTORS[architecture]
    arguments = dict(family.arguments)
    if family.transformer:
        arguments["img_size"] = size_px
    backbone: nn.Module = timm.create_model(
        family.timm_name, pretrained=False, num_classes=0, in_chans=channels, **arguments
    )
    return backbone
