"""The long work behind Grad-CAM in the dock, without Qt: maps of a slide, and how faithful one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2._napari.cam_layers import inside
from napari_her2._napari.prepared import preparing_fields
from napari_her2.errors import JobFailed
from napari_her2.steps import Progress, passed_on

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import torch
    from numpy.typing import NDArray

    from napari_her2._napari.settings import Settings
    from napari_her2.explain.faithfulness import Faithfulness
    from napari_her2.explain.region_cam import CamMap
    from napari_her2.inference.result import SlideResult
    from napari_her2.models.card import ModelCard
    from napari_her2.models.preprocessing import TilePreparation
    from napari_her2.models.tile_models import FieldHead
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.tissue import TissueMask

_BATCH_CPU, _BATCH_GPU = 2, 16


@dataclass(frozen=True, slots=True, eq=False)
class CamModel:
    """A model ready to be explained on one slide.

    Parameters
    ----------
    slide : Slide
    model : str
        Name of the model, as it was asked for.
    head : FieldHead
        On its device.
    preparation : TilePreparation
        With the stain transform of the slide, on the same device.
    tissue : TissueMask
        Fields of glass are not explained: the model never saw any.
    card : ModelCard
    device : str
        With the reason why this one.
    batch_size : int
    warnings : tuple of str
    """

    slide: Slide
    model: str
    head: FieldHead
    preparation: TilePreparation
    tissue: TissueMask
    card: ModelCard
    device: str
    batch_size: int
    warnings: tuple[str, ...] = ()

    @property
    def torch_device(self) -> torch.device:
        """Where the model is."""
        return self.preparation.columns.device


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """A map, and the model that it is of: kept, so that the next map does not load it again."""

    ready: CamModel
    cam: CamMap


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """How faithful the map of a tile is, and the model that was asked."""

    ready: CamModel
    class_name: str
    tile: int
    found: Faithfulness


def getting_ready(slide: Slide, model: str, settings: Settings) -> Generator[Progress, None, CamModel]:
    """Make a model ready to be explained on a slide; errors as `preparing_fields`."""
    ready = yield from preparing_fields(slide, model, settings, "region Grad-CAM")
    usual = _BATCH_CPU if ready.device.torch_device.type == "cpu" else _BATCH_GPU
    return CamModel(
        slide,
        model,
        ready.fields.head,
        ready.fields.preparation,
        slide.tissue(),
        ready.card,
        ready.device.name,
        min(settings.batch_size or usual, usual),  # fields are a hundred times as large as other tiles
        ready.warnings,
    )


def explaining(
    slide: Slide,
    model: str,
    settings: Settings,
    class_name: str,
    region_px0: tuple[float, float, float, float] | None,
    *,
    ready: CamModel | None = None,
    outlines: Sequence[Any] | None = None,
) -> Generator[Progress, None, Explained]:
    """Grad-CAM of a class over a part of a slide.

    Parameters
    ----------
    slide : Slide
    model : str
    settings : Settings
    class_name : str
    region_px0 : tuple of float or None
        (y, x, height, width), level-0 pixels; None is the whole slide.
    ready : CamModel, optional
        Of an earlier map of the same model and slide.
    outlines : sequence of shapely polygons, optional
        (x, y) in level-0 pixels; what lies outside all of them is left clear.

    Raises
    ------
    JobFailed
        If there is no tissue to explain there.
    ModelError, SlideError
        As `preparing_fields` and `region_cam_steps`.
    """
    if ready is None:
        ready = yield from getting_ready(slide, model, settings)
    from napari_her2.explain.region_cam import region_cam_steps
    from napari_her2.inference.class_words import class_names

    steps = region_cam_steps(
        slide,
        ready.head,
        ready.preparation,
        region_px0,
        ready.card.mpp,
        ready.card.classes.index(class_name),
        ready.batch_size,
        classes=tuple(class_names(ready.card.classes, ready.card.class_scores).values()),
        tissue=ready.tissue,
    )
    cam = yield from passed_on(steps, lambda done: Progress("Grad-CAM", *done, "fields", ready.device))
    if outlines is not None:
        cam = inside(cam, outlines)
    if not np.isfinite(cam.values).any():
        raise JobFailed(
            "There is no field of whole tissue to explain here: look at a part of the slide with tissue."
            if not len(cam.damaged_px0)
            else "The file is damaged here: nothing can be explained."
        )
    return Explained(ready, cam)


def checking(
    slide: Slide,
    model: str,
    settings: Settings,
    class_name: str,
    result: SlideResult,
    tile: int,
    *,
    ready: CamModel | None = None,
) -> Generator[Progress, None, Checked]:
    """Measure how faithful the Grad-CAM of one tile is, beside the same map moved elsewhere.

    Parameters
    ----------
    slide, model, settings, class_name, ready
        As for `explaining`.
    result : SlideResult
    tile : int
        Position in the table.
    """
    if ready is None:
        ready = yield from getting_ready(slide, model, settings)
    import torch

    from napari_her2.explain.faithfulness import cam_faithfulness_steps

    pixels = torch.from_numpy(_read_one(slide, result, tile)[None]).to(ready.torch_device)
    field = ready.preparation(pixels)[0]
    steps = cam_faithfulness_steps(
        ready.head, field, ready.card.classes.index(class_name), batch_size=ready.batch_size
    )
    found = yield from passed_on(
        steps, lambda done: Progress("Deleting and inserting", *done, "images", ready.device)
    )
    return Checked(ready, class_name, tile, found)


def _read_one(slide: Slide, result: SlideResult, tile: int) -> NDArray[np.uint8]:
    """Pixels of a tile as the model was given them, (tile_px, tile_px, 3)."""
    grid = result.grid
    keep = np.zeros(grid.shape, np.bool_)
    row, col = result.table.index[tile]
    keep[row, col] = True
    for batch in slide.tiles(tile_px=grid.tile_px, mpp=grid.mpp, batch_size=1, keep=keep, threads=1):
        if len(batch.images):
            return np.asarray(batch.images[0], np.uint8)
    raise JobFailed("The file is damaged in this tile: choose another one.")
