"""Small networks of Corr-A-Net with random weights, images for them, and their weights counted by hand."""

from __future__ import annotations

import torch

from napari_her2.models.corr_a_net import CorrANet


def images(batch=2, height=32, width=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, height, width, generator=generator)


def built(kind=CorrANet, **arguments):
    torch.manual_seed(3)
    return kind(**({"dim": 8} | arguments)).eval()


def learnt(model):
    return sum(weights.numel() for weights in model.parameters() if weights.requires_grad)


def convolution(before, behind, norm=2):
    """Numbers in a 3 x 3 convolution with a bias, and in the normalisation behind it."""
    return 9 * before * behind + behind + norm * behind


def by_hand(dim):
    encoder = convolution(64, dim // 4) + convolution(dim // 4, dim // 2) + convolution(dim // 2, dim)
    decoder = convolution(dim, dim // 2) + convolution(dim // 2, dim // 4) + convolution(dim // 4, 64, norm=0)
    return 2 * encoder + 2 * decoder + convolution(dim, dim, norm=0)
