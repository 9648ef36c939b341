"""Attention by landmarks over a bag so large that no matrix of a head fits: by pieces of the bag, on a CPU.

It computes what `napari_her2.models.nystrom.NystromAttention` does where a bag is only scored. Of tiles no
queries, keys or values are kept, and no output: the bag is read three times, a piece at a time,

1. for the means of its segments, which give the landmarks and the inverse between them;
2. for ``A3 v``, with a softmax over the keys that is rescaled as larger ones appear (Milakov and Gimelshein,
   Online normalizer calculation for softmax, 2018, arXiv:1805.02867), and for the mean of the rows of ``A1``;
3. for the output of each tile and the attention that it receives, which whoever reads them may throw away.

A bag of 500,000 tiles of 512 numbers is 1 GB; beside it this takes about 0.2 GB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from napari_her2.models.landmarks import iterative_pinv
from napari_her2.models.nystrom_scoring import along_bag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    Rows = Callable[[int, int], Tensor]

PIECE = 2048
"""Tiles at a time: 16 MiB for each matrix of 8 heads and 256 landmarks."""


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """What a bag comes to, of H heads with m landmarks and d numbers a tile.

    Parameters
    ----------
    query_marks, key_marks : (H, m, d) float
        The queries already scaled; the keys scaled too, for queries that are not.
    inverse : (H, m, m) float
    norms : (H, m, 1) float
        Logarithm of the sum over the keys of the exponentials of each row of ``A3``.
    values : (H, m, d) float
        ``pinv(A2) A3 v``.
    mean_row : (H, 1, m) float
        Mean of the rows of ``A1``; zero where it was not wanted.
    """

    query_marks: Tensor
    key_marks: Tensor
    inverse: Tensor
    norms: Tensor
    values: Tensor
    mean_row: Tensor


class StreamedAttention:
    """Attention of a bag whose tiles are given by pieces.

    Parameters
    ----------
    rows : callable
        Takes the first tile and the one behind the last, and returns them, (n, W) float, as the layer takes
        them: behind its LayerNorm.
    count : int
        Tiles of the bag, N.
    weight : (3 W, W) float
        That makes queries, keys and values of the tiles, in each of them one head after the other.
    kernel : (H, 1, K, 1) float
        Of the convolution of the values along the bag, K odd.
    landmarks : int
    iterations : int
        Of the pseudo-inverse.
    mean_row : bool
        Whether the attention that each tile receives from all is wanted.
    """

    def __init__(
        self,
        rows: Rows,
        count: int,
        weight: Tensor,
        kernel: Tensor,
        *,
        landmarks: int,
        iterations: int,
        mean_row: bool = True,
    ) -> None:
        self._rows, self._count = rows, count
        self._heads, self._kernel = len(kernel), kernel[:, 0, :, 0]
        self._query, self._key, self._value = weight.chunk(3, dim=0)
        self.gathered = self._gathered(self._means(landmarks), iterations, mean_row=mean_row)

    def pieces(self) -> Iterator[tuple[int, int, Tensor, Tensor]]:
        """Yield the bag by pieces.

        Yields
        ------
        start, stop : int
            First tile of the piece, and the one behind its last.
        mixed : (n, W) float
            What the tiles become, ahead of the output projection.
        received : (n,) float
            Attention that they receive from all tiles, mean over the heads.
        """
        shares = self.gathered.mean_row @ self.gathered.inverse
        for start in range(0, self._count, PIECE):
            stop = min(start + PIECE, self._count)
            yield start, stop, self.mixed(start, stop), self.received(start, stop, shares)

    def mixed(self, start: int, stop: int) -> Tensor:
        """Return what some tiles become, (n, W), ahead of the output projection."""
        half = self._kernel.shape[1] // 2
        low, high = max(0, start - half), min(self._count, stop + half)
        around = self._rows(low, high)
        inner = slice(start - low, stop - low)
        near = self._near(around[inner])
        mixed = (near @ self.gathered.values).transpose(0, 1).flatten(1)
        parts = (around @ self._value.T).chunk(self._heads, dim=-1)
        for part, kernel, into in zip(parts, self._kernel, mixed.chunk(self._heads, dim=-1), strict=True):
            into += along_bag(part, kernel)[inner]
        return mixed

    def received(self, start: int, stop: int, shares: Tensor) -> Tensor:
        """Return attention paid to some tiles, (n,), mean over the heads.

        Parameters
        ----------
        start, stop : int
        shares : (H, 1, m) float
            Rows of ``A1`` times the inverse: of one tile, or their mean.
        """
        key = self._of_heads(self._rows(start, stop), self._key)
        far = (self.gathered.query_marks @ key.mT - self.gathered.norms).exp_()
        return (shares @ far).squeeze(-2).mean(dim=0)

    def row_of(self, place: int) -> Tensor:
        """Return attention that one tile pays to all, (N,), mean over the heads."""
        shares = self._near(self._rows(place, place + 1)) @ self.gathered.inverse
        parts = [
            self.received(start, min(start + PIECE, self._count), shares)
            for start in range(0, self._count, PIECE)
        ]
        return torch.cat(parts)

    def _means(self, landmarks: int) -> Tensor:
        """Means of the segments of the bag, as `napari_her2.models.landmarks.landmark_means` takes them."""
        length = -(-self._count // landmarks)
        segments = -(-self._count // length)
        first = self._count - (segments - 1) * length
        means = [self._rows(0, first).mean(dim=0, keepdim=True)]
        at_once = max(1, PIECE // length) * length
        for start in range(first, self._count, at_once):
            tiles = self._rows(start, min(start + at_once, self._count))
            means.append(tiles.reshape(-1, length, tiles.shape[-1]).mean(dim=1))
        return torch.cat(means)

    def _gathered(self, means: Tensor, iterations: int, *, mean_row: bool) -> Gathered:
        query_marks = self._of_heads(means, self._query)
        key_marks = self._of_heads(means, self._key)
        scale = math.sqrt(query_marks.shape[-1])
        query_marks = query_marks / scale
        inverse = iterative_pinv((query_marks @ key_marks.mT).softmax(dim=-1), iterations)
        key_marks = key_marks / scale  # in place of the queries of all tiles
        most = query_marks.new_full((*query_marks.shape[:2], 1), -math.inf)
        total, sums = torch.zeros_like(most), torch.zeros_like(query_marks)
        rows = query_marks.new_zeros(self._heads, 1, query_marks.shape[1])
        for start in range(0, self._count, PIECE):
            tiles = self._rows(start, min(start + PIECE, self._count))
            far = query_marks @ self._of_heads(tiles, self._key).mT
            larger = torch.maximum(most, far.amax(dim=-1, keepdim=True))
            before = (most - larger).exp_()
            far = far.sub_(larger).exp_()
            total = total * before + far.sum(dim=-1, keepdim=True)
            sums = sums * before + far @ self._of_heads(tiles, self._value)
            most = larger
            if mean_row:
                near = (self._of_heads(tiles, self._query) @ key_marks.mT).softmax(dim=-1)
                rows += near.sum(dim=-2, keepdim=True)
        values = inverse @ (sums / total)
        return Gathered(query_marks, key_marks, inverse, most + total.log(), values, rows / self._count)

    def _near(self, tiles: Tensor) -> Tensor:
        """Rows of ``A1`` of some tiles, (H, n, m)."""
        return (self._of_heads(tiles, self._query) @ self.gathered.key_marks.mT).softmax(dim=-1)

    def _of_heads(self, tiles: Tensor, weight: Tensor) -> Tensor:
        """(n, W) tiles through a layer, as (H, n, d)."""
        return (tiles @ weight.T).reshape(len(tiles), self._heads, -1).transpose(0, 1)
