"""Bags of tiles: drawing them, and how much an answer depends on the draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.models.aggregator import SlideAggregator

BAG_SIZE = 100
DRAWS = 20


@dataclass(frozen=True, slots=True, eq=False)
class BagUncertainty:
    """How much the answer depends on which tiles are seen: class probabilities over repeated random bags.

    Parameters
    ----------
    mean, sd : (C,) float32
        Mean and standard deviation (n - 1) over the draws.
    draws, bag_size : int
    """

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]
    draws: int
    bag_size: int


def draw_bags(tiles: int, *, draws: int, bag_size: int, seed: int) -> NDArray[np.int64]:
    """Draw random bags, each without replacement.

    Parameters
    ----------
    tiles : int
        Number of tiles to draw from.
    draws, bag_size : int
    seed : int

    Returns
    -------
    (draws, bag_size) int64
        Tile numbers, rising in each bag: some models look at the order of tiles.

    Raises
    ------
    ModelError
        If there are fewer tiles than a bag holds.
    """
    if tiles < bag_size:
        raise ModelError(
            f"A bag of {bag_size} tiles cannot be drawn from {tiles}: use a slide with more tissue."
        )
    rng = np.random.default_rng(seed)
    return np.stack([np.sort(rng.choice(tiles, bag_size, replace=False)) for _ in range(draws)])


def tile_uncertainty(
    head: SlideAggregator,
    tiles: Sequence[Tensor],
    draws: int = DRAWS,
    bag_size: int = BAG_SIZE,
    seed: int = 0,
    temperature: float = 1.0,
) -> BagUncertainty | None:
    """How much the answer depends on which tiles are seen, of tiles that the head has looked at.

    Parameters
    ----------
    head : SlideAggregator
    tiles : sequence of (N, any) Tensor
        What ``head.tiles`` made of the bag, where the head is.
    draws : int, default 20
        At least 2.
    bag_size : int, default 100
    seed : int, default 0
    temperature : float, default 1
        That the logits are divided by.

    Returns
    -------
    BagUncertainty or None
        None with fewer tiles than one bag.
    """
    count, place = len(tiles[0]), tiles[0].device
    if count < bag_size or draws < 2:
        return None
    chosen = torch.from_numpy(draw_bags(count, draws=draws, bag_size=bag_size, seed=seed)).to(place)
    with torch.inference_mode(), torch.autocast(place.type, enabled=False):
        logits = head.of_tiles(*(part[chosen] for part in tiles)).logits
    probabilities = torch.softmax(logits / temperature, dim=-1)
    return BagUncertainty(
        mean=probabilities.mean(0).float().cpu().numpy(),
        sd=probabilities.std(0).float().cpu().numpy(),
        draws=draws,
        bag_size=bag_size,
    )
