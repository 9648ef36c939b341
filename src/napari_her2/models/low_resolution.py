"""A slide scored from one small image of all its tissue: ConvNeXt at low resolution.

Chauhan et al., Low-resolution against high-resolution scoring of HER2 IHC, 2025 (arXiv:2503.22069): one
image of the whole IHC slide goes through a ConvNeXt, end to end, into 0 / Low / High. How the image is made
is in `napari_her2.slide.thumbnail`.

At such a resolution no membrane is visible, only how much brown there is, averaged over areas, and how it is
laid out: 3+ is told from the rest with ease, 0 from 1+ poorly (Scheel et al. 2018, PMC5848460).

Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) takes the last map A of the network. Behind it stand the
mean over its N pixels, LayerNorm and one linear layer, so the slope of a logit is the same at every pixel
and can be written down. With g the mean of A, x its normalisation, v the weights of the class times those
of the LayerNorm, and D channels::

    dy/dg = (v - mean(v) - x mean(v x)) / sqrt(var(g) + eps),    map = sum over d of dy/dg_d A_d / N

LayerNorm does not care how large g is, so the signed map sums to nearly zero over the image: it tells where
the image speaks more for the class than it does on average, and never how much speaks for it.

Differences from the paper
--------------------------
- The abstract states neither the size of the network, the resolution, nor the classes' rule for 2+: sizes,
  µm/px and classes are arguments, and what was trained stands in the card.
- The mean over eight views (four turns, mirrored or not) and Grad-CAM are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from napari_her2.errors import ModelError
from napari_her2.models.convnext import STRIDE, Normalise, build_convnext

if TYPE_CHECKING:
    from collections.abc import Iterator

MODES = ("fit", "fixed")
"""How images are made; the names are those of `napari_her2.slide.thumbnail`."""
VIEWS = 8
"""Four turns, each mirrored or not."""
LARGEST_PX = 4096


@dataclass(frozen=True, slots=True, eq=False)
class CamMaps:
    """Grad-CAM of a class.

    Parameters
    ----------
    signed : (B, S/32, S/32) float
        In logits; what speaks against the class is below 0. Sums to nearly 0 over an image.
    """

    signed: Tensor

    @property
    def positive(self) -> Tensor:
        """(B, S/32, S/32) float, at least 0: Grad-CAM as published."""
        return self.signed.clamp_min(0)


def view(images: Tensor, number: int) -> Tensor:
    """Turn and mirror images.

    Parameters
    ----------
    images : (..., S, S)
    number : int
        0 to 7: quarter turns, the last four mirrored before them.

    Returns
    -------
    (..., S, S)
    """
    turned = images.flip(-1) if number >= VIEWS // 2 else images
    return turned.rot90(number % (VIEWS // 2), dims=(-2, -1))


def unview(maps: Tensor, number: int) -> Tensor:
    """Undo `view`, on images or on maps over them."""
    turned = maps.rot90(-(number % (VIEWS // 2)), dims=(-2, -1))
    return turned.flip(-1) if number >= VIEWS // 2 else turned


def dihedral(images: Tensor) -> Iterator[Tensor]:
    """Yield the eight views of images (..., S, S), one after the other."""
    for number in range(VIEWS):
        yield view(images, number)


class LowResolution(nn.Module):
    """ConvNeXt on small images of whole slides.

    Parameters
    ----------
    variant : str
        One of `napari_her2.models.convnext.VARIANTS`.
    classes : int
    size_px : int
        Side of the images: a multiple of 32.
    mode : {"fit", "fixed"}
        How the images are made, see `napari_her2.slide.thumbnail`.
    whiten : bool
        Whether what is no tissue is white in them.
    drop_path : float, default 0
        While training.
    """

    def __init__(
        self,
        *,
        variant: str = "tiny",
        classes: int = 3,
        size_px: int = 1024,
        mode: str = "fit",
        whiten: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if size_px % STRIDE or not STRIDE <= size_px <= LARGEST_PX:
            raise ModelError(
                f"A model of low resolution takes images whose side is a multiple of {STRIDE} px up to "
                f"{LARGEST_PX} px, not {size_px} px."
            )
        if mode not in MODES:
            raise ModelError(
                f"Images of a slide are made in the modes {' or '.join(MODES)}, not {mode!r:.40}."
            )
        self.normalise = Normalise()
        self.network = build_convnext(variant, classes, drop_path=drop_path)
        self.classes = classes
        self.size_px = size_px
        self.mode = mode
        self.whiten = whiten

    def forward(self, images: Tensor) -> Tensor:
        """Score images.

        Parameters
        ----------
        images : (B, 3, S, S) float
            RGB in [0, 1].

        Returns
        -------
        (B, C) float
            Logits.
        """
        logits: Tensor = self._network.forward_head(self.features(images))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Last map of the network, (B, D, S/32, S/32), of images as for `forward`."""
        maps: Tensor = self._network.forward_features(self.normalise(images))
        return maps

    def cam(self, images: Tensor, class_index: int) -> CamMaps:
        """Grad-CAM of a class; whether gradients are recorded does not matter.

        Parameters
        ----------
        images : (B, 3, S, S) float
            RGB in [0, 1].
        class_index : int

        Returns
        -------
        CamMaps

        Raises
        ------
        ModelError
            If there is no such class.
        """
        if not 0 <= class_index < self.classes:
            raise ModelError(
                f"The model knows classes 0 to {self.classes - 1}: choose one of them to explain."
            )
        return CamMaps(self.explained(images)[1][:, class_index])

    def explained(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score, explain and describe images in one pass.

        Parameters
        ----------
        images : (B, 3, S, S) float
            RGB in [0, 1].

        Returns
        -------
        logits : (B, C) float
        signed : (B, C, S/32, S/32) float
            Grad-CAM of every class without its ReLU, see `CamMaps`.
        pooled : (B, D) float
            What the last layer takes.
        """
        maps = self.features(images)
        logits: Tensor = self._network.forward_head(maps)
        pixels = maps.shape[-2] * maps.shape[-1]
        weights = self._slopes(maps.mean(dim=(2, 3))) / pixels
        pooled: Tensor = self._network.forward_head(maps, pre_logits=True)
        return logits, torch.einsum("bcd,bdhw->bchw", weights, maps), pooled

    @property
    def _network(self) -> Any:  # noqa: ANN401 - what timm builds has more than a Module
        return self.network

    def _slopes(self, pooled: Tensor) -> Tensor:
        """dy/dg of every class: (B, D) means of the map to (B, C, D)."""
        head = self._network.head
        norm, linear = head.norm, head.fc
        centred = pooled - pooled.mean(dim=1, keepdim=True)
        scale = (centred.square().mean(dim=1, keepdim=True) + norm.eps).rsqrt()
        x = (centred * scale)[:, None]
        v = (linear.weight * norm.weight)[None]
        slopes: Tensor = v - v.mean(dim=-1, keepdim=True) - x * (v * x).mean(dim=-1, keepdim=True)
        scaled: Tensor = slopes * scale[:, None]
        return scaled
