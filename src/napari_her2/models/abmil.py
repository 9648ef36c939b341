"""Attention MIL on learnt tile vectors, gated or plain: the ABMIL that other methods are compared with.

Ilse, Tomczak and Welling, Attention-based deep multiple instance learning, ICML 2018 (arXiv:1802.04712).
For a bag of K tile features x_k::

    h_k = layers of Linear, ReLU and dropout (x_k)
    a   = softmax over the tiles of the attention score of h_k, gated (equation 9) or plain (equation 8)
    z   = sum_k a_k h_k
    logits = W z + b

The classifier is linear, so everything but the softmax is worked out tile by tile: logits = b + sum_k a_k
(W h_k). Memory grows with K alone, and another choice of tiles needs no second look at the features
(`ABMIL.pool`).

Differences from the paper
--------------------------
- The convolutions of the paper are an encoder that made the features; its 500 units and attention of 128
  are, as has become usual for whole slides, 512 and 256 by default. ``widths`` and ``hidden`` restore what
  was published: (500,) and 128 for images, (256, 128, 64) and 64 for the tables of the appendix.
- Any number of classes by softmax and cross-entropy; two of them are the paper's Bernoulli likelihood of
  one sigmoid, written with two logits.
- Any number of tiles, padded batches with a mask, and W applied to each tile before the weighted sum instead
  of after it: the same number, and the tiles' share of each class falls out of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from napari_her2.models.aggregator import MILOutput, masked_softmax
from napari_her2.models.pooling import AttentionBranches, check_bags, in_pieces, weights_beside

if TYPE_CHECKING:
    from collections.abc import Sequence


class ABMIL(nn.Module):
    """Attention MIL with layers of its own in front.

    Parameters
    ----------
    features : int, default 1024
        Length of a tile's feature vector, D.
    widths : sequence of int, default (512,)
        Units of the layers in front; none: attention on the features themselves.
    hidden : int, default 256
        Units of the attention.
    classes : int, default 4
    gated : bool, default True
    dropout : float, default 0.25
        Behind each layer in front.

    Examples
    --------
    >>> head = ABMIL(features=1024, classes=4)
    >>> sum(parameter.numel() for parameter in head.parameters())
    789765
    >>> output = head.eval()(torch.zeros(10, 1024))
    >>> output.logits.shape, output.evidence.shape
    (torch.Size([4]), torch.Size([10, 4]))
    """

    def __init__(
        self,
        *,
        features: int = 1024,
        widths: Sequence[int] = (512,),
        hidden: int = 256,
        classes: int = 4,
        gated: bool = True,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        self.features = features
        self.classes = classes
        layers: list[nn.Module] = []
        width = features
        for wanted in widths:
            layers += [nn.Linear(width, wanted), nn.ReLU(), nn.Dropout(dropout)]
            width = wanted
        self.embed = nn.Sequential(*layers)
        self.attend = AttentionBranches(width=width, hidden=hidden, gated=gated)
        self.classifier = nn.Linear(width, classes)

    def forward(self, bags: Tensor, mask: Tensor | None = None) -> MILOutput:
        """Score bags.

        Parameters
        ----------
        bags : (K, D) or (B, K, D) float
            Any float type; computed in the type of the weights.
        mask : (K,) or (B, K) bool, optional
            True at tiles, False at padding.

        Returns
        -------
        MILOutput
            A bag without any tile gets attention 0 and the bias as its logits.

        Raises
        ------
        ModelError
            If the features have another length than the model was made for, or the mask does not fit.
        """
        check_bags(bags, mask, self.features)
        return self.of_tiles(*self.tiles(bags), mask=mask)

    def tiles(self, bags: Tensor) -> tuple[Tensor, Tensor]:
        """Attention before the softmax (..., K, 1) and W h_k (..., K, C) of each tile."""
        check_bags(bags, None, self.features)
        return cast("tuple[Tensor, Tensor]", in_pieces(self._score_tiles, bags))

    def of_tiles(self, scores: Tensor, votes: Tensor, *, mask: Tensor | None = None) -> MILOutput:
        """Join what `tiles` gave; see `pool`."""
        return self.pool(scores.squeeze(-1), votes, mask)

    def beside(self, bag: Sequence[Tensor], tiles: Sequence[Tensor]) -> MILOutput:
        """Weigh tiles against a bag that they are no part of; see `SlideAggregator.beside`."""
        scores, votes = tiles
        weights = weights_beside(scores, bag[0])
        return MILOutput(
            logits=self.of_tiles(*bag).logits,
            scores=scores.squeeze(-1),
            attention=weights.squeeze(-1),
            evidence=weights * votes * len(bag[0]),
            votes=votes,
        )

    def pool(self, scores: Tensor, votes: Tensor, mask: Tensor | None = None) -> MILOutput:
        """Join tiles that were scored one by one into the answer for the bag.

        Parameters
        ----------
        scores : (..., K) float
            Attention before the softmax.
        votes : (..., K, C) float
            W h_k.
        mask : (..., K) bool, optional
            True at the tiles to use. Changing it, as a drawn region does, costs milliseconds.

        Returns
        -------
        MILOutput
        """
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        attention = masked_softmax(scores)
        weighted = attention.unsqueeze(-1) * votes
        tiles = (scores > -torch.inf).sum(dim=-1)[..., None, None]
        return MILOutput(
            logits=weighted.sum(dim=-2) + self.classifier.bias,
            scores=scores,
            attention=attention,
            evidence=weighted * tiles,
            votes=votes,
        )

    def _score_tiles(self, bags: Tensor) -> tuple[Tensor, Tensor]:
        # Under autocast the layers convert by themselves; elsewhere float16 features meet float32 weights.
        tiles = self.embed(bags.to(self.classifier.weight.dtype))
        return self.attend(tiles), nn.functional.linear(tiles, self.classifier.weight)
