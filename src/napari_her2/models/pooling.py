"""Parts that several aggregators share: the check of a bag, attention branches, and the pooling of votes.

Where the classifier is linear it can be applied to each tile before the weighted sum instead of after it::

    logit_c = b_c + W_c sum_k a_k h_k = b_c + sum_k a_k (W_c h_k)

The number is the same, and the tiles' share of each class falls out of it. What is kept of a tile is then
C votes and its attention scores instead of its vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_her2.errors import ModelError
from napari_her2.models.aggregator import masked_softmax

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK_TILES = 8192


class AttentionBranches(nn.Module):
    """One or more attention scores for each tile, from a gated or a plain hidden layer.

    Ilse, Tomczak and Welling, Attention-based deep multiple instance learning, ICML 2018
    (arXiv:1802.04712), equations 8 (plain) and 9 (gated)::

        e = w · tanh(V h + b_V) + b_w
        e = w · (tanh(V h + b_V) * sigmoid(U h + b_U)) + b_w

    Parameters
    ----------
    width : int
        Length of a tile's vector.
    hidden : int
    branches : int, default 1
        Scores a tile gets; all share the hidden layer.
    gated : bool, default True
    dropout : float, default 0
        Behind tanh and sigmoid.
    """

    def __init__(
        self, *, width: int, hidden: int, branches: int = 1, gated: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.project = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden) if gated else None
        self.score = nn.Linear(hidden, branches)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tiles: Tensor) -> Tensor:
        """Score tiles.

        Parameters
        ----------
        tiles : (..., K, width) float

        Returns
        -------
        (..., K, branches) float
        """
        hidden = self.dropout(torch.tanh(self.project(tiles)))
        if self.gate is not None:
            hidden = hidden * self.dropout(torch.sigmoid(self.gate(tiles)))
        scores: Tensor = self.score(hidden)
        return scores


def check_bags(bags: Tensor, mask: Tensor | None, features: int) -> None:
    """Refuse what a model cannot take.

    Parameters
    ----------
    bags : Tensor
        To be (K, D) or (B, K, D).
    mask : Tensor or None
        To be (K,) or (B, K).
    features : int
        D.

    Raises
    ------
    ModelError
        If the features have another length than the model was made for, or the mask does not fit.
    """
    if bags.ndim not in (2, 3) or bags.shape[-1] != features:
        raise ModelError(
            f"This model takes tile features of length {features}, not of shape "
            f"{tuple(bags.shape)}: embed the slide with the model's own encoder."
        )
    if mask is not None and (mask.shape != bags.shape[:-1] or mask.dtype != torch.bool):
        raise ModelError(
            f"The mask of shape {tuple(mask.shape)} does not fit bags of shape {tuple(bags.shape)}: "
            f"give one True or False for each tile."
        )


def in_pieces(look: Callable[[Tensor], tuple[Tensor, ...]], bags: Tensor) -> tuple[Tensor, ...]:
    """Look at tiles, each by itself, and at a large bag by pieces where no gradient is wanted.

    Parameters
    ----------
    look : callable
        Takes tiles (..., k, D) and returns tensors (..., k, any).
    bags : (..., K, D) float

    Returns
    -------
    tuple of (..., K, any) Tensor
    """
    if torch.is_grad_enabled() or bags.shape[-2] <= CHUNK_TILES:
        return look(bags)
    # Without gradients nothing needs to be kept: a large bag, often float16, is converted by pieces.
    count = bags.shape[-2]
    found: tuple[Tensor, ...] = ()
    for start in range(0, count, CHUNK_TILES):
        parts = look(bags[..., start : start + CHUNK_TILES, :])
        # Written to where they stay: pieces that are joined at the end are there twice.
        found = found or tuple(part.new_empty(*part.shape[:-2], count, part.shape[-1]) for part in parts)
        for into, part in zip(found, parts, strict=True):
            into[..., start : start + part.shape[-2], :] = part
    return found


def mask_scores(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Put -inf where there is no tile.

    Parameters
    ----------
    scores : (..., K, H) float
    mask : (..., K) bool or None

    Returns
    -------
    (..., K, H) float
    """
    return scores if mask is None else scores.masked_fill(~mask.unsqueeze(-1), -torch.inf)


def attention_over_tiles(scores: Tensor) -> Tensor:
    """Softmax over the tiles, for each branch by itself.

    Parameters
    ----------
    scores : (..., K, H) float
        -inf where there is no tile.

    Returns
    -------
    (..., K, H) float
        Zero where there is no tile.
    """
    return masked_softmax(scores.mT).mT


def weights_beside(scores: Tensor, bag: Tensor) -> Tensor:
    """Attention weights of tiles beside a bag: divided by the sum over the bag, for each branch by itself.

    Parameters
    ----------
    scores : (N, H) float
        Of the tiles, before the softmax.
    bag : (K, H) float
        Of the bag, K at least 1.

    Returns
    -------
    (N, H) float
    """
    return (scores - bag.logsumexp(dim=-2, keepdim=True)).exp()


def count_tiles(scores: Tensor) -> Tensor:
    """(..., 1, 1) number of tiles in each bag, of scores (..., K, H) that are -inf where there is none."""
    return (scores[..., :1] > -torch.inf).sum(dim=-2, keepdim=True)


def of_class(values: Tensor, number: Tensor) -> Tensor:
    """Take one column of each bag.

    Parameters
    ----------
    values : (..., K, H) float
        With a single column (H = 1) it is taken whatever the number.
    number : (...) int64
        Which column.

    Returns
    -------
    (..., K) float
    """
    if values.shape[-1] == 1:
        return values.squeeze(-1)
    index = number[..., None, None].expand(*values.shape[:-1], 1)
    return values.gather(-1, index).squeeze(-1)
