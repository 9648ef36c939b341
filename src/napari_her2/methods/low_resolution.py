"""A slide scored from one small image of all its tissue, or from a few (Chauhan et al.).

The rule: the mean of the probabilities of eight views of the image, turned and mirrored; of several images
of a slide too large for one, their mean weighted by the tissue in each. It is ours. A slide with too little
tissue is not answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from napari_her2.errors import JobFailed
from napari_her2.explain.low_resolution import cam_maps
from napari_her2.explain.maps import TileMap
from napari_her2.inference.assemble import Clock, assemble
from napari_her2.inference.encode import is_out_of_memory
from napari_her2.inference.image_fit import doubt_of
from napari_her2.inference.images import choose_tissue, look
from napari_her2.inference.precision import FLOAT32
from napari_her2.inference.result import Progress, ScoredSlide, TileTable
from napari_her2.models.low_resolution import VIEWS, unview, view

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.inference.device import Device
    from napari_her2.inference.images import Seen
    from napari_her2.inference.options import ScoringOptions
    from napari_her2.inference.regions import Regions
    from napari_her2.inference.result import SlideResult
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.card import ModelCard
    from napari_her2.models.low_resolution import LowResolution
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.thumbnail import Thumbnail


def score_low_resolution(
    slide: Slide, bundle: ModelBundle, regions: Regions | None, device: Device, options: ScoringOptions
) -> Generator[Progress, None, SlideResult]:
    """Score one slide; see `napari_her2.methods.scoring.score_steps`."""
    card, clock = bundle.card, Clock()
    model = cast("LowResolution", bundle.head)
    yield Progress("Finding tissue", note=device.name)
    chosen = choose_tissue(slide, card, regions, options)
    clock.lap("tissue")
    seen = yield from look(slide, card, model, chosen, options)
    clock.lap("read")
    probabilities, signed = yield from _judge(model, seen.thumbnails, device)
    if not bool(torch.isfinite(probabilities).all() & torch.isfinite(signed).all()):
        raise JobFailed(
            f"{card.name} gave values that are not numbers: check it with `napari-her2 models verify`."
        )
    held = torch.tensor([float(thumbnail.tissue.sum()) for thumbnail in seen.thumbnails], dtype=torch.float64)
    weights = held / held.sum() if float(held.sum()) > 0 else torch.ones_like(held) / len(held)
    joined = (weights[:, None] * probabilities).sum(dim=0)
    scored = _scored(slide, card, seen, signed.float().numpy(), chosen.looks_like)
    clock.lap("model")
    return assemble(
        (scored,),
        bundle,
        joined.clamp_min(1e-300).log(),
        device,
        clock,
        options,
        regions=chosen.regions,
        min_tiles=1,
        precision=FLOAT32,
        doubt=doubt_of(card, seen.tissue_mm2, seen.thumbnails[0].mpp),
        rule=rule_words(seen.thumbnails),
        warnings=(*slide.warnings, *seen.warnings),
    )


def rule_words(thumbnails: tuple[Thumbnail, ...]) -> str:
    """Say how the score of a slide came about.

    Parameters
    ----------
    thumbnails : tuple of Thumbnail

    Returns
    -------
    str
        "mean of 8 views (turned and mirrored) of one image of 512 px at 6.1 µm/px"
    """
    first = thumbnails[0]
    each = f"{first.size_px} px at {first.mpp:.3g} µm/px"
    if len(thumbnails) == 1:
        return f"mean of {VIEWS} views (turned and mirrored) of one image of {each}"
    return (
        f"mean of {VIEWS} views (turned and mirrored) of each of {len(thumbnails)} images of {each}, "
        f"weighted by the tissue in them"
    )


def _judge(
    model: LowResolution, thumbnails: tuple[Thumbnail, ...], device: Device
) -> Generator[Progress, None, tuple[Tensor, Tensor]]:
    """Probabilities (K, C) float64 and signed Grad-CAM (K, C, h, w) of images, each the mean of its views."""
    target = device.torch_device
    total = len(thumbnails) * VIEWS
    probabilities: list[Tensor] = []
    maps: list[Tensor] = []
    for thumbnail in thumbnails:
        image = torch.from_numpy(thumbnail.rgb).permute(2, 0, 1)[None].float() / 255
        chances, signed = [], []
        for number in range(VIEWS):
            yield Progress("Scoring", len(probabilities) * VIEWS + number, total, "views", note=device.name)
            try:
                logits, cams = _explained(model, view(image, number), target)
            except (RuntimeError, MemoryError) as error:
                if target.type == "cpu" or not is_out_of_memory(error):
                    raise
                target = torch.device("cpu")
                logits, cams = _explained(model, view(image, number), target)
            chances.append(torch.softmax(logits[0].double(), dim=-1))
            signed.append(unview(cams[0], number))
        probabilities.append(torch.stack(chances).mean(dim=0))
        maps.append(torch.stack(signed).mean(dim=0))
    yield Progress("Scoring", total, total, "views", note=device.name)
    return torch.stack(probabilities), torch.stack(maps)


def _explained(model: LowResolution, image: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    model.to(device).eval()
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        logits, cams = model.explained(image.to(device))
        return logits.float().cpu(), cams.float().cpu()


def _scored(
    slide: Slide, card: ModelCard, seen: Seen, signed: NDArray[np.float32], looks_like: str
) -> ScoredSlide:
    grid = seen.grid
    share = seen.tissue.fraction(grid)
    tissue = TileMap(
        kind="tissue",
        values=np.where(share > 0, share, np.nan).astype(np.float32),
        grid=grid,
        unit="share of the tile",
        description="How much of each tile was taken for tissue.",
    )
    corrupt = TileMap(
        kind="corrupt",
        values=grid.paint(seen.corrupt, np.ones(len(seen.corrupt), np.float32)),
        grid=grid,
        unit="1 where damaged",
        description="Tiles of which the model saw a part in white because the file is damaged there.",
    )
    return ScoredSlide(
        name=slide.name,
        path=slide.path,
        slide_id=slide.slide_id,
        fingerprint=slide.fingerprint,
        sha256_head=slide.identity.head,
        stain=card.stain,
        table=TileTable(
            index=seen.index, origins_px0=grid.origins_px0(seen.index), attention=None, evidence=None
        ),
        maps=(*cam_maps(grid, seen.index, seen.thumbnails, signed, card.classes), tissue, corrupt),
        grid=grid,
        tissue_mm2=seen.tissue_mm2,
        corrupt=seen.corrupt,
        tissue=seen.tissue,
        thumbnails=seen.thumbnails,
        looks_like=looks_like,
        mpp_source=slide.mpp_source,
    )
