"""Models that score each tile by itself, as embedding and its cache see them.

They are `exact`: scores are computed in float32 on every device. Features are kept as float16, which is too
coarse for logits: each number travels as a float16 and, in the second half of the vector, what that lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from napari_her2.models.weights_file import weights_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.models.preprocessing import TilePreparation
    from napari_her2.models.tile_models import TileModel


@dataclass(frozen=True, slots=True)
class TileSizes:
    """Side of the tiles that go in, pixels, and length of what comes out."""

    tile_px: int
    dim: int


class TileScorer(nn.Module):
    """A model of single tiles as embedding sees it: tiles of a slide go in, the logits of each come out.

    Parameters
    ----------
    model : TileModel
    preparation : TilePreparation
        With the stain transform of the slide, where it has one.
    numbers : int
        Logits of a tile.
    cache_salt : str
        What else than the weights decides the logits: part of the key under which they are kept.
    """

    exact = True

    def __init__(
        self, model: TileModel, preparation: TilePreparation, *, numbers: int, cache_salt: str
    ) -> None:
        super().__init__()
        self.spec = TileSizes(preparation.tile_px, 2 * numbers)
        self.model = model
        self.prepare = preparation
        self.cache_salt = cache_salt

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, t, t, 3) uint8 to (B, 2 numbers) float32: each number in two parts."""
        return packed(self.model.tile_logits(self.prepare(tiles)))

    def fingerprint(self) -> str:
        """SHA-256 over the weights and what else decides the logits, in hexadecimal."""
        return weights_digest(self.model.state_dict(), self.cache_salt)


def packed(numbers: Tensor) -> Tensor:
    """(B, n) float to (B, 2 n) float32 that float16 keeps to about 2^-22 of each number."""
    numbers = numbers.float()
    coarse = numbers.half().float()
    return torch.cat([coarse, numbers - coarse], dim=1)


def unpacked(features: NDArray[np.float16]) -> Tensor:
    """(N, 2 n) float16 of `packed` to (N, n) float64."""
    coarse, rest = torch.from_numpy(features.astype(np.float64)).chunk(2, dim=1)
    return coarse + rest
