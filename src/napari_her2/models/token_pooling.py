"""One vector of a tile, from what a network gives: a vector already, or a token for each patch.

Transformers give (B, T, D) tokens: the class token first, then registers, then one for each patch. Which of
them make up the features is part of what an encoder is: features pooled otherwise mean something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from napari_her2.errors import ModelError

if TYPE_CHECKING:
    from torch import nn


def pooled(output: Tensor, pooling: str, prefix_tokens: int) -> Tensor:
    """Make one vector of each tile.

    Parameters
    ----------
    output : (B, D) or (B, T, D) float
        What the network gives.
    pooling : str
        Of `napari_her2.models.card.POOLINGS`.
    prefix_tokens : int
        Tokens before those of the patches.

    Returns
    -------
    (B, D) or, for "class+mean", (B, 2 D) float

    Raises
    ------
    ModelError
        If the output cannot be pooled so.
    """
    if output.ndim == 2 and pooling in ("pooled", "class"):  # the network took its class token itself
        return output
    if output.ndim != 3 or pooling == "pooled" or output.shape[1] <= prefix_tokens:
        raise ModelError(
            f"The encoder gives no feature vector a tile, but shape {tuple(output.shape)}, which {pooling!r} "
            f"pooling makes none of: choose another (class, class+mean or token mean for tokens)."
        )
    if pooling == "token mean":
        return output[:, prefix_tokens:].mean(dim=1)
    if prefix_tokens < 1:
        raise ModelError("The encoder has no class token: choose the pooling 'token mean'.")
    if pooling == "class":
        return output[:, 0]
    return torch.cat([output[:, 0], output[:, prefix_tokens:].mean(dim=1)], dim=1)


def prefix_tokens(backbone: nn.Module) -> int:
    """Tokens that a network gives before those of the patches, as it says itself; 0 where it has none."""
    return int(getattr(backbone, "num_prefix_tokens", 0))


def to_input(pixels: Tensor, input_px: int | None, resized_px: int | None) -> Tensor:
    """Bring tiles to what the network sees: resized, and the middle of that.

    Bicubic and antialiased, as the publishers' transforms do it; theirs work on pictures, which are rounded
    and clipped to whole grey levels between rows and columns: half a level on average where it is all noise,
    less on tissue. Differentiable, on any device.

    Parameters
    ----------
    pixels : (B, 3, t, t) float
        RGB on [0, 255].
    input_px : int or None
        Side of what the network sees; None: the tile as it is.
    resized_px : int or None
        Side before the middle is taken; None: ``input_px``.

    Returns
    -------
    (B, 3, input_px, input_px) float
        RGB on [0, 255].
    """
    if input_px is None:
        return pixels
    side = resized_px or input_px
    if pixels.shape[-1] != side:
        pixels = functional.interpolate(
            pixels, size=(side, side), mode="bicubic", align_corners=False, antialias=True
        ).clamp(0, 255)
    start = (side - input_px) // 2
    return pixels[..., start : start + input_px, start : start + input_px]
