"""Squeeze-excitation: channels weighed by what the whole image holds.

Hu et al., Squeeze-and-excitation networks, 2018 (arXiv:1709.01507). The means of the channels pass two
linear layers, and a sigmoid makes weights in (0, 1) of them::

    y = x * sigmoid(W2 ReLU(W1 mean(x) + b1) + b2)

Differences from the paper
--------------------------
- The width of the bottleneck is given as such: a ratio of 16, usual there, leaves none of 8 channels.
- The ReLU can be left out, as in the published code of Corr-A-Net.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Weighs the channels of an image by a small perceptron of their means.

    Parameters
    ----------
    channels, bottleneck : int
        A bottleneck of 0 leaves a learnt constant a channel (published code at d = 8).
    rectify : bool, default True
        Whether a ReLU stands between the two layers.
    """

    def __init__(self, *, channels: int, bottleneck: int, rectify: bool = True) -> None:
        super().__init__()
        with warnings.catch_warnings():
            # torch warns of layers without weights, which a bottleneck of 0 has on purpose.
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.squeeze = nn.Linear(channels, bottleneck)
            self.excite = nn.Linear(bottleneck, channels)
        self.activate = nn.ReLU() if rectify else nn.Identity()

    def gate(self, features: Tensor) -> Tensor:
        """(B, d, H, W) float to the weights of its channels, (B, d) float in (0, 1)."""
        means = features.mean(dim=(2, 3))
        return torch.sigmoid(self.excite(self.activate(self.squeeze(means))))

    def forward(self, features: Tensor) -> Tensor:
        """Weigh the channels of (B, d, H, W) float."""
        return features * self.gate(features)[:, :, None, None]
