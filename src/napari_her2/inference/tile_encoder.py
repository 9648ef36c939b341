"""What an encoder of tiles has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn


class TileSpec(Protocol):
    """Sizes of tiles and of what comes out."""

    @property
    def tile_px(self) -> int:
        """Side of a tile, pixels."""

    @property
    def dim(self) -> int:
        """Numbers a tile."""


class TileEncoder(Protocol):
    """What turns tiles into numbers: an `nn.Module` as `napari_her2.models.patch_encoder.PatchEncoder`."""

    @property
    def spec(self) -> TileSpec:
        """Its sizes."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(B, t, t, 3) uint8 to (B, D) float."""

    @property
    def exact(self) -> bool:
        """Whether it gives scores, which are never computed in lower precision, rather than features."""

    def fingerprint(self) -> str:
        """Tell it from all others: whoever shares it gives the same numbers."""

    def to(self, device: torch.device) -> nn.Module:
        """Move it to a device."""

    def eval(self) -> nn.Module:
        """Enter evaluation mode."""
