"""Corr-A-Net as its published code has it, which is another network than the paper's: for comparison only.

Code beside Dutta et al. 2025 (doi:10.1101/2025.04.22.25326227; WU-C2IR2/CorrNet-HER2Prediction). There is
no stem: the images themselves are encoded and reconstructed. Activations are LeakyReLU, squeeze-excitation
has no ReLU and a bottleneck of d/16 channels (none at d = 8, so that its gate does not depend on the
image), nothing follows the convolution of the fusion, and one decoder's three channels stand for H&E and
for IHC alike; a second decoder exists and is not used. Missing IHC is a black image, which goes through its
branch as any other.

Do not build on it. Both stains get the same reconstruction, and its training compares that with H&E, with
IHC and with black: pixel by pixel the best answer is the darker of the two, and with the IHC blackened, as
in half of its training, black itself. What predictors are given is that reconstruction, twice.

Differences from the published code
-----------------------------------
- Colours are RGB, there BGR; a kernel learns one as well as the other.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_her2.models.corr_a_net import DIM, Views, check_dim, check_images, check_pair
from napari_her2.models.nystrom import at_least_float32
from napari_her2_training.corr_a_net.losses import correlation

RGB = 3
REDUCTION = 16


@dataclass(frozen=True, slots=True, eq=False)
class PublishedOutput:
    """What the published network makes of a pair.

    Parameters
    ----------
    targets : Views of (B, 3, H, W) float
        The images.
    hidden : Views of (B, d, H, W) float
        Behind squeeze-excitation.
    fused : (B, d, H, W) float
    reconstruction : (B, 6, H, W) float
        Of H&E and IHC, and both the same.
    """

    targets: Views
    hidden: Views
    fused: Tensor
    reconstruction: Tensor


def conv_layers(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, behind in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, behind, 3, padding=1), nn.BatchNorm2d(behind), nn.LeakyReLU()]
    return nn.Sequential(*layers)


class Gate(nn.Module):
    """Squeeze-excitation without a ReLU; a bottleneck of 0 leaves a learnt constant a channel."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        with warnings.catch_warnings():
            # torch warns of layers without weights.
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.squeeze = nn.Linear(channels, bottleneck)
            self.excite = nn.Linear(bottleneck, channels)

    def gate(self, features: Tensor) -> Tensor:
        return torch.sigmoid(self.excite(self.squeeze(features.mean(dim=(2, 3)))))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.gate(features)[:, :, None, None]


class CorrANetPublished(nn.Module):
    """The published network.

    Parameters
    ----------
    dim : int, default 16
        d, a multiple of 4.
    attention : bool, default True
        Whether squeeze-excitation weighs the channels.

    Attributes
    ----------
    channels : int
        Of what `represent` gives: 6.

    Raises
    ------
    ModelError
        If d is not a positive multiple of 4.

    Examples
    --------
    >>> [sum(w.numel() for w in CorrANetPublished(dim=dim).parameters()) for dim in (8, 16, 32)]
    [2382, 8856, 33962]
    """

    def __init__(self, *, dim: int = DIM, attention: bool = True) -> None:
        super().__init__()
        check_dim(dim)
        self.dim = dim
        self.channels = 2 * RGB

        def encoder() -> nn.Sequential:
            return conv_layers(RGB, dim // 4, dim // 2, dim)

        def weigh() -> nn.Module:
            if not attention:
                return nn.Identity()
            return Gate(dim, dim // REDUCTION)

        def decoder() -> nn.Sequential:
            layers = conv_layers(dim, dim // 2, dim // 4)
            return layers.append(nn.Conv2d(dim // 4, RGB, 3, padding=1)).append(nn.LeakyReLU())

        self.encode_he = encoder()
        self.encode_ihc = encoder()
        self.weigh_he = weigh()
        self.weigh_ihc = weigh()
        self.fuse = nn.Conv2d(dim, dim, 3, padding=1)
        self.decode = decoder()
        # Part of the published weights, though nothing goes through it and it never learns.
        self.decode_unused = decoder().requires_grad_(False)

    def represent(self, he: Tensor) -> Tensor:
        """Reconstruct from H&E and a black image, which is what predictors are given.

        Parameters
        ----------
        he : (B, 3, H, W) float
            RGB in [0, 1].

        Returns
        -------
        (B, 6, H, W) float

        Raises
        ------
        ModelError
            If it is no batch of RGB images in float, or they are smaller than 7 px.
        """
        check_images(he, "H&E")
        return self.forward(he, torch.zeros_like(he)).reconstruction

    def forward(self, he: Tensor, ihc: Tensor) -> PublishedOutput:
        """Reconstruct a pair.

        Parameters
        ----------
        he, ihc : (B, 3, H, W) float
            RGB in [0, 1] of the same places; black where the IHC is missing.

        Returns
        -------
        PublishedOutput

        Raises
        ------
        ModelError
            As in `represent`, and if the two differ in shape.
        """
        check_pair(he, ihc)
        hidden = Views(self.weigh_he(self.encode_he(he)), self.weigh_ihc(self.encode_ihc(ihc)))
        fused = self.fuse((hidden.he + hidden.ihc) / 2)
        image = self.decode(fused)
        return PublishedOutput(
            targets=Views(he, ihc),
            hidden=hidden,
            fused=fused,
            reconstruction=torch.cat([image, image], dim=1),
        )


@dataclass(frozen=True, slots=True, eq=False)
class PublishedLossTerms:
    """The loss of the published code and its parts.

    Parameters
    ----------
    total : () float
        What to minimise.
    both, he_alone, ihc_alone : () float
        Mean absolute error against both images, and with the other one black.
    correlation : () float
        In [-1, 1]; the loss takes it off.
    """

    total: Tensor
    both: Tensor
    he_alone: Tensor
    ihc_alone: Tensor
    correlation: Tensor


def published_loss(output: PublishedOutput, *, weight: float = 1.0) -> PublishedLossTerms:
    """Loss of the published code.

    Parameters
    ----------
    output : PublishedOutput
    weight : float, default 1
        Of the correlation; the 1.5 of the paper is set in the code but not used.

    Returns
    -------
    PublishedLossTerms
    """
    he, ihc = at_least_float32(output.targets.he), at_least_float32(output.targets.ihc)
    black = torch.zeros_like(he)
    rebuilt = at_least_float32(output.reconstruction)
    both, he_alone, ihc_alone = (
        F.l1_loss(rebuilt, torch.cat(pair, dim=1)) for pair in ((he, ihc), (he, black), (black, ihc))
    )
    related = correlation(output.hidden.he, output.hidden.ihc, over="channels")
    return PublishedLossTerms(
        total=both + he_alone + ihc_alone - weight * related,
        both=both,
        he_alone=he_alone,
        ihc_alone=ihc_alone,
        correlation=related,
    )
