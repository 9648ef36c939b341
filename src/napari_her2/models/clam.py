"""CLAM: attention MIL whose attention also learns to tell the tiles that it ranks first and last apart.

Lu, Williamson, Chen, Chen, Barbieri and Mahmood, Data-efficient and weakly supervised computational
pathology on whole-slide images, Nature Biomedical Engineering 5, 555-570, 2021 (arXiv:2004.09666). For a bag
of K tile features x_k::

    h_k  = ReLU(Linear(x_k))
    e_kc = gated attention of h_k, one score (single branch, SB) or one for each class (multiple, MB)
    a_c  = softmax over the tiles of e_c
    logit_c = w_c · sum_k a_kc h_k + b_c

and for each class a small classifier of single tiles, "of this class" or "not of this class", which in
training learns from the tiles of the most and the least attention: `napari_her2_training.mil.losses`.

What is shown as attention is that of the predicted class where every class has its own; the evidence of a
class follows its own.

Differences from the paper
--------------------------
- The classifiers of tiles give their logits for every tile (2 C numbers), and the loss picks; the published
  way computes those of the chosen tiles alone. The numbers are the same.
- Any number of tiles, fewer than the loss samples too, padded batches with a mask, and each w_c applied to
  the tiles before the weighted sum: the same number, and the tiles' share of each class falls out of it.
- The weights start as PyTorch's layers do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from torch import nn

from napari_her2.models.aggregator import MILOutput
from napari_her2.models.pooling import (
    AttentionBranches,
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
class CLAMOutput(MILOutput):
    """What CLAM says of a bag, with what its loss needs.

    Parameters
    ----------
    branch_scores : (..., K, H) float
        Attention before the softmax, of each branch (H is 1 or C); -inf where the mask leaves a tile out.
    instances : (..., K, C, 2) float
        Logits of the classifiers of single tiles: not of the class, of the class.
    """

    branch_scores: Tensor
    instances: Tensor


class CLAM(nn.Module):
    """CLAM with one attention branch (CLAM-SB) or one for each class (CLAM-MB).

    Parameters
    ----------
    features : int, default 1024
        Length of a tile's feature vector, D.
    width : int, default 512
        Units of the layer in front.
    hidden : int, default 256
        Units of the attention; 384 is the published "big" model.
    classes : int, default 4
    multi_branch : bool, default False
        CLAM-MB instead of CLAM-SB.
    gated : bool, default True
        Whether the attention has a gate; the published code can leave it out.
    dropout : float, default 0.25
        Behind the layer in front, and in the attention.

    Examples
    --------
    >>> import torch
    >>> sum(parameter.numel() for parameter in CLAM(classes=4).parameters())
    793869
    >>> head = CLAM(classes=4, multi_branch=True).eval()
    >>> sum(parameter.numel() for parameter in head.parameters())
    794640
    >>> output = head(torch.zeros(10, 1024))
    >>> output.branch_scores.shape, output.instances.shape
    (torch.Size([10, 4]), torch.Size([10, 4, 2]))
    """

    def __init__(
        self,
        *,
        features: int = 1024,
        width: int = 512,
        hidden: int = 256,
        classes: int = 4,
        multi_branch: bool = False,
        gated: bool = True,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        self.features = features
        self.classes = classes
        self.embed = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Dropout(dropout))
        branches = classes if multi_branch else 1
        self.attend = AttentionBranches(
            width=width, hidden=hidden, branches=branches, gated=gated, dropout=dropout
        )
        self.classifier = nn.Linear(width, classes)
        self.instance_classifiers = nn.Linear(width, 2 * classes)

    def forward(self, bags: Tensor, mask: Tensor | None = None) -> CLAMOutput:
        """Score bags.

        Parameters
        ----------
        bags : (K, D) or (B, K, D) float
            Any float type; computed in the type of the weights.
        mask : (K,) or (B, K) bool, optional
            True at tiles, False at padding.

        Returns
        -------
        CLAMOutput
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
        """Attention before the softmax, what each tile would add, and its own classifiers' logits."""
        check_bags(bags, None, self.features)
        return cast("tuple[Tensor, Tensor, Tensor]", in_pieces(self._score_tiles, bags))

    def of_tiles(
        self, scores: Tensor, votes: Tensor, instances: Tensor, *, mask: Tensor | None = None
    ) -> CLAMOutput:
        """Join what `tiles` gave."""
        scores = mask_scores(scores, mask)
        attention = attention_over_tiles(scores)
        weighted = attention * votes
        logits = weighted.sum(dim=-2) + self.classifier.bias
        predicted = logits.argmax(dim=-1)
        return CLAMOutput(
            logits=logits,
            scores=of_class(scores, predicted),
            attention=of_class(attention, predicted),
            evidence=weighted * count_tiles(scores),
            votes=votes,
            branch_scores=scores,
            instances=instances.reshape(*instances.shape[:-1], self.classes, 2),
        )

    def beside(self, bag: Sequence[Tensor], tiles: Sequence[Tensor]) -> MILOutput:
        """Weigh tiles by the branch of the class that the bag is of; see `SlideAggregator.beside`."""
        scores, votes, _ = tiles
        logits = self.of_tiles(*bag).logits
        predicted = logits.argmax(dim=-1)
        weights = weights_beside(scores, bag[0])
        return MILOutput(
            logits=logits,
            scores=of_class(scores, predicted),
            attention=of_class(weights, predicted),
            evidence=weights * votes * len(bag[0]),
            votes=votes,
        )

    def _score_tiles(self, bags: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tiles = self.embed(bags.to(self.classifier.weight.dtype))
        votes = nn.functional.linear(tiles, self.classifier.weight)
        return self.attend(tiles), votes, self.instance_classifiers(tiles)
