"""The losses of Corr-A-Net: both stains rebuilt from either and from both, and their hidden layers alike.

Dutta et al. 2025 (doi:10.1101/2025.04.22.25326227); correlation and the three reconstructions after Chandar
et al. (Neural Computation 2016, arXiv:1504.07225), the mixture of structural similarity and absolute error
after Zhao et al. (IEEE Transactions on Computational Imaging 2017, arXiv:1511.08861)::

    R(a, b) = beta (1 - SSIM(a, b)) + (1 - beta) mean |a - b|
    loss = self + cross + joint - lambda * correlation

where self is R of each stain rebuilt from itself, cross from the other stain, joint from both, each summed
over the stains. SSIM: Gaussian window of 11 px and sigma 1.5, K 0.01 and 0.03, values in [0, 1], averaged
over channels and over the positions at which the window lies in the image (Wang et al. 2004,
doi:10.1109/TIP.2003.819861).

Differences from the paper
--------------------------
- beta is not stated; it is 0.84, the value of Zhao et al., and weighs SSIM.
- The paper names self and cross alone; joint is in the network that it builds on. Weight 0 leaves it out.
- What the correlation runs over is not stated; here each channel over all pixels of the batch, then the
  mean over the channels, so that it lies in [-1, 1] however many there are.

Differences from the published code
-----------------------------------
Computed there are absolute errors of one reconstruction against three targets, and a correlation that runs
over the channels of a pixel and whose weight is 1.
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

    from napari_her2.models.corr_a_net import CorrANetOutput, Views

CorrelateOver = Literal["pixels", "channels"]

WINDOW_PX = 11
SIGMA_PX = 1.5
BETA = 0.84

_SMALL_PX = 128
_C1, _C2 = 0.01**2, 0.03**2
_LEAST_VARIANCE = 1e-6  # what varies less counts as constant, which correlates with nothing


@dataclass(frozen=True, slots=True)
class LossOptions:
    """Weights of the parts of the loss, and choices.

    Parameters
    ----------
    beta : float, default 0.84
        Share of structural similarity in a reconstruction's loss, 0 to 1; the rest is absolute error.
    self_reconstruction, cross_reconstruction, joint_reconstruction : float, default 1
    correlation : float, default 1.5
        lambda.
    correlate_over : {"pixels", "channels"}, default "pixels"
        Whether each channel is correlated over all pixels, or each pixel over its channels.
    """

    beta: float = BETA
    self_reconstruction: float = 1.0
    cross_reconstruction: float = 1.0
    joint_reconstruction: float = 1.0
    correlation: float = 1.5
    correlate_over: CorrelateOver = "pixels"

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise JobFailed(f"beta is a share between 0 and 1, not {self.beta}: correct the configuration.")


@dataclass(frozen=True, slots=True, eq=False)
class LossTerms:
    """The loss and its parts, each before its weight, those of weight zero too.

    Parameters
    ----------
    total : () float
        What to minimise.
    self_reconstruction, cross_reconstruction, joint_reconstruction : () float
        Sum over both stains, at least 0.
    correlation : () float
        In [-1, 1]; the loss takes it off.
    """

    total: Tensor
    self_reconstruction: Tensor
    cross_reconstruction: Tensor
    joint_reconstruction: Tensor
    correlation: Tensor


def structural_similarity(images: Tensor, targets: Tensor) -> Tensor:
    """SSIM, averaged over batch, channels and positions.

    Parameters
    ----------
    images, targets : (B, C, H, W) float
        Targets in [0, 1]; H and W at least 11.

    Returns
    -------
    () float
        1 where they are equal.

    Raises
    ------
    JobFailed
        If the images are smaller than the window.
    """
    if min(images.shape[2:]) < WINDOW_PX:
        raise JobFailed(
            f"Images of {images.shape[2]} x {images.shape[3]} pixels are too small to compare their "
            f"structure: train on tiles of at least {WINDOW_PX} px."
        )
    with torch.autocast(images.device.type, enabled=False):
        # Filters that take each channel by itself run a tenth faster, forth and back, in the plain layout.
        images, targets = (at_least_float32(part).contiguous() for part in (images, targets))
        mean, target_mean = _local_mean(images), _local_mean(targets)
        product, squares = mean * target_mean, mean * mean + target_mean * target_mean
        covariance = _local_mean(images * targets) - product
        # Only their sum is asked for: one filter does for both.
        variances = _local_mean(images * images + targets * targets) - squares
        # Rounding makes the variance of large, flat values negative, and the quotient without bounds.
        divisor = (squares + _C1) * (variances.clamp_min(0) + _C2)
        return ((2 * product + _C1) * (2 * covariance + _C2) / divisor).mean()


def reconstruction_loss(images: Tensor, targets: Tensor, *, beta: float = BETA) -> Tensor:
    """R: dissimilar structure and absolute error.

    Parameters
    ----------
    images, targets : (B, C, H, W) float
    beta : float, default 0.84

    Returns
    -------
    () float
        0 where they are equal.
    """
    loss = torch.zeros((), device=images.device)
    if beta > 0:
        loss = loss + beta * (1 - structural_similarity(images, targets))
    if beta < 1:
        loss = loss + (1 - beta) * F.l1_loss(at_least_float32(images), at_least_float32(targets))
    return loss


def correlation(he: Tensor, ihc: Tensor, *, over: CorrelateOver = "pixels") -> Tensor:
    """Pearson's correlation of the hidden layers.

    Parameters
    ----------
    he, ihc : (B, d, H, W) float
    over : {"pixels", "channels"}, default "pixels"
        "pixels": of each channel over all pixels of the batch, then the mean over the channels.
        "channels": of each pixel over its channels, then the mean over the pixels of the batch.

    Returns
    -------
    () float
        In [-1, 1]; what is constant counts as 0, with a gradient that is finite.
    """
    axes = (0, 2, 3) if over == "pixels" else (1,)
    with torch.autocast(he.device.type, enabled=False):
        he, ihc = at_least_float32(he), at_least_float32(ihc)
        he = he - he.mean(dim=axes, keepdim=True)
        ihc = ihc - ihc.mean(dim=axes, keepdim=True)
        variances = he.square().mean(dim=axes), ihc.square().mean(dim=axes)
        spread = [torch.sqrt(variance + _LEAST_VARIANCE) for variance in variances]
        return ((he * ihc).mean(dim=axes) / (spread[0] * spread[1])).mean()


def corr_a_net_loss(output: CorrANetOutput, options: LossOptions | None = None) -> LossTerms:
    """Loss of a batch of pairs.

    Raises
    ------
    JobFailed
        If the images are smaller than 11 px, or no part of the loss has a weight.
    """
    options = options or LossOptions()
    parts = (
        (options.self_reconstruction, output.self_reconstruction),
        (options.cross_reconstruction, output.cross_reconstruction),
        (options.joint_reconstruction, output.joint_reconstruction),
    )
    terms: list[tuple[float, Tensor]] = []
    for weight, rebuilt in parts:
        # Without a weight it is computed for the record, at half the cost.
        with torch.set_grad_enabled(weight != 0 and torch.is_grad_enabled()):
            terms.append((weight, _of_both(rebuilt, output.targets, options.beta)))
    related = correlation(output.hidden.he, output.hidden.ihc, over=options.correlate_over)
    weighed = [weight * term for weight, term in [*terms, (-options.correlation, related)] if weight]
    if not weighed:
        raise JobFailed("No part of the loss has a weight above zero: give at least one a weight.")
    return LossTerms(
        total=torch.stack(weighed).sum(),
        self_reconstruction=terms[0][1],
        cross_reconstruction=terms[1][1],
        joint_reconstruction=terms[2][1],
        correlation=related,
    )


def _local_mean(images: Tensor) -> Tensor:
    """Mean under a Gaussian window, where the window lies within the image."""
    offsets = torch.arange(WINDOW_PX, device=images.device, dtype=images.dtype) - WINDOW_PX // 2
    window = torch.exp(-offsets.square() / (2 * SIGMA_PX**2))
    window = window / window.sum()
    height, width = images.shape[2:]
    if max(height, width) <= _SMALL_PX:
        # On squares as small as those that are learnt from, two full products beat two thin filters.
        return _banded(window, height) @ images @ _banded(window, width).mT
    across = window.expand(images.shape[1], 1, 1, -1)
    return F.conv2d(F.conv2d(images, across, groups=len(across)), across.mT, groups=len(across))


def _banded(window: Tensor, side: int) -> Tensor:
    """(side - 10, side): the window at every place where it lies within the side."""
    places = side - WINDOW_PX + 1
    rows = torch.arange(places, device=window.device)[:, None]
    band = window.new_zeros(places, side)
    return band.scatter_(1, rows + torch.arange(WINDOW_PX, device=window.device), window.expand(places, -1))


def _of_both(rebuilt: Views, targets: Views, beta: float) -> Tensor:
    return reconstruction_loss(rebuilt.he, targets.he, beta=beta) + reconstruction_loss(
        rebuilt.ihc, targets.ihc, beta=beta
    )
