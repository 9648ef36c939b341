"""Several models of one architecture that answer together: the folds of a cross-validation, as one head.

Each member's logits are divided by its own temperature and averaged, so what is additive in a member stays so
in the ensemble: the mean evidence over the tiles plus the mean bias is the logit. Attention is averaged, and
so says which regions the members used between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_her2.models.aggregator import MILOutput
from napari_her2.models.wsmcl import BranchOutput, WSMCLOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

HEADS = ("fusion", "H&E", "IHC")
"""Columns of the temperatures of a WSMCL ensemble."""


class MILEnsemble(nn.Module):
    """Slide models on the same tile features.

    Parameters
    ----------
    members : sequence of nn.Module
        Each a `napari_her2.models.aggregator.SlideAggregator` of the same sizes.

    Attributes
    ----------
    temperatures : (M, 1) float buffer
        By which each member's logits are divided.
    """

    heads = ("slide",)

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.features, self.classes = int(members[0].features), int(members[0].classes)  # type: ignore[arg-type]
        self.temperatures: Tensor
        self.register_buffer("temperatures", torch.ones(len(members), len(self.heads)))

    def forward(self, bags: Tensor, mask: Tensor | None = None) -> MILOutput:
        """Score one bag (K, D), or padded bags (B, K, D) with a mask (B, K)."""
        return self._joined([member(bags, mask) for member in self.members])

    def tiles(self, bags: Tensor) -> tuple[Tensor, ...]:
        """Return what the members make of each tile, one member after the other."""
        return tuple(part for member in self.members for part in member.tiles(bags))  # type: ignore[operator]

    def of_tiles(self, *tiles: Tensor, mask: Tensor | None = None) -> MILOutput:
        """Join what `tiles` gave."""
        return self._joined(
            [
                member.of_tiles(*own, mask=mask)  # type: ignore[operator]
                for member, own in zip(self.members, self._by_member(tiles), strict=True)
            ]
        )

    def beside(self, bag: Sequence[Tensor], tiles: Sequence[Tensor]) -> MILOutput:
        """Let each member weigh tiles against a bag that lacks them; see `SlideAggregator.beside`."""
        each = zip(self.members, self._by_member(bag), self._by_member(tiles), strict=True)
        return self._joined([member.beside(*own) for member, *own in each])  # type: ignore[operator]

    def _by_member(self, tiles: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        each = len(tiles) // len(self.members)
        return [tiles[at * each : (at + 1) * each] for at in range(len(self.members))]

    def _joined(self, outputs: list[MILOutput]) -> MILOutput:
        heat = self.temperatures[:, 0].tolist()
        attention = torch.stack([output.attention for output in outputs]).mean(dim=0)
        evidence = [output.evidence for output in outputs]
        votes = [output.votes for output in outputs]
        logits = _scaled([output.logits for output in outputs], heat)
        return MILOutput(
            logits=logits.mean(dim=0),
            # Of which the softmax is the mean attention.
            scores=attention.log(),
            attention=attention,
            evidence=None if any(one is None for one in evidence) else _mean(evidence, heat),
            votes=None if any(one is None for one in votes) else _mean(votes, heat),
            members=logits,
            apart=any(output.apart for output in outputs),
        )


class WSMCLEnsemble(nn.Module):
    """WSMCL models on the same tile features; each head is averaged by itself.

    Parameters
    ----------
    members : sequence of WSMCL

    Attributes
    ----------
    temperatures : (M, 3) float buffer
        By which the logits of each member's heads are divided, in the order of `HEADS`.
    """

    heads = HEADS

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.classes, self.k = int(members[0].classes), int(members[0].k)  # type: ignore[arg-type]
        self.temperatures: Tensor
        self.register_buffer("temperatures", torch.ones(len(members), len(self.heads)))

    def forward(self, he: Tensor | None = None, ihc: Tensor | None = None) -> WSMCLOutput:
        """Score a case, as `napari_her2.models.wsmcl.WSMCL` does."""
        return self._joined([member(he, ihc) for member in self.members])

    def tiles(self, stain: str, bag: Tensor) -> tuple[Tensor, ...]:
        """Return what each member makes of the tiles of a slide, see there."""
        return tuple(part for member in self.members for part in member.tiles(stain, bag))  # type: ignore[operator]

    def branches(self, stain: str, tiles: Sequence[Tensor]) -> tuple[BranchOutput, ...]:
        """Let the tiles of a slide attend to each other, in each member; see there."""
        return tuple(
            part
            for at, member in enumerate(self.members)
            for part in member.branches(stain, tiles[at : at + 1])  # type: ignore[operator]
        )

    def of_branches(
        self, he: Sequence[BranchOutput] | None = None, ihc: Sequence[BranchOutput] | None = None
    ) -> WSMCLOutput:
        """Score a case of whose slides `branches` was taken."""
        return self._joined(
            [
                member.of_branches(*(None if of is None else of[at : at + 1] for of in (he, ihc)))  # type: ignore[operator]
                for at, member in enumerate(self.members)
            ]
        )

    def _joined(self, outputs: list[WSMCLOutput]) -> WSMCLOutput:
        both, of_he, of_ihc = (column.tolist() for column in self.temperatures.T)
        each = [output.fused for output in outputs]
        fused = None if each[0] is None else _scaled(each, both)
        return WSMCLOutput(
            fused=None if fused is None else fused.mean(dim=0),
            he=_branch([output.he for output in outputs], of_he),
            ihc=_branch([output.ihc for output in outputs], of_ihc),
            fused_members=fused,
        )


def _branch(outputs: Sequence[BranchOutput | None], temperatures: Sequence[float]) -> BranchOutput | None:
    given = [output for output in outputs if output is not None]
    if not given:
        return None
    attention = _mean([output.attention for output in given], [1.0] * len(given))
    k = len(given[0].top)
    order = attention.argsort(descending=True, stable=True)

    def plain(name: str) -> Tensor:
        return _mean([getattr(output, name) for output in given], [1.0] * len(given))

    logits = _scaled([output.logits for output in given], temperatures)
    return BranchOutput(
        logits=logits.mean(dim=0),
        token=plain("token"),
        attention=attention,
        top=order[:k],
        bottom=order[len(order) - k :],
        top_features=plain("top_features"),
        bottom_features=plain("bottom_features"),
        members=logits,
    )


def _mean(values: Sequence[Tensor | None], temperatures: Sequence[float]) -> Tensor:
    return _scaled(values, temperatures).mean(dim=0)


def _scaled(values: Sequence[Tensor | None], temperatures: Sequence[float]) -> Tensor:
    """(M, ...) what each member gives, divided by its temperature."""
    scaled = [value / heat for value, heat in zip(values, temperatures, strict=True) if value is not None]
    return torch.stack(scaled)
