"""A patch encoder at work: tiles of pixels in, feature vectors out.

Tiles stay uint8 until they are on the device and are normalised there, in float32. The normalisation is
not folded into the first convolution: that pads with zeros after normalisation, which in raw pixels means
padding with the mean, and an encoder of any make cannot be told so. One subtraction and one multiplication
on the device are exact, and cost little beside the first layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_her2.errors import ModelError
from napari_her2.models.token_pooling import pooled, prefix_tokens, to_input
from napari_her2.models.weights_file import weights_digest

if TYPE_CHECKING:
    from napari_her2.models.card import EncoderSpec


class PatchEncoder(nn.Module):
    """An encoder with its preparation of tiles; frozen until told otherwise.

    Parameters
    ----------
    spec : EncoderSpec
    backbone : nn.Module
        Takes normalised (B, 3, t, t) float, gives (B, D), or tokens (B, T, D) that the spec says how to pool.

    Attributes
    ----------
    exact : bool
        False: it gives features, which may be computed in lower precision.
    """

    exact = False

    def __init__(self, spec: EncoderSpec, backbone: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        self.frozen = True
        # Not part of the weights: the spec carries them, and two sources could disagree.
        self.shift: Tensor
        self.gain: Tensor
        self.register_buffer("shift", torch.tensor(spec.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("gain", 1 / (torch.tensor(spec.std).view(1, 3, 1, 1) * 255), persistent=False)
        self.freeze()

    def forward(self, images: Tensor) -> Tensor:
        """Encode tiles.

        Parameters
        ----------
        images : (B, t, t, 3) or (B, 3, t, t) uint8
            The first needs no copy: seen as (B, 3, t, t) it has channels_last layout already.

        Returns
        -------
        (B, D) float32

        Raises
        ------
        ModelError
            If the tiles have another size or type than the encoder takes.
        """
        size = self.spec.tile_px
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ModelError(
                f"The encoder takes batches of uint8 tiles, not {images.dtype} of {images.ndim} axes."
            )
        if images.shape[-1] == 3:
            images = images.permute(0, 3, 1, 2)
        if tuple(images.shape[1:]) != (3, size, size):
            raise ModelError(
                f"The encoder {self.spec.name} takes RGB tiles of {size} x {size} pixels, not of shape "
                f"{tuple(images.shape)}: read the tiles at {size} px."
            )
        return self.encoded_by(self.backbone, images)

    def encoded_by(self, backbone: nn.Module, images: Tensor) -> Tensor:
        """Encode tiles, as `forward` does, by another form of the same network.

        Parameters
        ----------
        backbone : nn.Module
        images : (B, t, t, 3) or (B, 3, t, t) uint8

        Returns
        -------
        (B, D) float32
        """
        if images.shape[-1] == 3:
            images = images.permute(0, 3, 1, 2)
        output: Tensor = backbone(self.normalise(images))
        return pooled(output, self.spec.pooling, prefix_tokens(self.backbone)).float()

    def normalise(self, images: Tensor) -> Tensor:
        """Prepare pixels: (B, 3, t, t) uint8 to float32, as large as the network wants, channels_last."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        pixels = to_input(pixels, self.spec.input_px, self.spec.resized_px)
        return pixels.sub_(self.shift).mul_(self.gain)

    def train(self, mode: bool = True) -> PatchEncoder:
        """Enter training mode, unless frozen: a frozen encoder stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def freeze(self) -> PatchEncoder:
        """Fix the weights, and stay in evaluation mode, until `unfreeze`."""
        self.frozen = True
        self.requires_grad_(False)
        return self.train(False)

    def unfreeze(self) -> PatchEncoder:
        """Let the weights learn (pre-training)."""
        self.frozen = False
        self.requires_grad_(True)
        return self.train(True)

    def fingerprint(self) -> str:
        """SHA-256 over the spec and the weights, in hexadecimal: two encoders that share it agree."""
        spec = self.spec
        salt = f"{spec.name} {spec.tile_px} {spec.mean} {spec.std} {sorted(spec.arguments.items())}"
        if (spec.pooling, spec.input_px) != ("pooled", None):
            salt += f" {spec.pooling} {spec.input_px} {spec.resized_px}"
        return weights_digest(self.backbone.state_dict(), salt)
