"""Models that score each tile by itself, as embedding and its cache see them.

They are `exact`: scores are computed in float32 on every device. Features are kept as float16, which is too
coarse for logits: each number travels as a float16 and, in the second half of the vector, what that lacks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from napari_her2.errors import JobFailed
from napari_her2.models.preprocessing import TilePreparation
from napari_her2.models.weights_file import weights_digest
from napari_her2.slide.macenko import IDENTITY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.models.card import ModelCard
    from napari_her2.slide.macenko import StainTransform

STAGE = "Scoring tiles"


@dataclass(frozen=True, slots=True)
class TileSizes:
    """Side of the tiles that go in, pixels, and length of what comes out."""

    tile_px: int
    dim: int


class TileScorer(nn.Module, ABC):
    """A model of single tiles as embedding sees it: tiles of a slide go in, what it says of each comes out.

    Parameters
    ----------
    model : nn.Module
    numbers : int
        That it says of a tile.
    tile_px, out_px : int
        Side of the tiles, and of what the model takes.
    transform : StainTransform
        Of the slide; by default colours stay as scanned.
    """

    exact = True

    def __init__(
        self,
        model: nn.Module,
        *,
        numbers: int,
        tile_px: int,
        out_px: int,
        transform: StainTransform = IDENTITY,
    ) -> None:
        super().__init__()
        self.spec = TileSizes(tile_px, 2 * numbers)
        self.model = model
        self.transform = transform
        plain = transform.is_identity
        self.prepare = TilePreparation(
            tile_px=tile_px,
            out_px=out_px,
            matrix=None if plain else transform.matrix,
            offset=None if plain else transform.offset,
        )

    @abstractmethod
    def say(self, tiles: Tensor) -> Tensor:
        """(B, 3, out_px, out_px) float in [0, 1] to (B, numbers) float."""

    @abstractmethod
    def told(self) -> str:
        """Tell its numbers from those of another model with the same weights."""

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, t, t, 3) uint8 to (B, 2 numbers) float32: each number in two parts."""
        return packed(self.say(self.prepare(tiles)))

    def fingerprint(self) -> str:
        """SHA-256 over the weights and what else decides the numbers, in hexadecimal."""
        return weights_digest(self.model.state_dict(), self.told())


def packed(numbers: Tensor) -> Tensor:
    """(B, n) float to (B, 2 n) float32 that float16 keeps to about 2^-22 of each number."""
    numbers = numbers.float()
    coarse = numbers.half().float()
    return torch.cat([coarse, numbers - coarse], dim=1)


def unpacked(features: NDArray[np.float16]) -> Tensor:
    """(N, 2 n) float16 of `packed` to (N, n) float64."""
    coarse, rest = torch.from_numpy(features.astype(np.float64)).chunk(2, dim=1)
    return coarse + rest


def refuse_nonsense(numbers: Tensor, card: ModelCard) -> None:
    """Refuse what is not a number.

    Parameters
    ----------
    numbers : Tensor
    card : ModelCard

    Raises
    ------
    JobFailed
    """
    if not bool(torch.isfinite(numbers).all()):
        raise JobFailed(
            f"{card.name} gave values that are not numbers: check it with `napari-her2 models verify`."
        )
