"""Weakly supervised multi-modal contrastive learning: one case from its H&E and its IHC slide together.

Shi et al. 2025 (PMID 39919535), with the published code (HFUT-miaLab/WSMCL) as the reference for what the
abstract leaves open. Each slide is a bag of tile features. In each branch::

    h = GELU(Linear(x))                      (N, W)
    y = LayerNorm_shared(h + MHSA(LayerNorm(h)))
    a = attention received by each tile      (N,)      ranks the tiles; see `napari_her2.models.nystrom`
    s = mean over the tiles of y             (W,)      the slide
    logits of the branch = Linear(s)

and of both slides ``logits = MLP([s_HE + s_IHC, s_HE * s_IHC, Linear([s_HE, s_IHC])])``. The k tiles that
receive most and least attention are what the contrastive loss compares across the slides (training).
Either slide may be missing: then the head of the one that is there answers. That of H&E is trained by
distillation from that of IHC.

What it can honestly tell of a tile is the attention it received, which ranks tiles and is not evidence
for or against a class: each tile's vector holds something of all others, and the fusion is not linear.
Tiles are taken in the order given, along which a convolution runs: give them as the slide is read.

Differences from the published code
-----------------------------------
- Padding takes part in nothing, and bags of at most ``landmarks`` tiles attend exactly; ``faithful``
  restores zero padding that takes part, and attention by landmarks always.
- Ranking without gradient and in float32; ties keep the order of the tiles.
- k is at most half of the smaller bag, so that no tile is both top and bottom.
- Features of any length, different ones for the slides too, by a linear layer to W where it is not W;
  W itself, there 512, may be chosen. With 512, 512 and four classes the 3,944,989 parameters are those
  of the published model.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_her2.errors import ModelError
from napari_her2.models.nystrom import NystromAttention
from napari_her2.models.pooling import in_pieces
from napari_her2.models.wsmcl_output import BranchOutput as BranchOutput
from napari_her2.models.wsmcl_output import WSMCLOutput as WSMCLOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2.models.nystrom import Attention

TEMPERATURE = 0.07
TOP = 100


class Branch(nn.Module):
    """One slide: tile features, attention between them, and a head of its own.

    Parameters
    ----------
    features : int
        Length of a tile's feature vector, D.
    width : int
        W; features of another length first pass a linear layer to it.
    classes : int
    attend : NystromAttention
    """

    def __init__(self, *, features: int, width: int, classes: int, attend: NystromAttention) -> None:
        super().__init__()
        self.features = features
        self.adapt = nn.Linear(features, width) if features != width else nn.Identity()
        self.embed = nn.Sequential(nn.Linear(width, width), nn.GELU())
        self.norm = nn.LayerNorm(width)
        self.attend = attend
        self.classify = nn.Linear(width, classes)

    def forward(self, bag: Tensor) -> tuple[Tensor, Tensor]:
        """Describe the tiles of a bag.

        Parameters
        ----------
        bag : (N, D) float

        Returns
        -------
        tiles : (N, W) float
            Ahead of the LayerNorm that the slides share.
        received : (N,) float32
            Attention received.
        """
        return self.mixed(self.tiles(bag))

    def tiles(self, bag: Tensor) -> Tensor:
        """Return the vector of each tile by itself, (N, W)."""
        # Under autocast the layers convert by themselves; elsewhere float16 features meet float32 weights.
        tiles: Tensor = self.embed(self.adapt(bag.to(self.classify.weight.dtype)))
        return tiles

    def mixed(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Let the vectors of `tiles` attend to each other; returns as ``forward`` does."""
        mixed, received = self.attend(self.norm(tiles))
        return tiles + mixed, received


class Fusion(nn.Module):
    """Sum, product and a linear mixture of the two slides' vectors, then a small perceptron.

    Parameters
    ----------
    width, classes : int
    """

    def __init__(self, *, width: int, classes: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * width, width)
        self.classify = nn.Sequential(nn.Linear(3 * width, width), nn.GELU(), nn.Linear(width, classes))

    def forward(self, he: Tensor, ihc: Tensor) -> Tensor:
        """Join two slides.

        Parameters
        ----------
        he, ihc : (W,) float

        Returns
        -------
        (C,) float
            Logits.
        """
        mixed = self.mix(torch.cat([he, ihc], dim=-1))
        logits: Tensor = self.classify(torch.cat([he + ihc, he * ihc, mixed], dim=-1))
        return logits


class WSMCL(nn.Module):
    """WSMCL: two branches with attention, a head for each slide and one for both.

    Parameters
    ----------
    he_features, ihc_features : int, default 512
        Length of a tile's feature vector, D, on each slide.
    width : int, default 512
        W, a multiple of ``heads``.
    heads : int, default 8
    landmarks : int, default 256
    classes : int, default 4
    k : int, default 100
        How many top and bottom tiles of each slide are compared, at most half of the smaller bag.
    attention : {"auto", "nystrom", "exact"}, default "auto"
        "auto" is exact for bags of at most ``landmarks`` tiles.
    faithful : bool, default False
        Padding that takes part and attention by landmarks always, as published. A model that learnt in the
        published code answers as it did there only with it, and its card says so; without it, as models
        trained here are, bags of at most ``landmarks`` tiles attend exactly and padding changes nothing.

    Attributes
    ----------
    log_scale : () float parameter
        Logarithm of the scale of similarities in the contrastive loss, learnt with the model.

    Examples
    --------
    >>> model = WSMCL(classes=4)
    >>> sum(parameter.numel() for parameter in model.parameters())
    3944989
    >>> output = model.eval()(torch.zeros(30, 512), torch.zeros(20, 512))
    >>> output.head, output.logits.shape, output.he.top.shape
    ('fusion', torch.Size([4]), torch.Size([10]))
    """

    def __init__(
        self,
        *,
        he_features: int = 512,
        ihc_features: int = 512,
        width: int = 512,
        heads: int = 8,
        landmarks: int = 256,
        classes: int = 4,
        k: int = TOP,
        attention: Attention = "auto",
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.k = k

        def branch(features: int) -> Branch:
            attend = NystromAttention(
                width=width, heads=heads, landmarks=landmarks, attention=attention, faithful=faithful
            )
            return Branch(features=features, width=width, classes=classes, attend=attend)

        self.he = branch(he_features)
        self.ihc = branch(ihc_features)
        self.norm = nn.LayerNorm(width)
        self.fuse = Fusion(width=width, classes=classes)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / TEMPERATURE)))

    def forward(self, he: Tensor | None = None, ihc: Tensor | None = None) -> WSMCLOutput:
        """Score a case.

        Parameters
        ----------
        he, ihc : (N, D) float, optional
            Tile features of each slide, of any number and any float type, in the order of reading.

        Returns
        -------
        WSMCLOutput

        Raises
        ------
        ModelError
            If both slides are missing, or features do not fit the model.
        """
        return self.of_branches(
            None if he is None else self.branches("H&E", self.tiles("H&E", he)),
            None if ihc is None else self.branches("IHC", self.tiles("IHC", ihc)),
        )

    def tiles(self, stain: str, bag: Tensor) -> tuple[Tensor]:
        """Return the vector of each tile of a slide by itself.

        Parameters
        ----------
        stain : {"H&E", "IHC"}
        bag : (N, D) float

        Returns
        -------
        tuple of (N, W) Tensor
            One; of an ensemble one a member.

        Raises
        ------
        ModelError
            If the features do not fit the model.
        """
        branch = self.he if stain == "H&E" else self.ihc
        _check(bag, branch.features, stain)
        (tiles,) = in_pieces(lambda piece: (branch.tiles(piece),), bag)
        return (tiles,)

    def branches(self, stain: str, tiles: Sequence[Tensor]) -> tuple[BranchOutput]:
        """Let the tiles of a slide attend to each other, whatever the other slide is.

        Parameters
        ----------
        stain : {"H&E", "IHC"}
        tiles : sequence of (N, W) Tensor
            From `tiles`.

        Returns
        -------
        tuple of BranchOutput
            One; of an ensemble one a member. With as many top and bottom tiles as the slide alone allows.
        """
        branch = self.he if stain == "H&E" else self.ihc
        if not self.training and branch.attend.too_large(tiles[0]):
            return (self._by_pieces(branch, tiles[0]),)
        vectors, received = branch.mixed(tiles[0])
        vectors = self.norm(vectors)
        top, bottom = self._top_and_bottom(received)
        token = vectors.mean(dim=0)
        found = BranchOutput(
            logits=branch.classify(token),
            token=token,
            attention=received,
            top=top,
            bottom=bottom,
            top_features=vectors[top],
            bottom_features=vectors[bottom],
        )
        return (found,)

    def _top_and_bottom(self, received: Tensor) -> tuple[Tensor, Tensor]:
        """Tiles that receive most and least attention, each in descending order of it."""
        order = received.argsort(descending=True, stable=True)
        k = min(self.k, len(order) // 2)
        return order[:k], order[len(order) - k :]

    def _by_pieces(self, branch: Branch, tiles: Tensor) -> BranchOutput:
        """Do what `branches` does with a bag so large that no output is kept of its tiles."""
        attention = branch.attend.streamed(lambda start, stop: branch.norm(tiles[start:stop]), len(tiles))

        def vectors(start: int, stop: int, mixed: Tensor) -> Tensor:
            found: Tensor = self.norm(tiles[start:stop] + branch.attend.project(mixed))
            return found

        sums = torch.zeros(tiles.shape[1], dtype=torch.float64)
        received = tiles.new_empty(len(tiles))
        for start, stop, mixed, got in attention.pieces():
            sums += vectors(start, stop, mixed).sum(dim=0, dtype=torch.float64)
            received[start:stop] = got
        top, bottom = self._top_and_bottom(received)

        def of(places: Tensor) -> Tensor:
            return torch.cat([vectors(at, at + 1, attention.mixed(at, at + 1)) for at in places.tolist()])

        token = (sums / len(tiles)).to(tiles.dtype)
        return BranchOutput(branch.classify(token), token, received, top, bottom, of(top), of(bottom))

    def of_branches(
        self, he: Sequence[BranchOutput] | None = None, ihc: Sequence[BranchOutput] | None = None
    ) -> WSMCLOutput:
        """Score a case of whose slides `branches` was taken; a missing slide is None.

        Raises
        ------
        ModelError
            If both slides are missing.
        """
        given = [of[0] for of in (he, ihc) if of is not None]
        if not given:
            raise ModelError("There is nothing to score: give the H&E slide, the IHC slide, or both.")
        k = min(len(of.top) for of in given)
        of_he, of_ihc = (None if of is None else of[0].limited(k) for of in (he, ihc))
        fused = None
        if of_he is not None and of_ihc is not None:
            fused = self.fuse(of_he.token, of_ihc.token)
        return WSMCLOutput(fused=fused, he=of_he, ihc=of_ihc)


def _check(bag: Tensor, features: int, name: str) -> None:
    if bag.ndim != 2 or bag.shape[-1] != features:
        raise ModelError(
            f"This model takes tile features of length {features} from the {name} slide, not of shape "
            f"{tuple(bag.shape)}: embed the slide with the model's own encoder."
        )
    if len(bag) == 0:
        raise ModelError(
            f"The {name} slide gave no tile to score: choose a region with tissue, or score without it."
        )
