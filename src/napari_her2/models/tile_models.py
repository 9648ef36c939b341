"""Heads that score each tile by itself: pixels go in, the logits of each tile come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from napari_her2.models.corr_a_net import CorrANet
    from napari_her2.models.predictors import Predictor


class TileModel(nn.Module, ABC):
    """A head that scores each tile by itself, by its last layers over features that it makes of the tile."""

    @property
    @abstractmethod
    def width(self) -> int:
        """F, numbers that describe a tile ahead of the last layers."""

    @abstractmethod
    def tile_features(self, tiles: Tensor) -> Tensor:
        """Describe tiles.

        Parameters
        ----------
        tiles : (B, 3, h, h) float
            RGB in [0, 1].

        Returns
        -------
        (B, F) float
            What the last layers take.
        """

    @abstractmethod
    def logits_of(self, features: Tensor) -> Tensor:
        """Predict from what `tile_features` gives.

        Parameters
        ----------
        features : (B, F) float

        Returns
        -------
        (B, n) float
            What is kept of each tile: logits of the classes first.
        """

    def tile_logits(self, tiles: Tensor) -> Tensor:
        """Predict tiles: (B, n) float as of `logits_of`, of tiles as for `tile_features`."""
        return self.logits_of(self.tile_features(tiles))


class FieldHead(TileModel):
    """A head that scores fields by what it makes of them first: Grad-CAM explains the predictor behind it.

    Attributes
    ----------
    network : CorrANet or None
        None where the predictor takes the pixels themselves.
    predictor : Predictor
    field_px : int
        Side of the fields.
    """

    network: CorrANet | None
    predictor: Predictor
    field_px: int

    @abstractmethod
    def represent(self, fields: Tensor) -> Tensor:
        """Make of (B, 3, H, W) float in [0, 1] what the predictor takes."""
