"""A slide as one bag of tiles: what such methods share, and those that others are compared with."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from napari_her2.methods.tiles import TileMethod
from napari_her2.models.card import SLIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.explain.early import EarlyValues
    from napari_her2.explain.findings import Findings
    from napari_her2.inference.assemble import Answer
    from napari_her2.inference.kept_scoring import ReadSlide
    from napari_her2.inference.terms import Terms
    from napari_her2.models.aggregator import MILOutput, SlideAggregator


class BagMethod(TileMethod):
    """A method whose head takes the features of all tiles at once, and weighs them by attention."""

    explanations = frozenset({"tile gallery"})
    joins_bags = True
    no_overlap = ""

    def numbers(self, terms: Terms, read: ReadSlide) -> tuple[NDArray[np.floating], ...]:
        """Let the head look at each tile; see `TileMethod.numbers`."""
        from napari_her2.inference.head import tile_numbers

        return tile_numbers(terms.bundle, terms.device, read.embeddings.features)

    def join(self, terms: Terms, read: Sequence[ReadSlide]) -> Answer:
        """Join the bag by its head; see `TileMethod.join`."""
        import torch

        from napari_her2.inference.assemble import Answer, chances, scored_tiles
        from napari_her2.inference.bags import one_bag, parts_of
        from napari_her2.inference.head import head_on_cpu, refuse_nonsense, run_head
        from napari_her2.models.bags import tile_uncertainty

        of_slides = [[torch.from_numpy(part) for part in of.numbers] for of in read]
        tiles = one_bag(of_slides)
        output: MILOutput = run_head(
            terms.bundle, terms.device, lambda head, place: head.of_tiles(*(part.to(place) for part in tiles))
        )
        refuse_nonsense(terms.card, output.logits)
        # A few thousand tiles: on the CPU always, where a draw takes no longer.
        head = cast("SlideAggregator", head_on_cpu(terms.bundle))
        spread = tile_uncertainty(head, tiles, temperature=terms.card.temperature())
        scored = [
            scored_tiles(of.slide, of.chosen, of.embeddings, terms.card.classes, part)
            for of, part in zip(read, parts_of(output, [len(part[0]) for part in of_slides]), strict=True)
        ]
        if len(read) > 1:
            alone = [
                run_head(terms.bundle, terms.device, partial(_logits_of, own)).logits for own in of_slides
            ]
            refuse_nonsense(terms.card, *alone)
            scored = [
                replace(of, alone=chances(logits, terms.card))
                for of, logits in zip(scored, alone, strict=True)
            ]
        members = {} if output.members is None else {SLIDE: output.members}
        return Answer(output.logits, tuple(scored), spread=spread, members=members)

    def so_far(self, terms: Terms, stain: str, features: NDArray[np.floating]) -> EarlyValues:
        """Say what each tile would add to the logits, of heads that can tell it; see `TileMethod.so_far`."""
        import torch

        from napari_her2.explain.early import votes_so_far
        from napari_her2.inference.head import run_head, tile_numbers

        tiles = [torch.from_numpy(of) for of in tile_numbers(terms.bundle, terms.device, features)]
        votes = run_head(terms.bundle, terms.device, partial(_logits_of, tiles)).votes
        if votes is None:
            return super().so_far(terms, stain, features)
        return votes_so_far(votes.numpy(), terms.card.classes)

    def beside(self, terms: Terms, read: Sequence[ReadSlide], other: ReadSlide) -> Findings:
        """Weigh other tiles against the bag, by its head; see `TileMethod.beside`."""
        import torch

        from napari_her2.explain.findings import Findings
        from napari_her2.inference.bags import one_bag
        from napari_her2.inference.head import refuse_nonsense, run_head

        bag = one_bag([[torch.from_numpy(part) for part in of.numbers] for of in read])
        tiles = [torch.from_numpy(part) for part in other.numbers]

        def weighed(head: SlideAggregator, place: torch.device) -> MILOutput:
            return head.beside([part.to(place) for part in bag], [part.to(place) for part in tiles])

        output = run_head(terms.bundle, terms.device, weighed)
        refuse_nonsense(terms.card, output.attention)
        return Findings(output)


def _logits_of(tiles: Sequence[Tensor], head: SlideAggregator, place: torch.device) -> MILOutput:
    return head.of_tiles(*(part.to(place) for part in tiles))


class ABMILMethod(BagMethod):
    """Attention pooling, gated or not."""

    name = "abmil"
    title = "Attention-based MIL"
    paper = "Ilse et al. 2018, arXiv:1802.04712"
    architectures = ("ABMIL",)


class CLAMMethod(BagMethod):
    """Attention pooling that also clusters the tiles it attends to, with one branch or one a class."""

    name = "clam"
    title = "CLAM"
    paper = "Lu et al. 2021, arXiv:2004.09666"
    architectures = ("CLAM",)


class TransMILMethod(BagMethod):
    """Self-attention between tiles, with their places on the slide."""

    name = "transmil"
    title = "TransMIL"
    paper = "Shao et al. 2021, arXiv:2106.00908"
    architectures = ("TransMIL",)


class DSMILMethod(BagMethod):
    """Two streams: the strongest tile of each class, and all others by their distance to it."""

    name = "dsmil"
    title = "DSMIL"
    paper = "Li et al. 2021, arXiv:2011.08939"
    architectures = ("DSMIL",)
