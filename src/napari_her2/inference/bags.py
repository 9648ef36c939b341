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

    sizes = list(tiles)

    def split(values: Tensor | None) -> Sequence[Tensor | None]:
        return [None] * len(sizes) if values is None else torch.split(values, sizes)

    attended = zip(torch.split(output.scores, sizes), torch.split(output.attention, sizes), strict=True)
    said = zip(split(output.evidence), split(output.votes), strict=True)
    return [
        replace(output, scores=scores, attention=attention, evidence=evidence, votes=votes)
        for (scores, attention), (evidence, votes) in zip(attended, said, strict=True)
    ]
