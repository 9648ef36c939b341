"""TransMIL over a bag so large that it is attended to by pieces; see `napari_her2.models.nystrom_streaming`.

Of the tokens one copy is made: what they are behind the first attention, which the convolutions change in
place, some channels at a time. Of the second attention only what the class token becomes is computed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from napari_her2.models.nystrom_streaming import PIECE

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS = 8


def scored_by_pieces(model: Any, tiles: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - see below
    """Score a bag.

    Parameters
    ----------
    model : TransMIL
        In evaluation mode. Its module imports this one, which therefore does not name its class.
    tiles : (K, W) float
        Ahead of any attention; left as they are.

    Returns
    -------
    logits : (C,) float
    row : (K,) float
        Attention that the class token pays to each tile.
    """
    number = len(tiles)
    side = math.ceil(math.sqrt(number))
    count = side**2 + 1

    def given(start: int, stop: int) -> Tensor:
        """Tokens ahead of the first attention: of the class, of the tiles, and of the first tiles again."""
        first, last = max(start - 1, 0), stop - 1
        parts = [tiles[first : min(last, number)], tiles[max(first - number, 0) : max(last - number, 0)]]
        return torch.cat([model.token[None].to(tiles.dtype), *parts] if start == 0 else parts)

    tokens = tiles.new_empty(count, tiles.shape[1])
    attention = model.first.streamed(lambda start, stop: model.first.norm(given(start, stop)), count)
    for start in range(0, count, PIECE):
        stop = min(start + PIECE, count)
        tokens[start:stop] = given(start, stop) + model.first.project(attention.mixed(start, stop))
    position_in_place(model.position, tokens[1:])
    attention = model.second.streamed(lambda start, stop: model.second.norm(tokens[start:stop]), count)
    row = attention.row_of(0)[1 : number + 1]
    token = tokens[0] + model.second.project(attention.mixed(0, 1))[0]
    logits: Tensor = model.classifier(model.norm(token))
    return logits, row


def position_in_place(position: Any, tiles: Tensor) -> None:  # noqa: ANN401 - see below
    """Do what `PPEG` does, in place and by channels, none of which depends on another.

    Parameters
    ----------
    position : PPEG
        Of that module.
    tiles : (side^2, W) float
    """
    side, (kernel, bias) = math.isqrt(len(tiles)), position.joined()
    for start in range(0, tiles.shape[1], CHANNELS):
        some = slice(start, start + CHANNELS)
        plane = tiles[:, some].T.reshape(1, -1, side, side)
        padding = kernel.shape[-1] // 2
        mixed = F.conv2d(plane, kernel[some], bias[some], padding=padding, groups=plane.shape[1])
        tiles[:, some] = mixed[0].flatten(1).T
