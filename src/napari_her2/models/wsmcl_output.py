"""What `napari_her2.models.wsmcl.WSMCL` says of the slides of a case."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from napari_her2.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

Head = Literal["fusion", "H&E", "IHC"]


@dataclass(frozen=True, slots=True, eq=False)
class BranchOutput:
    """What one slide says by itself.

    Parameters
    ----------
    logits : (C,) float
        Of the slide's own head.
    token : (W,) float
        The slide as one vector.
    attention : (N,) float32
        Attention received by each tile, without gradient. Sums to about one, may be slightly negative:
        for ranking.
    top, bottom : (k,) int64
        The tiles that receive most and least attention, each in descending order of it.
    top_features, bottom_features : (k, W) float
        Their vectors behind the attention and the shared LayerNorm.
    members : (M, C) float, optional
        Logits of each model of an ensemble, of which ``logits`` is the mean; None of a single model.
    """

    logits: Tensor
    token: Tensor
    attention: Tensor
    top: Tensor
    bottom: Tensor
    top_features: Tensor
    bottom_features: Tensor
    members: Tensor | None = None

    @property
    def probabilities(self) -> Tensor:
        """(C,) softmax of the logits."""
        return torch.softmax(self.logits, dim=-1)

    def limited(self, k: int) -> BranchOutput:
        """Return it with the k uppermost of its top tiles, and the k lowest of its bottom tiles."""
        low = len(self.bottom) - k
        return replace(
            self,
            top=self.top[:k],
            bottom=self.bottom[low:],
            top_features=self.top_features[:k],
            bottom_features=self.bottom_features[low:],
        )


@dataclass(frozen=True, slots=True, eq=False)
class WSMCLOutput:
    """What the model says of a case.

    Parameters
    ----------
    fused : (C,) float or None
        Logits from both slides; None where one is missing.
    he, ihc : BranchOutput or None
        What each slide says by itself; None where it is missing.
    fused_members : (M, C) float, optional
        Of ``fused``, as `BranchOutput.members`.
    """

    fused: Tensor | None
    he: BranchOutput | None
    ihc: BranchOutput | None
    fused_members: Tensor | None = None

    @property
    def head(self) -> Head:
        """Which head gives the answer: "fusion" with both slides, otherwise "H&E" or "IHC"."""
        if self.fused is not None:
            return "fusion"
        return "H&E" if self.he is not None else "IHC"

    @property
    def logits(self) -> Tensor:
        """(C,) logits of the head that gives the answer."""
        if self.fused is not None:
            return self.fused
        branch = self.he if self.he is not None else self.ihc
        if branch is None:
            raise ModelError("A case without any slide has no answer: give the H&E or the IHC slide.")
        return branch.logits

    @property
    def probabilities(self) -> Tensor:
        """(C,) softmax of the logits of the head that gives the answer."""
        return torch.softmax(self.logits, dim=-1)

    @property
    def agree(self) -> bool | None:
        """Whether the heads of the two slides name the same class; None where a slide is missing."""
        if self.he is None or self.ihc is None:
            return None
        return bool(self.he.logits.argmax() == self.ihc.logits.argmax())
