"""Models that score each tile by itself, as embedding and its cache see them.

They are `exact`: scores are computed in float32 on every device. Features are kept as float16, which is too
coarse for logits: each number travels as a float16 and, in a second vector behind the first, what that lacks.
Where the features ahead of the last layers are wanted too, they stand behind both, as they are.
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
    features : bool, default False
        Whether the features of each tile are given behind its logits. They are kept under a key of their own.
    """

    exact = True

    def __init__(
        self,
        model: TileModel,
        preparation: TilePreparation,
        *,
        numbers: int,
        cache_salt: str,
        features: bool = False,
    ) -> None:
        super().__init__()
        self.spec = TileSizes(preparation.tile_px, 2 * numbers + (model.width if features else 0))
        self.model = model
        self.prepare = preparation
        self.features = features
        self.cache_salt = f"{cache_salt} with features" if features else cache_salt

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, t, t, 3) uint8 to (B, 2 numbers) float32, each number in two parts, then features if wanted."""
        prepared = self.prepare(tiles)
        if not self.features:
            return packed(self.model.tile_logits(prepared))
        features = self.model.tile_features(prepared)
        return torch.cat([packed(self.model.logits_of(features)), features.float()], dim=1)

    def fingerprint(self) -> str:
        """SHA-256 over the weights and what else decides the logits, in hexadecimal."""
        return weights_digest(self.model.state_dict(), self.cache_salt)


def packed(numbers: Tensor) -> Tensor:
    """(B, n) float to (B, 2 n) float32 that float16 keeps to about 2^-22 of each number."""
    numbers = numbers.float()
    coarse = numbers.half().float()
    return torch.cat([coarse, numbers - coarse], dim=1)


def unpacked(kept: NDArray[np.float16], numbers: int | None = None) -> Tensor:
    """Return the numbers of tiles.

    Parameters
    ----------
    kept : (N, 2 n) or (N, 2 n + F) float16
        Of `packed`, with features behind them or not.
    numbers : int, optional
        n; half of what there is where nothing stands behind.

    Returns
    -------
    (N, n) float64
    """
    width = kept.shape[1] if numbers is None else 2 * numbers
    coarse, rest = torch.from_numpy(kept[:, :width].astype(np.float64)).chunk(2, dim=1)
    return coarse + rest


def features_behind(kept: NDArray[np.float16], numbers: int) -> NDArray[np.float16]:
    """Return the features that stand behind n numbers, (N, F); none where they were not wanted.

    Parameters
    ----------
    kept : (N, 2 n + F) float16
    numbers : int
        n.
    """
    return kept[:, 2 * numbers :]
