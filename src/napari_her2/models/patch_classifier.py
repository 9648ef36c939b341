"""Patches of a slide classified one by one: the arm that scoring from one small image is compared with.

Chauhan et al., Low-resolution against high-resolution scoring of HER2 IHC, 2025 (arXiv:2503.22069), compare
a ConvNeXt on an image of the whole slide with classifiers of patches whose answers are joined. Here it is
the same ConvNeXt (`napari_her2.models.convnext`) on every patch; each patch is taught the score of its slide.

The answers are joined by `napari_her2.methods.patches`: the mean of the probabilities, or a vote.

Differences from the paper
--------------------------
- The abstract states neither network, size, µm/px nor rule of this arm: patches of 512 px at 1 µm/px, the
  backbone of the other arm and both rules are our choice, so that only the way of looking differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from napari_her2.errors import ModelError
from napari_her2.models.convnext import STRIDE, Normalise, build_convnext
from napari_her2.models.tile_models import TileModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

Fusion = Literal["mean", "vote"]
FUSIONS: Mapping[Fusion, str] = {
    "mean": "mean of the probabilities of all patches",
    "vote": "majority vote of the patches; the probability of a class is its share of the votes",
}
"""How answers of patches become that of the slide, in words."""
TILE_PX = 512
MPP = 1.0
"""Side of a patch, pixels, and µm per pixel, where nothing else is wanted."""


class PatchConvNeXt(TileModel):
    """ConvNeXt on single patches.

    Parameters
    ----------
    variant : str, default "tiny"
        One of `napari_her2.models.convnext.VARIANTS`.
    classes : int, default 4
    tile_px : int, default 512
        Side of a patch, pixels: a multiple of 32.
    fusion : {"mean", "vote"}, default "mean"
        How the patches of a slide are joined; see `FUSIONS`. It has no weights.
    drop_path : float, default 0
        While training.

    Raises
    ------
    ModelError
        If the arguments make no sense.

    Examples
    --------
    >>> import torch
    >>> head = PatchConvNeXt(variant="atto", classes=3, tile_px=64)
    >>> head(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        *,
        variant: str = "tiny",
        classes: int = 4,
        tile_px: int = TILE_PX,
        fusion: str = "mean",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if tile_px < STRIDE or tile_px % STRIDE:
            raise ModelError(f"Patches have a side of a multiple of {STRIDE} px, not {tile_px} px.")
        if fusion not in FUSIONS:
            raise ModelError(f"Patches are joined by {' or '.join(FUSIONS)}, not by {fusion!r:.40}.")
        self.normalise = Normalise()
        self.network = build_convnext(variant, classes, drop_path=drop_path)
        self.classes = classes
        self.tile_px = tile_px
        self.fusion = cast("Fusion", fusion)

    def forward(self, tiles: Tensor) -> Tensor:
        """Score patches.

        Parameters
        ----------
        tiles : (B, 3, t, t) float
            RGB in [0, 1].

        Returns
        -------
        (B, C) float
            Logits.
        """
        return self.logits_of(self.tile_features(tiles))

    @property
    def width(self) -> int:
        """Numbers that describe a patch."""
        return int(self._network.num_features)

    def tile_features(self, tiles: Tensor) -> Tensor:
        """Pooled features of patches, (B, F); ``tiles`` as for `forward`."""
        maps = self._network.forward_features(self.normalise(tiles))
        features: Tensor = self._network.forward_head(maps, pre_logits=True)
        return features

    def logits_of(self, features: Tensor) -> Tensor:
        """Return logits of the classes, (B, C)."""
        logits: Tensor = self._network.get_classifier()(features)
        return logits

    @property
    def _network(self) -> Any:  # noqa: ANN401 - what timm builds has more than a Module
        return self.network
