"""ConvNeXt (Liu et al., A ConvNet for the 2020s, 2022, arXiv:2201.03545), from pixels in [0, 1] to classes.

The network, its strides and its head (average over the map, LayerNorm, one linear layer) are timm's
(Wightman, PyTorch Image Models, doi:10.5281/zenodo.4414861). Weights are random: whoever trains loads those
that they want, and a bundle brings its own, so nothing here ever opens the network.

Differences from the paper
--------------------------
- "atto" is none of the paper's sizes but timm's smallest (3.4 million weights): for demonstrations and tests.
- The normalisation of ImageNet is part of the model, so that all of ours take the same pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_her2.errors import ModelError
from napari_her2.models.normalisations import IMAGENET

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIANTS: Mapping[str, str] = {
    "tiny": "convnext_tiny",
    "small": "convnext_small",
    "base": "convnext_base",
    "atto": "convnext_atto",
}
"""Sizes by name, and what timm calls them."""
STRIDE = 32
"""Pixels of the image a pixel of the last map, in each direction."""
NORMALISATION = IMAGENET


class Normalise(nn.Module):
    """Pixels in [0, 1] as ConvNeXt was trained on them: the mean and deviation of ImageNet."""

    def __init__(self) -> None:
        super().__init__()
        # Constants, not weights: no bundle carries them, so none can contradict them.
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(NORMALISATION.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(NORMALISATION.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] to the same, normalised."""
        return (images - self.mean) / self.std


def build_convnext(variant: str, classes: int, *, drop_path: float = 0.0) -> nn.Module:
    """Build a ConvNeXt with random weights.

    Parameters
    ----------
    variant : str
        One of `VARIANTS`.
    classes : int
        Outputs of the head.
    drop_path : float, default 0
        Share of the residual branches left out at random while training (stochastic depth, at the last
        block; it grows linearly with depth).

    Returns
    -------
    nn.Module
        Of timm: takes `Normalise`-d (B, 3, H, W) float with H and W of at least 32, gives (B, classes)
        logits; its ``forward_features`` gives (B, D, H/32, W/32), its ``forward_head`` the rest.

    Raises
    ------
    ModelError
        If the variant is unknown, or a number makes no sense.
    """
    if variant not in VARIANTS:
        raise ModelError(f"There is no ConvNeXt called {variant!r:.40}: use {', '.join(VARIANTS)}.")
    if classes < 2 or not 0 <= drop_path < 1:
        raise ModelError(
            f"A ConvNeXt tells two classes or more apart and drops a share of its branches from 0 to below "
            f"1, not {classes} classes and {drop_path}."
        )
    import timm  # seconds to import: only for those who need it

    network: nn.Module = timm.create_model(
        VARIANTS[variant], pretrained=False, num_classes=classes, drop_path_rate=drop_path
    )
    return network
