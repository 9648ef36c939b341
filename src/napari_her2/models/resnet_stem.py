"""The first block of ResNet-50 at full resolution: the fixed eyes of Corr-A-Net.

He et al., Deep residual learning for image recognition, 2016 (arXiv:1512.03385). Convolution 7 x 7 to 64
channels, batch normalisation and ReLU, with ImageNet's kernels, fixed. Corr-A-Net (Dutta et al. 2025)
reads H&E and IHC through it and reconstructs what it gives: 256 px tiles become 64 x 256 x 256.

Differences from the paper
--------------------------
- Dutta et al. state the size of what comes out, which ResNet-50 gives at a quarter of it. Here the
  kernels are those of ResNet-50, applied at every pixel (stride 1) and without the pooling behind them.
- Each channel is divided by a fixed ceiling, the 99.9th percentile of its values over the training
  images, and cut at 1, so that structural similarity has a known range of values.
- Beyond its edge an image is seen mirrored, not as the mean colour: the edge answers like the middle.
- ImageNet's kernels may be out of reach. Random ones serve tests and comparisons. `ResNetStem.fit_kernels`
  learns kernels from the training images, without labels: the first 32 principal components of their
  patches (Chan et al., PCANet, 2015, arXiv:1404.3606), each with both signs, since the ReLU leaves half.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_her2.errors import ModelError
from napari_her2.models.normalisations import IMAGENET
from napari_her2.models.timm_backbones import fetch
from napari_her2.models.weights_file import check_tensors, read_weights

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

STEM_CHANNELS = 64
KERNEL_PX = 7

_PATCHES_PER_IMAGE = 512
_LEAST_VARIANCE = 1e-4  # of a component, in squared deviations of ImageNet's colours
_QUANTILE = 0.999
_BINS = 8192
# Some of ImageNet's channels hardly answer to anything: scaled to [0, 1] they would be noise.
_LOWEST_CEILING = 1e-3


class ResNetStem(nn.Module):
    """Pixels to 64 channels in [0, 1] of the same size, fixed.

    Layers are named as in torchvision, so that the weights of a ResNet-50 fit by name.

    Attributes
    ----------
    ceiling : (64,) float buffer
        What counts as 1 in each channel; travels with the weights. Ones until `fit_ceiling`.

    Examples
    --------
    >>> ResNetStem()(torch.zeros(1, 3, 40, 48)).shape
    torch.Size([1, 64, 40, 48])
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, KERNEL_PX, padding=KERNEL_PX // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.ceiling: Tensor
        self.shift: Tensor
        self.spread: Tensor
        self.register_buffer("ceiling", torch.ones(STEM_CHANNELS))
        colours = IMAGENET
        self.register_buffer("shift", torch.tensor(colours.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("spread", torch.tensor(colours.std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Look at images.

        Parameters
        ----------
        images : (B, 3, H, W) float
            RGB in [0, 1].

        Returns
        -------
        (B, 64, H, W) float
            In [0, 1], channels_last.
        """
        kernels, bias = self._folded()
        answers = self._convolve(images, kernels / self.ceiling.view(-1, 1, 1, 1), bias / self.ceiling)
        # Both the ReLU and the cut at 1, in place: this is the largest tensor of the whole network.
        return answers.clamp_(0, 1)

    def fit_ceiling(self, batches: Iterable[Tensor], *, quantile: float = _QUANTILE) -> None:
        """Set `ceiling` from the training images of both stains, in one pass and little memory.

        Parameters
        ----------
        batches : iterable of (B, 3, H, W) float
            RGB in [0, 1], of any sizes.
        quantile : float, default 0.999
            Found from a histogram, to one part in 8192 of the strongest answer a kernel can give.

        Raises
        ------
        ModelError
            If there is no image.
        """
        kernels, bias = self._folded()
        darkest, lightest = -self.shift / self.spread, (1 - self.shift) / self.spread
        strongest = torch.maximum(kernels * darkest, kernels * lightest).sum(dim=(1, 2, 3)) + bias
        width = strongest.clamp_min(torch.finfo(strongest.dtype).tiny) / _BINS
        counts = torch.zeros(STEM_CHANNELS * _BINS, dtype=torch.int64, device=width.device)
        first = torch.arange(STEM_CHANNELS, device=width.device).view(-1, 1, 1) * _BINS
        with torch.no_grad():
            for batch in batches:
                for image in batch.to(width.device):
                    answers = self._convolve(image[None], kernels, bias)[0].relu_()
                    bins = (answers / width.view(-1, 1, 1)).long().clamp_(max=_BINS - 1)
                    counts += torch.bincount((bins + first).flatten(), minlength=len(counts))
        below = counts.view(STEM_CHANNELS, _BINS).cumsum(dim=1)
        if not int(below[0, -1]):
            raise ModelError("There is no image to measure the stem on: give at least one training image.")
        # The upper edge of the bin in which the quantile falls.
        rank = torch.ceil(quantile * below[:, -1:].cpu().double()).long().to(below.device)
        ceiling = (torch.searchsorted(below, rank).squeeze(1) + 1) * width
        self.ceiling.copy_(ceiling.clamp_min(_LOWEST_CEILING * float(ceiling.max())))

    @torch.no_grad()
    def fit_kernels(self, batches: Iterable[Tensor], *, seed: int) -> None:
        """Learn the kernels from images of both stains: principal components of their 7 x 7 patches.

        What a kernel answers then has the mean 0 and the variance 1 over these patches.

        Parameters
        ----------
        batches : iterable of (B, 3, H, W) float
            RGB in [0, 1], of any sizes from 7 px.
        seed : int
            Of which patches are looked at: 512 of each image.

        Raises
        ------
        ModelError
            If there is no image.
        """
        generator = torch.Generator().manual_seed(seed)
        drawn = []
        for image in itertools.chain.from_iterable(batches):
            pixels = (image.cpu() - self.shift[0].cpu()) / self.spread[0].cpu()
            windows = pixels.unfold(1, KERNEL_PX, 1).unfold(2, KERNEL_PX, 1)
            rows, columns = windows.shape[1:3]
            chosen = torch.randint(rows * columns, (_PATCHES_PER_IMAGE,), generator=generator)
            drawn.append(windows[:, chosen // columns, chosen % columns].transpose(0, 1).flatten(1).double())
        if not drawn:
            raise ModelError("There is no image to learn the stem from: give at least one training image.")
        patches = torch.cat(drawn)
        mean = patches.mean(dim=0)
        variances, components = torch.linalg.eigh(torch.cov(patches.T))
        # The largest come last. A sign of its own for each, so that no library decides it.
        strongest = components[:, -(STEM_CHANNELS // 2) :].flip(1).T
        at_peak = strongest.gather(1, strongest.abs().argmax(dim=1, keepdim=True))
        strongest = strongest * at_peak.sign()
        spread = variances[-(STEM_CHANNELS // 2) :].flip(0).clamp_min(_LEAST_VARIANCE)
        kernels = torch.cat([strongest, -strongest])
        norm = self.bn1
        self.conv1.weight.copy_(kernels.view_as(self.conv1.weight))
        norm.running_mean.copy_(kernels @ mean)  # type: ignore[union-attr]
        norm.running_var.copy_(torch.cat([spread, spread]))  # type: ignore[union-attr]
        norm.weight.fill_(1)
        norm.bias.zero_()
        self.ceiling.fill_(1)

    def load(self, weights: Literal["pretrained"] | Path) -> ResNetStem:
        """Take the first kernels of a ResNet-50.

        Parameters
        ----------
        weights : "pretrained" or Path
            "pretrained" may download ImageNet's (torchvision, IMAGENET1K_V1); a path is a .safetensors
            file of a ResNet-50, whole or its first layers alone.

        Returns
        -------
        ResNetStem
            Itself. The ceiling of other kernels does not fit: it is ones again.

        Raises
        ------
        ModelError
            If the weights cannot be had, or are not those of a ResNet-50.
        """
        if isinstance(weights, str):
            from torchvision.models import ResNet50_Weights  # seconds to import: only for those who need it

            found = fetch(lambda: ResNet50_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True), "ResNet-50")
            source = "the weights of torchvision"
        else:
            found, source = read_weights(weights).tensors, weights.name
        names = ("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var")
        given = {
            name: tensor for key, tensor in found.items() if (name := key.removeprefix("module.")) in names
        }
        wanted = {name: tensor for name, tensor in self.state_dict().items() if name in names}
        check_tensors(wanted, given, source)
        self.load_state_dict(given, strict=False)
        self.ceiling.fill_(1)
        return self

    def _folded(self) -> tuple[Tensor, Tensor]:
        """Kernels and bias that do the work of the convolution and of its normalisation.

        Always by the stored mean and variance: training mode changes nothing here.
        """
        norm = self.bn1
        mean, variance = norm.running_mean, norm.running_var
        if mean is None or variance is None:
            raise ModelError("The stem lost its stored mean and variance: load its weights again.")
        gain = norm.weight / torch.sqrt(variance + norm.eps)
        return self.conv1.weight * gain.view(-1, 1, 1, 1), norm.bias - mean * gain

    def _convolve(self, images: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        # Twice as fast as the plain layout on a CPU, and the following layers keep it.
        pixels = images.contiguous(memory_format=torch.channels_last)
        edge = KERNEL_PX // 2
        mirrored = F.pad((pixels - self.shift) / self.spread, (edge, edge, edge, edge), mode="reflect")
        return F.conv2d(mirrored, kernels, bias)
