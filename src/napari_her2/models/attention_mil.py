"""Attention-based multiple instance learning with one attention branch and a linear classifier.

Ilse, Tomczak and Welling, Attention-based deep multiple instance learning, ICML 2018
(arXiv:1802.04712), equation 8, without gates; used for HER2 scores from H&E by Abdulsadig, Williams and
Burlutskiy, Leveraging transfer learning and multiple instance learning for HER2 automatic scoring of H&E
whole slide images, 2024 (arXiv:2411.05028).

For a bag of K tile features h_k::

    e_k = w · tanh(V h_k + b_V) + b_w
    a   = softmax(e) over the tiles
    z   = sum_k a_k h_k
    logits = W z + b

Since e_k depends on tile k alone and the classifier is linear, everything but the softmax is worked out
tile by tile: logits = b + sum_k a_k (W h_k). So memory grows with K alone, bags can be joined exactly
(`napari_her2.models.bags.merge_logits`), and another choice of tiles needs no second look at the features
(`AttentionMIL.pool`).

Differences from the paper
--------------------------
- Any number of tiles in a bag, and padded batches with a mask; the slide's bag holds all its tiles.
- W is applied to each tile before the weighted sum instead of after it: the same number, and the tiles'
  share of each class falls out of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_her2.models.aggregator import MILOutput, masked_softmax
from napari_her2.models.pooling import check_bags

__all__ = ["AttentionMIL", "MILOutput"]

CHUNK_TILES = 8192


class AttentionMIL(nn.Module):
    """Attention MIL, non-gated.

    Parameters
    ----------
    features : int, default 1024
        Length of a tile's feature vector, D.
    hidden : int, default 256
        Width of the attention branch.
    classes : int, default 4

    Examples
    --------
    >>> head = AttentionMIL(features=1024, hidden=256, classes=4)
    >>> sum(parameter.numel() for parameter in head.parameters())
    266757
    >>> output = head(torch.zeros(10, 1024))
    >>> output.logits.shape, output.evidence.shape
    (torch.Size([4]), torch.Size([10, 4]))
    """

    def __init__(self, features: int = 1024, hidden: int = 256, classes: int = 4) -> None:
        super().__init__()
        self.features = features
        self.hidden = hidden
        self.classes = classes
        self.project = nn.Linear(features, hidden)
        self.attend = nn.Linear(hidden, 1)
        self.classifier = nn.Linear(features, classes)

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
        scores, votes = self.look(bags)
        return self.pool(scores, votes, mask)

    def look(self, bags: Tensor) -> tuple[Tensor, Tensor]:
        """Look at each tile by itself.

        Parameters
        ----------
        bags : (..., K, D) float

        Returns
        -------
        scores : (..., K) float
            Attention before the softmax, e.
        votes : (..., K, C) float
            W h_k.
        """
        if torch.is_grad_enabled() or bags.shape[-2] <= CHUNK_TILES:
            return self._look_at_once(bags)
        # Without gradients nothing needs to be kept: a large bag, often float16, is converted by pieces.
        pieces = [self._look_at_once(chunk) for chunk in torch.split(bags, CHUNK_TILES, dim=-2)]
        return (
            torch.cat([scores for scores, _ in pieces], dim=-1),
            torch.cat([votes for _, votes in pieces], dim=-2),
        )

    def pool(self, scores: Tensor, votes: Tensor, mask: Tensor | None = None) -> MILOutput:
        """Join tiles that were looked at into the answer for the bag.

        Parameters
        ----------
        scores : (..., K) float
        votes : (..., K, C) float
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

    def _look_at_once(self, bags: Tensor) -> tuple[Tensor, Tensor]:
        # Under autocast the layers convert by themselves; elsewhere float16 features meet float32 weights.
        bags = bags.to(self.project.weight.dtype)
        scores = self.attend(torch.tanh(self.project(bags))).squeeze(-1)
        return scores, nn.functional.linear(bags, self.classifier.weight)
