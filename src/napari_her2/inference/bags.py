"""The tiles of several slides as one bag, and what was found in it given back to the slides."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_her2.models.aggregator import MILOutput


def one_bag(slides: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Put what a head made of the tiles of each slide together, slide after slide.

    Parameters
    ----------
    slides : sequence of sequence of (N_i, any) float
        What the head made of each tile, the same parts of each slide.

    Returns
    -------
    list of (N, any) float
        The very tensors, where there is one slide.
    """
    if len(slides) == 1:
        return list(slides[0])
    return [torch.cat(parts) for parts in zip(*slides, strict=True)]


def parts_of(output: MILOutput, tiles: Sequence[int]) -> list[MILOutput]:
    """Return the part of each slide in what was found in their one bag.

    Parameters
    ----------
    output : MILOutput
        Of N tiles.
    tiles : sequence of int
        How many of them each slide has.

    Returns
    -------
    list of MILOutput
        Each with the logits of the whole bag; attention sums to one over all of them.
    """
    if len(tiles) == 1:
        return [output]

    def split(values: Tensor | None) -> Sequence[Tensor | None]:
        return [None] * len(tiles) if values is None else torch.split(values, list(tiles))

    whole = {name: getattr(output, name) for name in ("scores", "attention", "evidence", "votes")}
    of_slides = {name: split(values) for name, values in whole.items()}
    return [
        replace(output, **{name: parts[at] for name, parts in of_slides.items()}) for at in range(len(tiles))
    ]
