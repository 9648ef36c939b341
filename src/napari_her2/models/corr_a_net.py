"""Corr-A-Net: from H&E alone, a representation that was learnt to agree with the IHC of the same place.

Dutta et al., Corr-A-Net: interpretable attention-based correlated feature learning for predicting of HER2
score in breast cancer from H&E images, 2025 (medRxiv, doi:10.1101/2025.04.22.25326227), after the
correlational network of Chandar et al. (Neural Computation 2016, arXiv:1504.07225). At every pixel, with d
channels in the representation::

    H, I = stem of each stain                                (64)      fixed, see `resnet_stem`
    h_H  = SE(encoder_H(H)),  h_I = SE(encoder_I(I))         (d)       what the correlation compares
    h(Z) = ReLU(conv(mean of the h that are there))          (d)       Z: H&E, IHC, or both
    D_H(h(Z)), D_I(h(Z))                                     (64)      both stains reconstructed from any

An encoder is three layers, d/4, d/2 and d channels wide, of 3 x 3 convolution, batch normalisation and
ReLU; a decoder two of them (d/2, d/4) and a linear 3 x 3 convolution to 64. SE, squeeze-excitation (Hu et
al. 2018, arXiv:1709.01507), weighs the channels by what the whole image holds; it can be switched off.
Once trained, `CorrANet.represent` needs the H&E image alone.

Differences from the paper
--------------------------
- A stain that is missing is left out of the mean; the paper adds the terms up, so that h would shrink.
- The bottleneck of squeeze-excitation, not stated, is d/4 and at least 4 channels wide.
- The two decoders have the same shape and weights of their own.
- The three representations pass a decoder as one batch, so that its normalisation treats them alike.
- Convolutions see the image mirrored beyond its edge. With zeros there, the edge answered up to ten times as
  strongly as any tissue, and scaling to the range of the field left nearly nothing of the tissue.

Beside the network of the paper stand two variants, each off by default, which change nothing else:

- ``dilation`` above 1 spreads the kernels of the three layers of an encoder (Yu and Koltun 2016,
  arXiv:1511.07122), so that a pixel of the representation sees more than the 15 px of the paper.
- ``scaling="training"`` takes representations to [0, 1] by ranges that were measured once, on training
  images, so that a predictor also sees how strong a field is as a whole (`fit_range`). The published code
  scales each field by itself.

Differences from the published code
-----------------------------------
Stem, ReLU, the activation behind the fusion and the decoder of IHC are missing there or different; that
network, as it is, stands with the tests.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from napari_her2.errors import ModelError
from napari_her2.models.resnet_stem import KERNEL_PX, STEM_CHANNELS, ResNetStem
from napari_her2.models.squeeze_excitation import SqueezeExcitation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DIM = 16
MAX_DILATION = 5
Scaling = Literal["field", "training"]
SCALINGS: tuple[Scaling, ...] = ("field", "training")
_QUANTILE = 0.999
_EVERY_PX = 4
"""Of the pixels of a representation its range is measured on, along each axis."""


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """One tensor for each stain.

    Parameters
    ----------
    he, ihc : (B, ..., H, W) float
    """

    he: Tensor
    ihc: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Representations:
    """The shared representation, from each stain alone and from both.

    Parameters
    ----------
    from_he, from_ihc, from_both : (B, d, H, W) float
        h(H), h(I) and h(H, I), at least 0.
    """

    from_he: Tensor
    from_ihc: Tensor
    from_both: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class CorrANetOutput:
    """What the network makes of a pair: all that its loss compares.

    Parameters
    ----------
    targets : Views of (B, 64, H, W) float
        What is to be reconstructed: the stem's view of each stain, in [0, 1].
    hidden : Views of (B, d, H, W) float
        h_H and h_I, which are to correlate.
    representations : Representations
    self_reconstruction, cross_reconstruction, joint_reconstruction : Views of (B, 64, H, W) float
        Each stain from itself, from the other, and from both.
    """

    targets: Views
    hidden: Views
    representations: Representations
    self_reconstruction: Views
    cross_reconstruction: Views
    joint_reconstruction: Views


class CorrANet(nn.Module):
    """Corr-A-Net as the paper describes it, and two variants of it.

    Images of any size from 7 px, with dilated kernels from one more than the largest dilation; what comes
    out has the same size.

    Parameters
    ----------
    dim : int, default 16
        d, channels of the representation: a multiple of 4 (8, 16 and 32 in the paper).
    attention : bool, default True
        Whether squeeze-excitation weighs the channels; all else stays as it is.
    dilation : int, default 1
        r, 1 to 5: the three layers of an encoder look 1, r and r² px around. 1 is the paper's.
    scaling : {"field", "training"}, default "field"
        Whether a predictor is given each representation on its own range, as published, or on ranges that
        hold for all images. See `to_predictor`.

    Attributes
    ----------
    channels : int
        Of what `represent` gives: d.
    sees_px : int
        How far around it a pixel of the representation sees, squeeze-excitation apart: 7 in the paper.
    smallest_px : int
        Least side of an image.
    stem : ResNetStem
        Fixed; its kernels are random until `ResNetStem.load` or `ResNetStem.fit_kernels`, and its range is
        set by `ResNetStem.fit_ceiling`. Both are part of the weights.
    ceiling : (d,) float buffer
        With ``scaling="training"`` alone: what counts as 1 in each channel, set by `fit_range`.

    Raises
    ------
    ModelError
        If d is not a positive multiple of 4, or there is no such dilation or scaling.

    Examples
    --------
    >>> model = CorrANet(dim=16).eval()
    >>> sum(weights.numel() for weights in model.parameters() if weights.requires_grad)
    17960
    >>> with torch.inference_mode():
    ...     model.represent(torch.rand(2, 3, 32, 40)).shape
    torch.Size([2, 16, 32, 40])
    >>> CorrANet(dilation=3).sees_px
    17
    """

    ceiling: Tensor

    def __init__(
        self, *, dim: int = DIM, attention: bool = True, dilation: int = 1, scaling: str = "field"
    ) -> None:
        super().__init__()
        check_dim(dim)
        check_variant(dilation, scaling)
        self.dim = dim
        self.channels = dim
        self.dilation, self.scaling = dilation, scaling
        spread = (1, dilation, dilation**2)
        self.sees_px = KERNEL_PX // 2 + sum(spread) + 1
        # An image is mirrored beyond its edge by as much as a kernel spans, and must be larger than that.
        self.smallest_px = max(KERNEL_PX, spread[-1] + 1)
        self.stem = ResNetStem()
        if scaling == "training":
            self.register_buffer("ceiling", torch.ones(dim))

        def encoder() -> nn.Sequential:
            return conv_layers((STEM_CHANNELS, dim // 4, dim // 2, dim), spread)

        def weigh() -> nn.Module:
            if not attention:
                return nn.Identity()
            return SqueezeExcitation(channels=dim, bottleneck=max(4, dim // 4))

        def decoder() -> nn.Sequential:
            layers = conv_layers((dim, dim // 2, dim // 4))
            return layers.append(nn.Conv2d(dim // 4, STEM_CHANNELS, 3, padding=1, padding_mode="reflect"))

        self.encode_he = encoder()
        self.encode_ihc = encoder()
        self.weigh_he = weigh()
        self.weigh_ihc = weigh()
        self.fuse = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, padding_mode="reflect"), nn.ReLU())
        self.decode_he = decoder()
        self.decode_ihc = decoder()

    def represent(self, he: Tensor) -> Tensor:
        """Represent H&E images; no IHC is needed, and no decoder runs.

        Parameters
        ----------
        he : (B, 3, H, W) float
            RGB in [0, 1].

        Returns
        -------
        (B, d, H, W) float
            h(H), at least 0. Predictors take it through `to_predictor`.

        Raises
        ------
        ModelError
            If it is no batch of RGB images in float, or they are smaller than `smallest_px`.
        """
        check_images(he, "H&E", self.smallest_px)
        representation: Tensor = self.fuse(self.weigh_he(self.encode_he(self.stem(he))))
        return representation

    def to_predictor(self, representations: Tensor) -> Tensor:
        """Scale representations to [0, 1] as the predictors of this network take them.

        Parameters
        ----------
        representations : (B, d, H, W) float
            Of `represent`.

        Returns
        -------
        (B, d, H, W) float
            ``scaling="field"``: `to_unit_range` of each. ``"training"``: each channel divided by its
            ceiling and cut at 1, whatever else the image holds.
        """
        if self.scaling == "field":
            return to_unit_range(representations)
        return (representations / self.ceiling.view(-1, 1, 1)).clamp(0, 1)

    @torch.no_grad()
    def fit_range(self, batches: Iterable[Tensor]) -> None:
        """Set `ceiling`: the 99.9th percentile of each channel over H&E training images.

        A channel that is 0 on all of them is divided by 1.

        Parameters
        ----------
        batches : iterable of (B, 3, H, W) float
            RGB in [0, 1], of any sizes. Every fourth pixel along each axis counts.

        Raises
        ------
        ModelError
            If there is no image, or the network scales each field by itself.
        """
        if self.scaling != "training":
            raise ModelError(
                "This Corr-A-Net scales each field by itself: it keeps no range of the training."
            )
        learning = self.training
        self.eval()
        sampled = [
            self.represent(batch)[:, :, ::_EVERY_PX, ::_EVERY_PX].transpose(0, 1).flatten(1)
            for batch in batches
        ]
        self.train(learning)
        if not sampled:
            raise ModelError("There is no image to measure the range on: give at least one training image.")
        values = torch.cat(sampled, dim=1)
        rank = min(int(_QUANTILE * values.shape[1]), values.shape[1] - 1)
        highest = values.sort(dim=1).values[:, rank]
        self.ceiling.copy_(torch.where(highest > 0, highest, 1))

    def forward(self, he: Tensor, ihc: Tensor) -> CorrANetOutput:
        """Represent and reconstruct a pair from each of its stains and from both (training).

        Parameters
        ----------
        he, ihc : (B, 3, H, W) float
            RGB in [0, 1] of the same places.

        Returns
        -------
        CorrANetOutput

        Raises
        ------
        ModelError
            As in `represent`, and if the two differ in shape.
        """
        check_pair(he, ihc, self.smallest_px)
        targets = Views(self.stem(he), self.stem(ihc))
        hidden = Views(
            self.weigh_he(self.encode_he(targets.he)), self.weigh_ihc(self.encode_ihc(targets.ihc))
        )
        shared = Representations(
            from_he=self.fuse(hidden.he),
            from_ihc=self.fuse(hidden.ihc),
            from_both=self.fuse((hidden.he + hidden.ihc) / 2),
        )
        together = torch.cat([shared.from_he, shared.from_ihc, shared.from_both])
        he_from_he, he_from_ihc, he_from_both = self.decode_he(together).chunk(3)
        ihc_from_he, ihc_from_ihc, ihc_from_both = self.decode_ihc(together).chunk(3)
        return CorrANetOutput(
            targets=targets,
            hidden=hidden,
            representations=shared,
            self_reconstruction=Views(he_from_he, ihc_from_ihc),
            cross_reconstruction=Views(he_from_ihc, ihc_from_he),
            joint_reconstruction=Views(he_from_both, ihc_from_both),
        )


def to_unit_range(representations: Tensor) -> Tensor:
    """Scale each representation to [0, 1], all its channels together, as predictors take it.

    Parameters
    ----------
    representations : (B, C, H, W) float

    Returns
    -------
    (B, C, H, W) float
        All 0 where a representation is constant.
    """
    lowest = representations.amin(dim=(1, 2, 3), keepdim=True)
    span = representations.amax(dim=(1, 2, 3), keepdim=True) - lowest
    return (representations - lowest) / torch.where(span > 0, span, 1)


def conv_layers(widths: Sequence[int], spread: Sequence[int] | None = None) -> nn.Sequential:
    """Layers of 3 x 3 convolution, batch normalisation and ReLU; beyond its edge an image is mirrored.

    Parameters
    ----------
    widths : sequence of int
        Channels in, and behind each layer.
    spread : sequence of int, optional
        How far around it each layer looks, pixels: its dilation. By default 1.

    Returns
    -------
    nn.Sequential
    """
    layers: list[nn.Module] = []
    spread = spread or (1,) * (len(widths) - 1)
    for (before, behind), far in zip(itertools.pairwise(widths), spread, strict=True):
        conv = nn.Conv2d(before, behind, 3, padding=far, dilation=far, padding_mode="reflect")
        layers += [conv, nn.BatchNorm2d(behind), nn.ReLU()]
    return nn.Sequential(*layers)


def check_dim(dim: int) -> None:
    """Raise ModelError unless d is a positive multiple of 4."""
    if dim < 4 or dim % 4:
        raise ModelError(f"Corr-A-Net takes 8, 16, 32 or another multiple of 4 channels, not {dim}.")


def check_variant(dilation: int, scaling: str) -> None:
    """Raise ModelError unless there is such a variant of Corr-A-Net."""
    if not 1 <= dilation <= MAX_DILATION:
        raise ModelError(f"Corr-A-Net takes a dilation from 1 to {MAX_DILATION}, not {dilation!r:.40}.")
    if scaling not in SCALINGS:
        raise ModelError(f"Corr-A-Net scales by {' or '.join(SCALINGS)}, not by {scaling!r:.40}.")


def check_images(images: Tensor, stain: str, smallest_px: int = KERNEL_PX) -> None:
    """Raise ModelError unless these are RGB images, (B, 3, H, W) float of at least so many px."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ModelError(
            f"Corr-A-Net takes RGB images in [0, 1], float of shape (B, 3, H, W), but the {stain} images are "
            f"{images.dtype} of shape {tuple(images.shape)}."
        )
    if len(images) == 0 or min(images.shape[2:]) < smallest_px:
        raise ModelError(
            f"The {stain} images have shape {tuple(images.shape)}: give at least one, of at least "
            f"{smallest_px} x {smallest_px} pixels."
        )


def check_pair(he: Tensor, ihc: Tensor, smallest_px: int = KERNEL_PX) -> None:
    """Raise ModelError unless both are RGB images, and of the same shape."""
    check_images(he, "H&E", smallest_px)
    check_images(ihc, "IHC", smallest_px)
    if he.shape != ihc.shape:
        raise ModelError(
            f"H&E and IHC must show the same place, but their shapes are {tuple(he.shape)} and "
            f"{tuple(ihc.shape)}: pair the images by name and give both the same size."
        )
