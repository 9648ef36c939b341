"""Squeeze-excitation: channels weighed by what the whole image holds.

Hu et al., Squeeze-and-excitation networks, 2018 (arXiv:1709.01507). The means of the channels pass two
linear layers, and a sigmoid makes weights in (0, 1) of them::

    y = x * sigmoid(W2 ReLU(W1 mean(x) + b1) + b2)

Differences from the paper
--------------------------
- The width of the bottleneck is given as such: a ratio of 16, usual there, leaves none of 8 channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Weighs the channels of an image by a small perceptron of their means.

    Parameters
    ----------
    channels, bottleneck : int
    """

    def __init__(self, *, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, bottleneck)
        self.excite = nn.Linear(bottleneck, channels)

    def gate(self, features: Tensor) -> Tensor:
        """(B, d, H, W) float to the weights of its channels, (B, d) float in (0, 1)."""
        means = features.mean(dim=(2, 3))
        return torch.sigmoid(self.excite(torch.relu(self.squeeze(means))))

    def forward(self, features: Tensor) -> Tensor:
        """Weigh the channels of (B, d, H, W) float."""
        return features * self.gate(features)[:, :, None, None]
