"""Multi-head self-attention over a bag of tiles, by landmarks (Nyström) or exactly.

Xiong, Zeng, Chakraborty, Tan, Fung, Li and Singh, Nyströmformer: a Nyström-based algorithm for
approximating self-attention, AAAI 2021 (arXiv:2102.03902); as a layer for bags of tiles, Shao, Bian, Chen
and others, TransMIL, NeurIPS 2021 (arXiv:2106.00908).

With m landmarks, the means of consecutive segments of the queries and keys (q~, k~)::

    A1 = softmax(q k~^T)   (N, m)        A2 = softmax(q~ k~^T)   (m, m)        A3 = softmax(q~ k^T)   (m, N)
    attention(q, k) ~ A1 pinv(A2) A3

No N x N matrix exists anywhere, and neither do A1 and A3 as a whole: A1 (pinv(A2) (A3 v)) is two calls of
fused attention with a small product between them, so memory grows with N alone, in training too. On a CPU
bags that are only scored go another way to the same numbers (`napari_her2.models.nystrom_scoring`), and very
large ones a third (`napari_her2.models.nystrom_streaming`).

Besides its output, attention tells how much of it each tile *received*: the mean of its column in the
N x N matrix. It serves to rank tiles, carries no gradient and is computed in float32, since in float16
many tiles tie. By landmarks it is an approximation and may come out slightly below zero.

Differences from the papers
---------------------------
- The bag is padded at its front up to a multiple of the landmarks. Published code pads with zeros that
  take part as keys and in the means; here padding takes part in nothing unless ``faithful`` asks for it:
  landmarks that hold padding alone are left out, the one that holds some is the mean of its tiles.
- Exact attention where a bag is so small that each tile would be its own landmark, or wherever asked for.
- Softmax and inverse are computed in float32 under autocast: the iteration overflows in float16.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_her2.errors import ModelError
from napari_her2.models.landmarks import iterative_pinv as iterative_pinv
from napari_her2.models.landmarks import landmark_means as landmark_means
from napari_her2.models.nystrom_scoring import head_by_head, only_scored, too_large
from napari_her2.models.nystrom_streaming import StreamedAttention

if TYPE_CHECKING:
    from collections.abc import Callable

Attention = Literal["auto", "nystrom", "exact"]

ATTENTIONS: tuple[Attention, ...] = ("auto", "nystrom", "exact")
CHUNK_VALUES = 2**25  # 128 MiB of float32: what the received attention may hold at a time


class NystromAttention(nn.Module):
    """Multi-head self-attention with a depthwise convolution of the values beside it.

    Parameters
    ----------
    width : int, default 512
        Length of a tile's vector, W; a multiple of ``heads``.
    heads : int, default 8
    landmarks : int, default 256
    iterations : int, default 6
        Of the pseudo-inverse.
    kernel : int, default 33
        Tiles that the convolution along the bag sees, odd.
    dropout : float, default 0.1
        Behind the output projection.
    attention : {"auto", "nystrom", "exact"}, default "auto"
        "auto" is exact for bags of at most ``landmarks`` tiles.
    faithful : bool, default False
        As published: always by landmarks, and with padding that takes part.

    Raises
    ------
    ModelError
        If the arguments contradict each other.
    """

    def __init__(
        self,
        *,
        width: int = 512,
        heads: int = 8,
        landmarks: int = 256,
        iterations: int = 6,
        kernel: int = 33,
        dropout: float = 0.1,
        attention: Attention = "auto",
        faithful: bool = False,
    ) -> None:
        super().__init__()
        check_attention(width, heads, attention, faithful=faithful)
        self.heads = heads
        self.landmarks = landmarks
        self.iterations = iterations
        self.attention: Attention = "nystrom" if faithful else attention
        self.faithful = faithful
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.along_bag = nn.Conv2d(
            heads, heads, (kernel, 1), padding=(kernel // 2, 0), groups=heads, bias=False
        )
        self.project = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Let the tiles of a bag attend to each other.

        Parameters
        ----------
        tiles : (N, W) float
            N at least 1.

        Returns
        -------
        mixed : (N, W) float
        received : (N,) float32
            Attention received, without gradient; sums to about one. float64 in a float64 model.
        """
        n = len(tiles)
        exact = self.attention == "exact" or (self.attention == "auto" and n <= self.landmarks)
        if not (exact or self.faithful) and only_scored(tiles, self.qkv.weight, self.landmarks):
            joined, received = head_by_head(
                tiles,
                self.qkv.weight,
                self.along_bag.weight,
                landmarks=self.landmarks,
                iterations=self.iterations,
            )
            return self.dropout(self.project(joined)), received
        query, key, value = self.qkv(tiles).unflatten(-1, (3, self.heads, -1)).permute(1, 2, 0, 3)
        with torch.autocast(tiles.device.type, enabled=False):
            query, key, value = (at_least_float32(part) for part in (query, key, value))
            query = query / math.sqrt(query.shape[-1])
            if exact:
                mixed, received = exact_attention(query, key, value)
            else:
                mixed, received = nystrom_attention(
                    query,
                    key,
                    value,
                    landmarks=self.landmarks,
                    iterations=self.iterations,
                    masked=not self.faithful,
                )
            weight = self.along_bag.weight.to(value.dtype)
            padding = self.along_bag.padding
            mixed = mixed + F.conv2d(value[None], weight, padding=padding, groups=self.heads)[0]
        joined = mixed.transpose(0, 1).reshape(n, -1).to(tiles.dtype)
        return self.dropout(self.project(joined)), received

    def too_large(self, tiles: Tensor) -> bool:
        """Whether a bag that is only scored has to be attended to by pieces: see `streamed`."""
        exact = self.attention == "exact" or self.faithful
        return not exact and too_large(tiles, self.qkv.weight, self.landmarks)

    def streamed(
        self, rows: Callable[[int, int], Tensor], count: int, *, mean_row: bool = True
    ) -> StreamedAttention:
        """Attend to a bag by pieces, without dropout.

        Parameters
        ----------
        rows, count, mean_row
            As of `napari_her2.models.nystrom_streaming.StreamedAttention`.
        """
        return StreamedAttention(
            rows,
            count,
            self.qkv.weight,
            self.along_bag.weight,
            landmarks=self.landmarks,
            iterations=self.iterations,
            mean_row=mean_row,
        )


def exact_attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Attend exactly; time grows with the square of N, memory does not.

    Parameters
    ----------
    query, key, value : (H, N, d) float
        Queries already scaled.

    Returns
    -------
    mixed : (H, N, d) float
    received : (N,) float
    """
    mixed = attend(query, key, value)
    with torch.no_grad():
        received = _mean_of_rows(query, key).mean(dim=0)
    return mixed, received


def nystrom_attention(
    query: Tensor, key: Tensor, value: Tensor, *, landmarks: int, iterations: int = 6, masked: bool = True
) -> tuple[Tensor, Tensor]:
    """Attend by way of landmarks.

    Parameters
    ----------
    query, key, value : (H, N, d) float
        Queries already scaled.
    landmarks : int
    iterations : int, default 6
    masked : bool, default True
        False: zeros in front of the bag count as keys, and in the means.

    Returns
    -------
    mixed : (H, N, d) float
    received : (N,) float
    """
    n = query.shape[-2]
    query_marks = landmark_means(query, landmarks, masked=masked)
    key_marks = landmark_means(key, landmarks, masked=masked)
    inverse = iterative_pinv((query_marks @ key_marks.mT).softmax(dim=-1), iterations)
    if not masked:
        pad = -n % landmarks
        key, value = F.pad(key, (0, 0, pad, 0)), F.pad(value, (0, 0, pad, 0))
    mixed = attend(query, key_marks, inverse @ attend(query_marks, key, value))
    with torch.no_grad():
        shares = _mean_of_rows(query, key_marks).unsqueeze(-2) @ inverse
        received = weighted_rows(shares, query_marks, key)[:, -n:].mean(dim=0)
    return mixed, received


def at_least_float32(tensor: Tensor) -> Tensor:
    """Widen what is narrower than float32, leave the rest.

    Parameters
    ----------
    tensor : Tensor

    Returns
    -------
    Tensor
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def check_attention(width: int, heads: int, attention: str, *, faithful: bool) -> None:
    """Raise ModelError where a layer of attention cannot be built so."""
    if width % heads:
        raise ModelError(f"A width of {width} cannot be shared by {heads} heads: choose a multiple.")
    if attention not in ATTENTIONS:
        raise ModelError(f"Attention is one of {', '.join(ATTENTIONS)}, not {attention!r:.40}.")
    if faithful and attention == "exact":
        raise ModelError("The published attention is not exact: choose either faithful or exact.")


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return (H, N, d), softmax(query key^T) value, without the matrix."""
    # With a leading axis of one: without it PyTorch falls back to materialising the matrix.
    return F.scaled_dot_product_attention(query[None], key[None], value[None], scale=1.0)[0]


def _mean_of_rows(query: Tensor, key: Tensor) -> Tensor:
    """(H, m) mean over the queries of softmax(query key^T), by pieces of the queries."""
    size = _chunk_length(key)
    total = query.new_zeros(key.shape[:-1])
    for part in torch.split(query, size, dim=-2):
        total += (part @ key.mT).softmax(dim=-1).sum(dim=-2)
    return total / query.shape[-2]


def weighted_rows(weights: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Return (H, N), weights (H, 1, m) times softmax(query key^T) (H, m, N), by pieces of the keys."""
    parts = torch.split(key, _chunk_length(query), dim=-2)
    if len(parts) == 1:
        return (weights @ (query @ key.mT).softmax(dim=-1)).squeeze(-2)
    # What a row sums to is known only after a look at all keys, so a large bag is looked at twice.
    norms = torch.stack([(query @ part.mT).logsumexp(dim=-1) for part in parts]).logsumexp(dim=0)
    rows = [weights @ (query @ part.mT - norms.unsqueeze(-1)).exp_() for part in parts]
    return torch.cat(rows, dim=-1).squeeze(-2)


def _chunk_length(other: Tensor) -> int:
    return max(1, CHUNK_VALUES // other[..., 0].numel())
