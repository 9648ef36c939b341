"""TransMIL: a class token and all tiles attend to each other, with convolutions over them in between.

Shao, Bian, Chen, Wang, Zhang, Ji and Zhang, TransMIL: transformer based correlated multiple instance
learning for whole slide image classification, NeurIPS 2021 (arXiv:2106.00908). For a bag of K tiles::

    h = ReLU(Linear(x)); the first tiles again behind the last, until their number is a square
    t = [class token, h]
    t = t + attention(LayerNorm(t))          by landmarks, see `napari_her2.models.nystrom`
    t = PPEG(t)                              tiles as a square map + three depthwise convolutions of it
    t = t + attention(LayerNorm(t))
    logits = Linear(LayerNorm(class token))

Its attention is the row of the class token in the second attention: how much each tile gives to the token
that is classified, mean over the heads. It is the only row that is computed, so memory grows with K alone.
By landmarks it is an approximation and can be slightly negative: ``scores`` are that row as it is, to rank
tiles by, ``attention`` is the row without its negative parts and scaled to sum to one.

There is no evidence for or against a class by tile: each tile's vector holds something of all others.
Tiles are laid out as a square in the order given: give them as the slide is read.

Differences from the paper and the published code
-------------------------------------------------
- Padding of the sequence takes part in nothing, and sequences of at most ``landmarks`` tokens attend
  exactly; ``faithful`` restores zero padding that takes part, and attention by landmarks always.
- Softmax and inverse in float32 under autocast: the iteration overflows in float16.
- The three convolutions and the map itself are one convolution with the sum of their kernels: the same
  number, for a third of the work.
- The attention of a tile is that of its first place in the square; of its repetition none is added.
- Batches with a mask, bag by bag; a bag without tiles is answered by the class token alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_her2.models.aggregator import MILOutput, weighed_apart
from napari_her2.models.nystrom import (
    at_least_float32,
    attend,
    check_attention,
    iterative_pinv,
    landmark_means,
    weighted_rows,
)
from napari_her2.models.nystrom_scoring import too_large
from napari_her2.models.nystrom_streaming import StreamedAttention
from napari_her2.models.pooling import check_bags, in_pieces
from napari_her2.models.transmil_streaming import scored_by_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_her2.models.nystrom import Attention

CHUNK_VALUES = 2**25  # 128 MiB of float32: what the row of the class token may hold at a time
KERNELS = (7, 5, 3)


class TokenAttention(nn.Module):
    """Multi-head self-attention behind a LayerNorm, that can tell one row of its matrix.

    Parameters
    ----------
    width : int
        Length of a token, W; a multiple of ``heads``.
    heads, landmarks : int
    iterations : int, default 6
        Of the pseudo-inverse.
    kernel : int, default 33
        Tokens that the convolution of the values along the sequence sees, odd.
    dropout : float, default 0.1
        Behind the output projection.
    attention : {"auto", "nystrom", "exact"}
        "auto" is exact for sequences of at most ``landmarks`` tokens.
    faithful : bool
        As published: always by landmarks, and with zeros in front that take part.

    Raises
    ------
    ModelError
        If the arguments contradict each other.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        landmarks: int,
        iterations: int = 6,
        kernel: int = 33,
        dropout: float = 0.1,
        attention: Attention,
        faithful: bool,
    ) -> None:
        super().__init__()
        check_attention(width, heads, attention, faithful=faithful)
        self.heads = heads
        self.landmarks = landmarks
        self.iterations = iterations
        self.attention: Attention = "nystrom" if faithful else attention
        self.faithful = faithful
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.along = nn.Conv2d(heads, heads, (kernel, 1), padding=(kernel // 2, 0), groups=heads, bias=False)
        self.project = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Let tokens attend to each other.

        Parameters
        ----------
        tokens : (N, W) float

        Returns
        -------
        (N, W) float
            What is to be added to the tokens.
        """
        query, key, value = self._heads_of(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            query, key, value = (at_least_float32(part) for part in (query, key, value))
            query = query / math.sqrt(query.shape[-1])
            if self._exact(len(tokens)):
                mixed = attend(query, key, value)
            else:
                query_marks, key_marks, inverse = self._marks(query, key)
                pad = self._padding(len(tokens))
                padded_key, padded_value = (F.pad(part, (0, 0, pad, 0)) for part in (key, value))
                gathered = attend(query_marks, padded_key, padded_value)
                mixed = attend(query, key_marks, inverse @ gathered)
            weight = self.along.weight.to(value.dtype)
            mixed = mixed + F.conv2d(value[None], weight, padding=self.along.padding, groups=self.heads)[0]
        joined = mixed.transpose(0, 1).reshape(len(tokens), -1).to(tokens.dtype)
        added: Tensor = self.dropout(self.project(joined))
        return added

    @torch.no_grad()
    def first_row(self, tokens: Tensor) -> Tensor:
        """Attention that the first token pays to each, mean over the heads, without gradient.

        Parameters
        ----------
        tokens : (N, W) float

        Returns
        -------
        (N,) float32
            Sums to about one. float64 in a float64 model.
        """
        query, key, _ = self._heads_of(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            query, key = at_least_float32(query), at_least_float32(key)
            query = query / math.sqrt(query.shape[-1])
            first = query[:, :1]
            if self._exact(len(tokens)):
                return (first @ key.mT).softmax(dim=-1).mean(dim=0)[0]
            query_marks, key_marks, inverse = self._marks(query, key)
            shares = (first @ key_marks.mT).softmax(dim=-1) @ inverse
            padded_key = F.pad(key, (0, 0, self._padding(len(tokens)), 0))
            return weighted_rows(shares, query_marks, padded_key).mean(dim=0)[-len(tokens) :]

    def too_large(self, tokens: Tensor) -> bool:
        """Whether a sequence that is only scored has to be attended to by pieces: see `streamed`."""
        exact = self.attention == "exact" or self.faithful
        return not exact and too_large(tokens, self.qkv.weight, self.landmarks)

    def streamed(self, rows: Callable[[int, int], Tensor], count: int) -> StreamedAttention:
        """Attend by pieces to tokens that are given behind the LayerNorm; without dropout."""
        return StreamedAttention(
            rows,
            count,
            self.qkv.weight,
            self.along.weight,
            landmarks=self.landmarks,
            iterations=self.iterations,
            mean_row=False,
        )

    def _heads_of(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.qkv(self.norm(tokens)).unflatten(-1, (3, self.heads, -1)).permute(1, 2, 0, 3)
        return query, key, value

    def _exact(self, tokens: int) -> bool:
        return self.attention == "exact" or (self.attention == "auto" and tokens <= self.landmarks)

    def _padding(self, tokens: int) -> int:
        return -tokens % self.landmarks if self.faithful else 0

    def _marks(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query_marks, key_marks = (
            landmark_means(part, self.landmarks, masked=not self.faithful) for part in (query, key)
        )
        inverse = iterative_pinv((query_marks @ key_marks.mT).softmax(dim=-1), self.iterations)
        return query_marks, key_marks, inverse


class PPEG(nn.Module):
    """Position by convolution: a square map of tiles plus three depthwise convolutions of it.

    Parameters
    ----------
    width : int
        Length of a tile's vector, W.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide, self.middle, self.narrow = (
            nn.Conv2d(width, width, size, padding=size // 2, groups=width) for size in KERNELS
        )

    def forward(self, tiles: Tensor) -> Tensor:
        """Add to each tile what its neighbours give.

        Parameters
        ----------
        tiles : (side^2, W) float

        Returns
        -------
        (side^2, W) float
        """
        side = math.isqrt(len(tiles))
        plane = tiles.T.reshape(1, -1, side, side)
        mixed = F.conv2d(plane, *self.joined(), padding=KERNELS[0] // 2, groups=plane.shape[1])
        return mixed[0].flatten(1).T

    def joined(self) -> tuple[Tensor, Tensor]:
        """One kernel and bias in place of three, and of the map itself."""
        same = F.pad(torch.ones_like(self.wide.weight[..., :1, :1]), [KERNELS[0] // 2] * 4)
        kernel, bias = same + self.wide.weight, torch.zeros_like(self.wide.weight[:, 0, 0, 0])
        for convolution, size in ((self.middle, KERNELS[1]), (self.narrow, KERNELS[2])):
            kernel = kernel + F.pad(convolution.weight, [(KERNELS[0] - size) // 2] * 4)
        for convolution in (self.wide, self.middle, self.narrow):
            if convolution.bias is not None:
                bias = bias + convolution.bias
        return kernel, bias


class TransMIL(nn.Module):
    """TransMIL.

    Parameters
    ----------
    features : int, default 1024
        Length of a tile's feature vector, D.
    width : int, default 512
        Length of a token, a multiple of ``heads``.
    heads : int, default 8
    landmarks : int, default 256
    classes : int, default 4
    dropout : float, default 0.1
        Behind each attention.
    attention : {"auto", "nystrom", "exact"}, default "auto"
        "auto" is exact for bags of fewer than ``landmarks`` tiles.
    faithful : bool, default False
        Padding that takes part and attention by landmarks always, as published.

    Examples
    --------
    >>> head = TransMIL(features=1024, classes=4)
    >>> sum(parameter.numel() for parameter in head.parameters())
    2673172
    >>> output = head.eval()(torch.zeros(10, 1024))
    >>> output.logits.shape, output.attention.shape, output.evidence
    (torch.Size([4]), torch.Size([10]), None)
    """

    def __init__(
        self,
        *,
        features: int = 1024,
        width: int = 512,
        heads: int = 8,
        landmarks: int = 256,
        classes: int = 4,
        dropout: float = 0.1,
        attention: Attention = "auto",
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.features = features
        self.classes = classes
        self.embed = nn.Sequential(nn.Linear(features, width), nn.ReLU())
        self.token = nn.Parameter(torch.randn(width))
        self.first, self.second = (
            TokenAttention(
                width=width,
                heads=heads,
                landmarks=landmarks,
                dropout=dropout,
                attention=attention,
                faithful=faithful,
            )
            for _ in range(2)
        )
        self.position = PPEG(width)
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, bags: Tensor, mask: Tensor | None = None) -> MILOutput:
        """Score bags.

        Parameters
        ----------
        bags : (K, D) or (B, K, D) float
            Any float type; computed in the type of the weights.
        mask : (K,) or (B, K) bool, optional
            True at tiles, False at padding.

        Returns
        -------
        MILOutput
            ``scores`` are the row of the class token, -inf where the mask leaves a tile out. There is no
            evidence and there are no votes. A bag without any tile gets attention 0.

        Raises
        ------
        ModelError
            If the features have another length than the model was made for, or the mask does not fit.
        """
        check_bags(bags, mask, self.features)
        return self.of_tiles(*self.tiles(bags), mask=mask)

    def tiles(self, bags: Tensor) -> tuple[Tensor]:
        """Return the token of each tile, (..., K, W), ahead of any attention."""
        check_bags(bags, None, self.features)
        kind = self.classifier.weight.dtype
        (tokens,) = in_pieces(lambda some: (self.embed(some.to(kind)),), bags)
        return (tokens,)

    def of_tiles(self, tokens: Tensor, *, mask: Tensor | None = None) -> MILOutput:
        """Let the tokens of `tiles` attend to each other, and join them."""
        if mask is None:
            mask = torch.ones(tokens.shape[:-1], dtype=torch.bool, device=tokens.device)
        if tokens.ndim == 2 and not self.training and self.first.too_large(tokens) and bool(mask.all()):
            logits, scores = scored_by_pieces(self, tokens)
        elif tokens.ndim == 2:
            logits, scores = self._one(tokens, mask)
        else:
            pairs = [self._one(bag, there) for bag, there in zip(tokens, mask, strict=True)]
            logits, scores = (torch.stack(parts) for parts in zip(*pairs, strict=True))
        positive = scores.clamp_min(0.0)
        total = positive.sum(dim=-1, keepdim=True)
        return MILOutput(
            logits=logits,
            scores=scores,
            attention=positive / total.clamp_min(torch.finfo(total.dtype).tiny),
        )

    def beside(self, bag: Sequence[Tensor], tiles: Sequence[Tensor]) -> MILOutput:
        """Score tiles as a bag of their own: they attend to each other; see `SlideAggregator.beside`."""
        return weighed_apart(self.of_tiles(*tiles), len(bag[0]))

    def _one(self, bag: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (C,) and the row of the class token (K,) of one bag."""
        tiles = bag[there]
        number = len(tiles)
        side = math.ceil(math.sqrt(number))
        tokens = torch.cat([self.token[None].to(tiles.dtype), tiles, tiles[: side**2 - number]])
        tokens = tokens + self.first(tokens)
        if number:
            tokens = torch.cat([tokens[:1], self.position(tokens[1:])])
        row = self.second.first_row(tokens)[1 : number + 1]
        tokens = tokens + self.second(tokens)
        logits: Tensor = self.classifier(self.norm(tokens[0]))
        scores = row.new_full(there.shape, -torch.inf)
        scores[there] = row
        return logits, scores
