"""The losses of WSMCL: contrast between the slides of a case, distillation from IHC to H&E, and their sum.

Shi et al. 2025 (PMID 39919535). The contrastive loss (MACL) compares tiles across the two slides only. For
an anchor a among the top tiles of one slide, and a positive p among the top tiles of the other::

    l(a, p) = -log( e^S_ap / (e^S_ap + sum over bottom tiles j of the other slide of e^S_aj) )
            = softplus( logsumexp_j(S_aj) - S_ap )

with S the cosine similarity times a learnt scale; likewise with top and bottom swapped, and with the
slides swapped. The second line is what is computed: one matrix of similarities, and no loop.

Differences from the published code
-----------------------------------
- Without a loop over the positives; the numbers agree within rounding. In float32 under autocast.
- The divergence is computed from log-softmax: the logarithm of a softmax is -inf where it underflows.
- Options: a teacher that distillation does not move, a label loss on the H&E head, weights, and contrast
  of the top tiles alone. The defaults are what was published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional as F

from napari_her2.errors import JobFailed
from napari_her2.models.nystrom import at_least_float32

if TYPE_CHECKING:
    from torch import Tensor

    from napari_her2.models.wsmcl import WSMCLOutput

Anchors = Literal["both", "top"]

SHORTEST = 1e-12  # a vector of zeros is like nothing, instead of not a number


@dataclass(frozen=True, slots=True)
class LossOptions:
    """Weights of the parts of the loss, and choices.

    Parameters
    ----------
    fusion, ihc, he : float, default 1, 1 and 0
        Label loss (cross-entropy) on the head for both slides, on that of IHC and on that of H&E, which
        as published learns by distillation alone.
    contrastive : float, default 1
    distillation : float, default 1
    detach_teacher : bool, default False
        Whether distillation moves the H&E side alone.
    anchors : {"both", "top"}, default "both"
        Whether bottom tiles are anchors too, or only what top tiles are told apart from.
    """

    fusion: float = 1.0
    ihc: float = 1.0
    he: float = 0.0
    contrastive: float = 1.0
    distillation: float = 1.0
    detach_teacher: bool = False
    anchors: Anchors = "both"


@dataclass(frozen=True, slots=True, eq=False)
class LossTerms:
    """The loss and its parts, each before its weight, those of weight zero too.

    Parameters
    ----------
    total : () float
        What to minimise.
    fusion, ihc, he : () float
        Cross-entropy on each head.
    contrastive : () float or None
        None with bags too small to have a top and a bottom tile.
    distillation : () float
    """

    total: Tensor
    fusion: Tensor
    ihc: Tensor
    he: Tensor
    contrastive: Tensor | None
    distillation: Tensor


def contrastive_loss(
    he_top: Tensor,
    he_bottom: Tensor,
    ihc_top: Tensor,
    ihc_bottom: Tensor,
    log_scale: Tensor,
    *,
    anchors: Anchors = "both",
) -> Tensor:
    """MACL: top tiles of the slides alike, bottom tiles alike, top and bottom apart.

    Parameters
    ----------
    he_top, he_bottom, ihc_top, ihc_bottom : (k, W) float
        k at least 1.
    log_scale : () float
        Logarithm of the scale of similarities.
    anchors : {"both", "top"}, default "both"

    Returns
    -------
    () float
        ln(1 + k) where all similarities are equal.
    """
    with torch.autocast(he_top.device.type, enabled=False):
        he = at_least_float32(torch.cat([he_top, he_bottom]))
        ihc = at_least_float32(torch.cat([ihc_top, ihc_bottom]))
        # Lengths divide the products, of which there are fewer than numbers in the vectors.
        similarity = he @ ihc.mT * (log_scale.exp() / (_lengths(he) * _lengths(ihc).mT))
        upper, lower = similarity.tensor_split([len(he_top)], dim=0)
        top_top, top_bottom = upper.tensor_split([len(ihc_top)], dim=1)
        bottom_top, bottom_bottom = lower.tensor_split([len(ihc_top)], dim=1)
        # Rows are anchors, of H&E and then of IHC.
        alike, apart = [top_top, top_top.mT], [top_bottom, bottom_top.mT]
        if anchors == "both":
            alike += [bottom_bottom, bottom_bottom.mT]
            apart += [bottom_top, top_bottom.mT]
        return F.softplus(torch.stack(apart).logsumexp(dim=-1, keepdim=True) - torch.stack(alike)).mean()


def distillation_loss(student: Tensor, teacher: Tensor, *, detach_teacher: bool = False) -> Tensor:
    """Divergence KL(softmax(teacher) || softmax(student)).

    Parameters
    ----------
    student, teacher : (C,) float
        Logits of H&E and of IHC.
    detach_teacher : bool, default False

    Returns
    -------
    () float
    """
    teacher = teacher.detach() if detach_teacher else teacher
    return F.kl_div(
        at_least_float32(student).log_softmax(dim=-1),
        at_least_float32(teacher).log_softmax(dim=-1),
        reduction="sum",
        log_target=True,
    )


def wsmcl_loss(
    output: WSMCLOutput, label: Tensor, log_scale: Tensor, options: LossOptions | None = None
) -> LossTerms:
    """Loss of a case.

    Parameters
    ----------
    output : WSMCLOutput
        Of both slides.
    label : () int64
        Class.
    log_scale : () float
        The model's ``log_scale``.
    options : LossOptions, optional

    Raises
    ------
    JobFailed
        If a slide is missing.
    """
    options = options or LossOptions()
    he, ihc = output.he, output.ihc
    if output.fused is None or he is None or ihc is None:
        raise JobFailed("WSMCL is trained on pairs: give an H&E and an IHC slide for every case.")
    of_fusion, of_ihc, of_he = (
        F.cross_entropy(at_least_float32(logits), label) for logits in (output.fused, ihc.logits, he.logits)
    )
    distilled = distillation_loss(he.logits, ihc.logits, detach_teacher=options.detach_teacher)
    contrast = None
    if len(he.top) >= 1:
        contrast = contrastive_loss(
            he.top_features,
            he.bottom_features,
            ihc.top_features,
            ihc.bottom_features,
            log_scale,
            anchors=options.anchors,
        )
    parts = [
        (options.fusion, of_fusion),
        (options.ihc, of_ihc),
        (options.he, of_he),
        (options.contrastive, contrast),
        (options.distillation, distilled),
    ]
    # A weight of zero leaves a part out altogether: zero times infinity would poison the gradient.
    used = [weight * part for weight, part in parts if weight and part is not None]
    if not used:
        raise JobFailed("No part of the loss has a weight above zero: give at least one a weight.")
    return LossTerms(
        total=torch.stack(used).sum(),
        fusion=of_fusion,
        ihc=of_ihc,
        he=of_he,
        contrastive=contrast,
        distillation=distilled,
    )


def _lengths(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return lengths.clamp_min(SHORTEST)
