"""DSMIL: the best tile of each class, and all others weighed by how much they resemble it.

Li, Li and Eliceiri, Dual-stream multiple instance learning network for whole slide image classification
with self-supervised contrastive learning, CVPR 2021 (arXiv:2011.08939), with the published code as the
reference for what the paper leaves open. For a bag of K tile features x_k and C classes::

    s_kc = Linear(x_k)                                  stream 1: its best tile m_c = argmax_k s_kc
    q_k  = tanh(Linear(ReLU(Linear(x_k))))
    a_c  = softmax over the tiles of q_k · q_(m_c) / sqrt(length of q)
    B_c  = sum_k a_kc v_k,   v_k = x_k                  stream 2: one vector for each class
    logit_c = sum_c' W_cc' · B_c' + b_c                 each logit sees the vectors of all classes

The logits are those of stream 2; the maxima s_(m_c)c of stream 1 take part in the loss
(`napari_her2_training.mil.losses`), and in the answer where ``average`` asks for it.

What is shown as attention is that of the predicted class; what counts as evidence follows the attention of
all classes. Logits are a sum over the tiles, given the best tiles; which tile is best is no sum, so what a
tile says as a bag of its own tells less than elsewhere.

Differences from the paper and the published code
-------------------------------------------------
- W is applied to each tile before the weighted sum instead of after it: the same number with C^2 values a
  tile, and the tiles' share of each class falls out of it.
- Exclusive classes: softmax and cross-entropy by default, as for the other architectures here. The
  published sigmoids, with a negative class that is all zero, are a choice of the loss.
- The paper averages both streams, the published code takes stream 2 alone unless told otherwise: so here.
- Any number of tiles, and padded batches with a mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from napari_her2.models.aggregator import MILOutput
from napari_her2.models.pooling import (
    attention_over_tiles,
    check_bags,
    count_tiles,
    in_pieces,
    mask_scores,
    of_class,
    weights_beside,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DSMILOutput(MILOutput):
    """What DSMIL says of a bag, with what its loss needs.

    Parameters
    ----------
    bag_logits : (..., C) float
        Of stream 2.
    maxima : (..., C) float
        Of stream 1: the largest score of each class over the tiles; 0 in a bag without any.
    instances : (..., K, C) float
        Scores of each tile in stream 1; -inf where the mask leaves a tile out.
    """

    bag_logits: Tensor
    maxima: Tensor
    instances: Tensor


class DSMIL(nn.Module):
    """Dual-stream MIL.

    Parameters
    ----------
    features : int, default 1024
        Length of a tile's feature vector, D.
    hidden : int, default 128
        Length of a query.
    classes : int, default 4
    project_values : bool, default False
        Values pass dropout and a linear layer with ReLU instead of being the features themselves.
    dropout : float, default 0
        In front of that layer.
    average : bool, default False
        The logits are the mean of both streams, and then no sum over tiles: no evidence is given.

    Examples
    --------
    >>> head = DSMIL(features=512, classes=4)
    >>> sum(parameter.numel() for parameter in head.parameters())
    92424
    >>> output = head(torch.zeros(10, 512))
    >>> output.maxima.shape, output.instances.shape
    (torch.Size([4]), torch.Size([10, 4]))
    """

    def __init__(
        self,
        *,
        features: int = 1024,
        hidden: int = 128,
        classes: int = 4,
        project_values: bool = False,
        dropout: float = 0.0,
        average: bool = False,
    ) -> None:
        super().__init__()
        self.features = features
        self.classes = classes
        self.average = average
        self.score = nn.Linear(features, classes)
        self.query = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.value: nn.Module = nn.Identity()
        if project_values:
            self.value = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, features), nn.ReLU())
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(classes, classes, features)))
        self.bias = nn.Parameter(torch.zeros(classes))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, bags: Tensor, mask: Tensor | None = None) -> DSMILOutput:
        """Score bags.

        Parameters
        ----------
        bags : (K, D) or (B, K, D) float
            Any float type; computed in the type of the weights.
        mask : (K,) or (B, K) bool, optional
            True at tiles, False at padding.

        Returns
        -------
        DSMILOutput
            ``scores`` and ``attention`` are those of the predicted class. A bag without any tile gets
            attention 0 and the bias as its logits.

        Raises
        ------
        ModelError
            If the features have another length than the model was made for, or the mask does not fit.
        """
        check_bags(bags, mask, self.features)
        return self.of_tiles(*self.tiles(bags), mask=mask)

    def tiles(self, bags: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of each tile by itself, its query, and what it would add to the logits."""
        check_bags(bags, None, self.features)
        return cast("tuple[Tensor, Tensor, Tensor]", in_pieces(self._score_tiles, bags))

    def of_tiles(
        self, instances: Tensor, queries: Tensor, shares: Tensor, *, mask: Tensor | None = None
    ) -> DSMILOutput:
        """Join what `tiles` gave."""
        instances = mask_scores(instances, mask)
        best = instances.argmax(dim=-2, keepdim=True)  # (..., 1, C)
        scores = mask_scores(self._near(queries, self._queries_at(best, queries)), mask)
        attention = attention_over_tiles(scores)
        shares, weighted = self._weighted(shares, attention)
        bag_logits = weighted.sum(dim=-2) + self.bias
        maxima = instances.gather(-2, best).squeeze(-2)
        maxima = maxima.masked_fill(maxima == -torch.inf, 0.0)
        logits = (bag_logits + maxima) / 2 if self.average else bag_logits
        predicted = logits.argmax(dim=-1)
        return DSMILOutput(
            logits=logits,
            scores=of_class(scores, predicted),
            attention=of_class(attention, predicted),
            evidence=None if self.average else weighted * count_tiles(scores),
            votes=None if self.average else shares.sum(dim=-1),
            bag_logits=bag_logits,
            maxima=maxima,
            instances=instances,
        )

    def beside(self, bag: Sequence[Tensor], tiles: Sequence[Tensor]) -> MILOutput:
        """Weigh tiles by how near they are to the strongest of the bag; see `SlideAggregator.beside`."""
        best = self._queries_at(bag[0].argmax(dim=-2, keepdim=True), bag[1])
        scores = self._near(tiles[1], best)
        weights = weights_beside(scores, self._near(bag[1], best))
        shares, weighted = self._weighted(tiles[2], weights)
        logits = self.of_tiles(*bag).logits
        predicted = logits.argmax(dim=-1)
        return MILOutput(
            logits=logits,
            scores=of_class(scores, predicted),
            attention=of_class(weights, predicted),
            evidence=None if self.average else weighted * len(bag[0]),
            votes=None if self.average else shares.sum(dim=-1),
        )

    def _queries_at(self, best: Tensor, queries: Tensor) -> Tensor:
        """Return the queries (..., C, Q) of the strongest tile of each class, ``best`` (..., 1, C)."""
        return queries.gather(-2, best.mT.expand(*best.shape[:-2], self.classes, queries.shape[-1]))

    def _near(self, queries: Tensor, best: Tensor) -> Tensor:
        """Attention before the softmax, (..., K, C)."""
        return queries @ best.mT / math.sqrt(queries.shape[-1])

    def _weighted(self, shares: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        """Return what tiles would add by vector (..., K, C, C), and what they add to logits (..., K, C)."""
        shares = shares.reshape(*shares.shape[:-1], self.classes, self.classes)  # logits by vectors
        return shares, (shares * attention.unsqueeze(-2)).sum(dim=-1)

    def _score_tiles(self, bags: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bags = bags.to(self.bias.dtype)
        return (
            self.score(bags),
            self.query(bags),
            nn.functional.linear(self.value(bags), self.weight.flatten(0, 1)),
        )
