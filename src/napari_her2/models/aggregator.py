"""What every slide model has in common: a bag of tile features goes in, a `MILOutput` comes out.

Each architecture lives in a file of its own and is entered in
`napari_her2.models.architectures`, by which bundles find it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class MILOutput:
    """What a slide model says of a bag, or of each bag of a batch (then with a leading B).

    Parameters
    ----------
    logits : (..., C) float
    scores : (..., K) float
        Attention before the softmax, e; -inf where the mask leaves a tile out.
    attention : (..., K) float
        Attention weights, a; they sum to one over a bag that holds a tile, and are 0 where masked.
    evidence : (..., K, C) float, optional
        Signed class evidence, N a_k votes_k with N tiles in the bag: its mean over the tiles plus the
        bias of the classifier is the logit, exactly. None from an architecture whose logits are no sum
        over the tiles: then nothing can honestly be said for or against a class tile by tile.
    votes : (..., K, C) float, optional
        What each tile would add to the logits if it were the whole bag, without the bias. None like
        ``evidence``.
    members : (M, ..., C) float, optional
        Logits of each model of an ensemble, of which ``logits`` is the mean; None of a single model.
    apart : bool
        Whether tiles `beside` a bag were joined as a bag of their own, because what a tile weighs hangs on
        all others.
    """

    logits: Tensor
    scores: Tensor
    attention: Tensor
    evidence: Tensor | None = None
    votes: Tensor | None = None
    members: Tensor | None = None
    apart: bool = False

    @property
    def probabilities(self) -> Tensor:
        """(..., C) softmax of the logits."""
        return torch.softmax(self.logits, dim=-1)


@runtime_checkable
class SlideAggregator(Protocol):
    """The interface of a slide model: an `nn.Module` that also tells its sizes.

    Attributes
    ----------
    features, classes : int
        Length of a tile's feature vector, and number of classes.
    """

    features: int
    classes: int

    def __call__(self, bags: Tensor, mask: Tensor | None = None) -> MILOutput:
        """Score one bag (K, D), or padded bags (B, K, D) with a mask (B, K) that is True at tiles."""
        ...

    def tiles(self, bags: Tensor) -> tuple[Tensor, ...]:
        """Return what is worked out of each tile by itself, (..., K, any) each.

        Another choice of the same tiles takes rows of it, and looks at no feature again.
        """
        ...

    def of_tiles(self, *tiles: Tensor, mask: Tensor | None = None) -> MILOutput:
        """Score bags of which `tiles` was taken; ``forward`` is one after the other."""
        ...

    def beside(self, bag: Sequence[Tensor], tiles: Sequence[Tensor]) -> MILOutput:
        """Weigh tiles against a bag that they are no part of, as its own tiles were weighed.

        A tile that is in the bag as well comes out as it did there: its attention is divided by the sum over
        the bag, which the others do not add to, and its evidence counts as that of one of the bag's tiles.
        So attention need not sum to one. Where what a tile weighs hangs on all others, the tiles are joined
        as a bag of their own, and their attention is brought to the mean of the bag's (``apart``).

        Parameters
        ----------
        bag, tiles : sequence of (K, any) and (N, any) Tensor
            What `tiles` gave of each.

        Returns
        -------
        MILOutput
            Of the N tiles; ``logits`` are those of the bag, or of the N tiles where they are ``apart``.
        """
        ...


def masked_softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis in which -inf means "not there"; all zero where nothing is there.

    Parameters
    ----------
    scores : (..., K) float

    Returns
    -------
    (..., K) float

    Notes
    -----
    A plain softmax of a row of -inf is NaN, and so is its gradient; rows without a tile occur in padded
    batches and must not poison the others.
    """
    there = scores > -torch.inf
    empty = ~there.any(dim=-1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(empty, 0.0), dim=-1)
    return weights.masked_fill(~there, 0.0)


def weighed_apart(output: MILOutput, tiles: int) -> MILOutput:
    """Bring a bag of its own beside another one: of both a tile weighs on average the same.

    Parameters
    ----------
    output : MILOutput
        Of N tiles, without evidence.
    tiles : int
        Of the other bag, K: weights become N / K times as large.
    """
    share = output.attention.shape[-1] / tiles
    return replace(output, scores=output.scores * share, attention=output.attention * share, apart=True)
