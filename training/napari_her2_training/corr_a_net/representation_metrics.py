"""How much a correlated representation from H&E resembles the IHC image of the same field.

Dutta et al. 2025 (Corr-A-Net, Fig. 2B) report a mean correlation between hidden representation and IHC image,
with and without attention, without saying how it is worked out. Here: Pearson's r over the pixels between
each channel and one map of the IHC image, its absolute value averaged over the channels, then over the
fields. The sign is dropped because a channel may as well be high where the stain is low; so noise does not
come out as zero but near sqrt(2 / (pi n)) for n independent pixels, and neighbouring pixels are not
independent: compare with a control, not with zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import wilcoxon
from skimage.color import hed_from_rgb, separate_stains
from torch.nn import functional as F

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_REC_709 = (0.2125, 0.7154, 0.0721)


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two values of each of the same fields, compared by Wilcoxon's signed rank test (two-sided).

    Parameters
    ----------
    pairs : int
    first, second : float
        Means.
    median_difference : float
        Of first less second.
    statistic, p_value : float
        0 and 1 where no pair differs; NaN where there is none.
    """

    pairs: int
    first: float
    second: float
    median_difference: float
    statistic: float
    p_value: float


def luminance(images: Tensor) -> Tensor:
    """Brightness of RGB images (Rec. 709 weights on the stored values, as scikit-image).

    Parameters
    ----------
    images : (B, 3, H, W) float

    Returns
    -------
    (B, 1, H, W) float
    """
    return (images * images.new_tensor(_REC_709)[:, None, None]).sum(dim=1, keepdim=True)


def dab_density(images: Tensor) -> Tensor:
    """Optical density of DAB in images of haematoxylin and DAB (Ruifrok and Johnston 2001, scikit-image).

    Parameters
    ----------
    images : (B, 3, H, W) float
        RGB on [0, 1].

    Returns
    -------
    (B, 1, H, W) float
        At least 0.
    """
    stains = separate_stains(images.detach().cpu().double().numpy(), hed_from_rgb, channel_axis=1)
    return torch.from_numpy(stains[:, 2:3]).to(images)


def channel_correlations(representations: Tensor, reference: Tensor) -> Tensor:
    """Pearson's r over the pixels, of each channel with its reference.

    Parameters
    ----------
    representations : (B, d, H, W) float
    reference : (B, 1, H, W) or (B, d, H, W) float
        One map for all channels, or one for each (the representation from IHC).

    Returns
    -------
    (B, d) float64, on the CPU
        0 where either is constant: such a channel says nothing of the stain.

    Raises
    ------
    JobFailed
        If the shapes do not fit.
    """
    here, there = representations.shape, reference.shape
    if (
        len(here) != 4
        or len(there) != 4
        or there[1] not in (1, here[1])
        or (here[0], *here[2:])
        != (
            there[0],
            *there[2:],
        )
    ):
        raise JobFailed(
            f"Representations of shape {tuple(here)} and maps of shape {tuple(there)} are not of the "
            f"same fields: bring both to one size, field by field."
        )
    # On the CPU, since not every device has float64.
    a, b = (maps.detach().cpu().double().flatten(2) for maps in (representations, reference))
    centred_a, centred_b = (maps - maps.mean(dim=-1, keepdim=True) for maps in (a, b))
    # Asked for exactly: rounding leaves a constant a residue around its mean, which would correlate.
    varied = (a.amin(-1) < a.amax(-1)) & (b.amin(-1) < b.amax(-1))
    # Scaled first, or faint maps would fall below the eps of the cosine.
    r = F.cosine_similarity(_to_one(centred_a), _to_one(centred_b), dim=-1)
    return torch.where(varied, r, 0.0)


def mean_correlations(representations: Tensor, reference: Tensor) -> Tensor:
    """Mean of |r| over the channels of each field.

    Parameters
    ----------
    representations : (B, d, H, W) float
    reference : (B, 1, H, W) or (B, d, H, W) float
        `luminance` or `dab_density` of the IHC images, or their own representation.

    Returns
    -------
    (B,) float64, on the CPU
        Their mean over the fields is the figure to report.
    """
    return channel_correlations(representations, reference).abs().mean(dim=1)


def compare_paired(first: NDArray[np.floating], second: NDArray[np.floating]) -> PairedComparison:
    """Compare two arms on the same fields.

    Parameters
    ----------
    first, second : (N,) float
        `mean_correlations` with attention, and without.

    Raises
    ------
    JobFailed
        If they are not paired, or not finite.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise JobFailed(
            f"Values of shape {first.shape} and {second.shape} are not pairs: measure both arms on the "
            f"same fields."
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise JobFailed("The values to compare are not all finite: check the representations.")
    if len(first) == 0:
        return PairedComparison(0, math.nan, math.nan, math.nan, math.nan, math.nan)
    statistic, p_value = 0.0, 1.0
    if (first != second).any():
        found = wilcoxon(first, second)
        statistic, p_value = float(found.statistic), float(found.pvalue)
    return PairedComparison(
        pairs=len(first),
        first=float(first.mean()),
        second=float(second.mean()),
        median_difference=float(np.median(first - second)),
        statistic=statistic,
        p_value=p_value,
    )


def _to_one(values: Tensor) -> Tensor:
    largest = values.abs().amax(dim=-1, keepdim=True)
    return values / torch.where(largest > 0, largest, 1.0)
