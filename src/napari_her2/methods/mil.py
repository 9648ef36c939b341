"""One slide as a bag of tiles, scored by a slide model such as attention MIL."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from napari_her2.inference.assemble import Clock, assemble, scored_slide
from napari_her2.inference.embed import embed_steps, refuse_ruins
from napari_her2.inference.head import run_head
from napari_her2.inference.result import Progress
from napari_her2.inference.selection import choose_tiles
from napari_her2.models.bags import bag_uncertainty

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_her2.inference.device import Device
    from napari_her2.inference.options import ScoringOptions
    from napari_her2.inference.regions import Regions
    from napari_her2.inference.result import SlideResult
    from napari_her2.models.aggregator import MILOutput, SlideAggregator
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.slide.reader import Slide


def score_bag(
    slide: Slide, bundle: ModelBundle, regions: Regions | None, device: Device, options: ScoringOptions
) -> Generator[Progress, None, SlideResult]:
    """Score one slide; see `napari_her2.methods.scoring.score_steps`."""
    card, clock = bundle.card, Clock()
    yield Progress("Finding tissue", note=device.name)
    chosen = choose_tiles(slide, card, regions, options, stain=card.stain)
    clock.lap("tissue")
    embeddings = yield from embed_steps(
        slide,
        bundle.patch_encoder,
        chosen.grid,
        chosen.keep,
        device,
        cache=options.cache,
        batch_size=options.batch_size,
    )
    clock.lap("embed")
    refuse_ruins(slide, embeddings)
    yield Progress("Scoring", note=device.name)
    features = torch.from_numpy(embeddings.features)
    output: MILOutput = run_head(bundle, device, features)
    # A few thousand tiles: on the CPU always, so that the same draw gives the same numbers everywhere.
    spread = bag_uncertainty(
        cast("SlideAggregator", bundle.head.to("cpu")), features, temperature=card.temperature()
    )
    scored = scored_slide(slide, chosen, embeddings, output, card.classes)
    clock.lap("model")
    return assemble(
        (scored,),
        bundle,
        output.logits,
        device,
        clock,
        options,
        spread=spread,
        regions=chosen.regions,
        precision=embeddings.precision,
        warnings=(*slide.warnings, *chosen.warnings, *embeddings.warnings(slide.name)),
    )
