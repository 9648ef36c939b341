"""What scoring found, put together: warnings, maps, and the result with where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2.explain.attention import attention_maps, attention_ranks
from napari_her2.explain.maps import TileMap
from napari_her2.inference.presentation import result_label
from napari_her2.inference.result import SlideResult, TileTable
from napari_her2.models.card import NOTICE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.inference.embed import Embeddings
    from napari_her2.models.aggregator import MILOutput
    from napari_her2.models.bags import BagUncertainty
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.tissue import TissueMask


@dataclass(slots=True)
class Clock:
    """Wall time of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    _start: float = field(default_factory=perf_counter)

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = perf_counter()
        self.seconds[stage] = round(now - self._start, 3)
        self._start = now


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The tiles to score, and what they were chosen by."""

    grid: TileGrid
    keep: NDArray[np.bool_]
    tissue: TissueMask
    share: NDArray[np.float32]
    regions: str | None
    warnings: tuple[str, ...]


def embedding_warnings(slide: Slide, embeddings: Embeddings) -> Iterator[str]:
    """Tell what the embedding met that a reader of the score should know, a sentence each."""
    lost, all_tiles = len(embeddings.corrupt), len(embeddings.corrupt) + len(embeddings.index)
    if lost:
        yield (
            f"{lost:,} of {all_tiles:,} tiles ({lost / all_tiles:.1%}) were left out because {slide.name} is "
            f"damaged there: copy the slide again from its source."
        )
    if embeddings.problem:
        yield f"{embeddings.problem[0].upper()}{embeddings.problem[1:]}."


def result_maps(
    chosen: Chosen, embeddings: Embeddings, output: MILOutput, classes: tuple[str, ...]
) -> tuple[TileMap, ...]:
    """Attention, evidence of each class, attention as percentiles, tissue, and damage."""
    grid = chosen.grid
    tissue = TileMap(
        kind="tissue",
        values=np.where(chosen.share > 0, chosen.share, np.nan).astype(np.float32),
        grid=grid,
        unit="share of the tile",
        description="How much of each tile was taken for tissue.",
    )
    corrupt = TileMap(
        kind="corrupt",
        values=grid.paint(embeddings.corrupt, np.ones(len(embeddings.corrupt), np.float32)),
        grid=grid,
        unit="1 where damaged",
        description="Tiles left out because the file is damaged there.",
    )
    return (
        *attention_maps(grid, embeddings.index, output, classes),
        attention_ranks(grid, embeddings.index, output),
        tissue,
        corrupt,
    )


def assemble(
    slide: Slide,
    bundle: ModelBundle,
    chosen: Chosen,
    embeddings: Embeddings,
    output: MILOutput,
    spread: BagUncertainty | None,
    device: Device,
    clock: Clock,
    *,
    min_confidence: float,
    warnings: tuple[str, ...],
) -> SlideResult:
    """Put together what the scoring found.

    Parameters
    ----------
    slide : Slide
    bundle : ModelBundle
    chosen : Chosen
    embeddings : Embeddings
    output : MILOutput
        Of all tiles as one bag, on the CPU.
    spread : BagUncertainty or None
    device : Device
    clock : Clock
        Its stage "model" ends here.
    min_confidence : float
    warnings : tuple of str
        Those known before; what the embedding met is added.

    Returns
    -------
    SlideResult
    """
    from napari_her2 import __version__

    card, grid = bundle.card, chosen.grid
    chances = torch.softmax(output.logits.double(), dim=-1).numpy()
    score = card.classes[int(chances.argmax())]
    label, abstained = result_label(
        score,
        float(chances.max()),
        len(embeddings.index),
        min_confidence=min_confidence,
        own_labels=card.class_labels,
    )
    table = TileTable(
        index=embeddings.index,
        origins_px0=grid.origins_px0(embeddings.index),
        attention=output.attention.numpy(),
        evidence=output.evidence.numpy(),
    )
    maps = result_maps(chosen, embeddings, output, card.classes)
    clock.lap("model")
    return SlideResult(
        slide=slide.name,
        slide_path=slide.path,
        slide_sha256_head=slide.fingerprint,
        model=card.name,
        model_sha256=bundle.sha256,
        task=card.task,
        classes=card.classes,
        probabilities=dict(zip(card.classes, chances.tolist(), strict=True)),
        score=score,
        label=label,
        abstained=abstained,
        table=table,
        maps=maps,
        grid=grid,
        tissue_mm2=_tissue_mm2(chosen),
        corrupt=embeddings.corrupt,
        uncertainty=spread,
        device=device.name,
        seconds=clock.seconds,
        warnings=(*warnings, *embedding_warnings(slide, embeddings)),
        version=__version__,
        notice=_notice(card.notice),
        training_data=card.training_data,
        guideline=card.guideline,
        regions=chosen.regions,
        tissue=chosen.tissue,
    )


def _tissue_mm2(chosen: Chosen) -> float:
    """Area of the tissue that was scored: of all, or of that in the tiles of the regions."""
    if chosen.regions is None:
        return chosen.tissue.area_mm2(chosen.grid.slide_mpp)
    return float(chosen.share[chosen.keep].sum(dtype=np.float64)) * chosen.grid.tile_um**2 / 1e6


def _notice(own: str) -> str:
    """Keep our notice: that of the model may say more than ours, never less."""
    return own if NOTICE in own else f"{NOTICE} {own}".strip()
