"""Attention by landmarks where a bag is only scored, on a CPU: one head after the other, in few buffers.

It computes what `napari_her2.models.nystrom.NystromAttention` does, in another order. A gradient needs all
that was computed, and fused attention no matrix; but attention *received* needs the rows that fused
attention has already thrown away, so that both together compute them twice. Here the two thin matrices of one
head are held instead, and serve both. On a CPU most of what is left is the first touch of fresh memory: so
softmax works in place, and products are written to where they are needed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from napari_her2.models.landmarks import iterative_pinv, landmark_means

if TYPE_CHECKING:
    from torch import Tensor

MOST_VALUES = 2**25  # of the two matrices of a head, (N, m) and (m, N): 128 MiB of float32
BLOCK = 64  # tiles that are convolved by one product of matrices; less wastes, more is mostly zeros


def only_scored(tiles: Tensor, weight: Tensor, landmarks: int) -> bool:
    """Whether a bag can be attended to head by head.

    Parameters
    ----------
    tiles : (N, W) Tensor
    weight : Tensor
        Of the layer.
    landmarks : int

    Returns
    -------
    bool
        False where a gradient is wanted, precision is mixed, or two matrices of a head are too large.
    """
    return _plain(tiles, weight) and 2 * len(tiles) * landmarks <= MOST_VALUES


def too_large(tiles: Tensor, weight: Tensor, landmarks: int) -> bool:
    """Whether a bag is attended to by pieces: as `only_scored`, but its matrices are too large for a head."""
    return _plain(tiles, weight) and 2 * len(tiles) * landmarks > MOST_VALUES


def _plain(tiles: Tensor, weight: Tensor) -> bool:
    learnt = torch.is_grad_enabled() and (tiles.requires_grad or weight.requires_grad)
    plain = tiles.dtype == weight.dtype and tiles.dtype in (torch.float32, torch.float64)
    return tiles.device.type == "cpu" and plain and not (learnt or torch.is_autocast_enabled("cpu"))


def head_by_head(
    tiles: Tensor, weight: Tensor, kernel: Tensor, *, landmarks: int, iterations: int = 6
) -> tuple[Tensor, Tensor]:
    """Attend by way of landmarks, and add the convolution of the values along the bag.

    Parameters
    ----------
    tiles : (N, W) float32 or float64
    weight : (3 W, W) float
        That makes queries, keys and values of the tiles, in each of them one head after the other.
    kernel : (H, 1, K, 1) float
        Of the convolution, K odd.
    landmarks : int
    iterations : int, default 6

    Returns
    -------
    mixed : (N, W) float
    received : (N,) float
    """
    n, heads = len(tiles), len(kernel)
    of_heads = weight.reshape(3, heads, -1, weight.shape[1]).transpose(0, 1)  # (H, 3, d, W)
    size = of_heads.shape[2]
    # Means of tiles give the means of their queries and keys: the layer has no bias.
    marks = landmark_means(tiles[None], landmarks) @ of_heads[:, :2].flatten(1, 2).mT
    query_marks, key_marks = marks.chunk(2, dim=-1)
    query_marks = query_marks / math.sqrt(size)
    inverse = iterative_pinv((query_marks @ key_marks.mT).softmax(dim=-1), iterations)
    key_marks = key_marks / math.sqrt(size)  # in place of the queries of all tiles
    mixed, received = torch.empty_like(tiles), tiles.new_zeros(n)
    made, near = tiles.new_empty(n, 3 * size), tiles.new_empty(n, marks.shape[1])
    far = tiles.new_empty(marks.shape[1], n)
    for head, part in enumerate(mixed.chunk(heads, dim=-1)):
        torch.mm(tiles, of_heads[head].flatten(0, 1).T, out=made)
        query, key, value = made.chunk(3, dim=-1)
        torch.mm(query, key_marks[head].T, out=near)
        torch.softmax(near, -1, out=near)
        torch.mm(query_marks[head], key.T, out=far)
        torch.softmax(far, -1, out=far)
        received += near.mean(dim=0) @ inverse[head] @ far
        torch.mm(near, inverse[head] @ (far @ value), out=part)
        part += along_bag(value, kernel[head, 0, :, 0])
    return mixed, received / heads


def along_bag(value: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each column of a bag with the same kernel, zeros beyond both ends.

    Parameters
    ----------
    value : (N, d) float
    kernel : (K,) float
        K odd; as everywhere in networks, it is not turned around.

    Returns
    -------
    (N, d) float
        As ``conv2d`` gives it. Blocks of tiles are multiplied by a band of the kernel: more is computed, most
        of it with zeros, in a third of the time.
    """
    half = len(kernel) // 2
    blocks = -(-len(value) // BLOCK)
    padded = F.pad(value, (0, 0, half, blocks * BLOCK - len(value) + half))
    band = kernel.new_zeros(BLOCK, BLOCK + 2 * half)
    for at in range(BLOCK):
        band[at, at : at + len(kernel)] = kernel
    windows = padded.unfold(0, BLOCK + 2 * half, BLOCK).mT
    return torch.bmm(band.expand(blocks, -1, -1), windows).flatten(0, 1)[: len(value)]
