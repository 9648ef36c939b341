"""Landmarks of attention over a bag, and the inverse between them; see `napari_her2.models.nystrom`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def landmark_means(tokens: Tensor, landmarks: int, *, masked: bool = True) -> Tensor:
    """Means over consecutive segments of equal length, with the padding in front.

    Parameters
    ----------
    tokens : (H, N, d) float
    landmarks : int
    masked : bool, default True
        Mean over the tokens that are there, segments without any left out; False: padding counts as zeros.

    Returns
    -------
    (H, m, d) float
        m is ``landmarks``, or fewer when masked.
    """
    n = tokens.shape[-2]
    length = -(-n // landmarks)
    segments = -(-n // length) if masked else landmarks
    first = n - (segments - 1) * length  # without its padding; not one tile, where that fills segments
    if not masked:
        tokens, first = F.pad(tokens, (0, 0, length - first, 0)), length
    head = tokens[:, :first].mean(dim=-2, keepdim=True)
    rest = tokens[:, first:].reshape(len(tokens), segments - 1, length, tokens.shape[-1]).mean(dim=-2)
    return torch.cat([head, rest], dim=-2)


def iterative_pinv(matrix: Tensor, iterations: int = 6) -> Tensor:
    """Pseudo-inverse by a third-order iteration of matrix products (Razavi and others, 2014).

    Parameters
    ----------
    matrix : (H, m, m) float
        Rows that sum to one.
    iterations : int, default 6

    Returns
    -------
    (H, m, m) float

    Notes
    -----
    The start is scaled by the largest sums over all heads together, as published.
    """
    sizes = matrix.abs()
    inverse = matrix.mT / (sizes.sum(dim=-2).max() * sizes.sum(dim=-1).max())
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for _ in range(iterations):
        product = matrix @ inverse
        inverse = 0.25 * inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product)))
    return inverse
