"""Maps as masks: scaled, ranked, cut at their half, and moved elsewhere as a control.

Measures of faithfulness hide what a map calls unimportant, or what it calls important. How much that changes
depends on how much is hidden and how finely it is scattered too, so that each needs a control with the same
values and the same texture in other places: the map moved around its field.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_her2.models.corr_a_net import to_unit_range


def unit_maps(maps: Tensor) -> Tensor:
    """Scale each map to [0, 1] by its own minimum and maximum, as masks need it.

    Parameters
    ----------
    maps : (B, H, W) float

    Returns
    -------
    (B, H, W) float
        All 0 where a map is constant: it singles nothing out.
    """
    return to_unit_range(maps[:, None])[:, 0]


def move_maps(maps: Tensor, *, generator: torch.Generator) -> Tensor:
    """Move each map by a way of its own; what leaves on one side comes back on the other.

    A permutation of the pixels that keeps neighbours together: same values, same mean, same texture.

    Parameters
    ----------
    maps : (B, H, W)
    generator : torch.Generator
        On the CPU, so that every device draws the same.

    Returns
    -------
    (B, H, W)
    """
    count, height, width = maps.shape
    down = torch.randint(height, (count, 1), generator=generator) + torch.arange(height)
    right = torch.randint(width, (count, 1), generator=generator) + torch.arange(width)
    of = torch.arange(count)[:, None, None]
    return maps[of, (down % height)[:, :, None], (right % width)[:, None, :]]


def pixel_ranks(maps: Tensor, *, generator: torch.Generator) -> Tensor:
    """Rank the pixels of each map, the highest first.

    Parameters
    ----------
    maps : (B, H, W) float
    generator : torch.Generator
        On the CPU. Draws among equal pixels: the order of a flat map is chance, not that of its rows.

    Returns
    -------
    (B, H, W) int64
        0 at the highest pixel, H W - 1 at the lowest.
    """
    flat = maps.flatten(1)
    drawn = torch.rand(flat.shape, generator=generator).argsort(dim=1).to(flat.device)
    order = drawn.gather(1, flat.gather(1, drawn).argsort(dim=1, descending=True, stable=True))
    places = torch.arange(flat.shape[1], device=flat.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view(maps.shape)


def upper_half(maps: Tensor, *, generator: torch.Generator) -> Tensor:
    """Mark the half of the pixels where each map is highest.

    Parameters
    ----------
    maps : (B, H, W) float
    generator : torch.Generator
        As for `pixel_ranks`.

    Returns
    -------
    (B, H, W) bool
        True at H W // 2 pixels of each map.
    """
    return pixel_ranks(maps, generator=generator) < maps[0].numel() // 2 if len(maps) else maps.bool()
