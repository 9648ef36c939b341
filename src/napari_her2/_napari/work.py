"""What the docks run in threads, as generators without Qt."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2._napari.table_import import load_tables
from napari_her2._napari.torch_import import load_torch
from napari_her2.errors import Her2Error
from napari_her2.steps import Progress, passed_on

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2._napari.demands import Demands
    from napari_her2._napari.settings import Settings
    from napari_her2._napari.tile import TileView
    from napari_her2.desk.own_score import ManualScore
    from napari_her2.inference.early import EarlyTiles
    from napari_her2.inference.front import Front
    from napari_her2.inference.kept_scoring import KeptScoring
    from napari_her2.inference.result import SlideResult
    from napari_her2.models.registry import ModelEntry
    from napari_her2.registration.automatic import Registration
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.tissue import Preset


_LOADED_AHEAD_BYTES = 1 << 29
"""Whoever only looks at slides pays no more memory than this for a model that may never score."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """What scoring can be done with: the models there are, files that are none, and the device."""

    models: tuple[ModelEntry, ...]
    problems: tuple[str, ...]
    device: str


@dataclass(frozen=True, slots=True)
class ModelsFound(Progress):
    """The models there are, while PyTorch is still being loaded to say on which device they would run."""

    models: tuple[ModelEntry, ...] = ()


def scoring(
    slide: Slide,
    model: str,
    *,
    ihc: Slide | None,
    regions: Sequence[Any] | None,
    preset: str,
    settings: Settings,
    override_fit: bool,
    demands: Demands,
    calibration: str = "",
    leave_out_poor: bool | None = None,
    overlap: float = 0.0,
    kept: list[KeptScoring] | None = None,
    front: Front | None = None,
    early: EarlyTiles | None = None,
) -> Generator[Progress, None, SlideResult]:
    """Score a slide, or the two slides of a case, as the dock asks for it."""
    load_torch()
    load_tables()
    from napari_her2.inference.case_table import listed_case
    from napari_her2.inference.result import CaseOf
    from napari_her2.methods.scoring import of_case, score_steps
    from napari_her2.models.case_slides import JOINED_ANSWERS

    chosen: dict[str, Any] = {"calibration": calibration} if calibration else {}
    result = yield from score_steps(
        slide,
        model,
        ihc,
        regions=regions,
        device=settings.device,
        preset=preset,
        batch_size=settings.batch_size or None,
        override_fit=override_fit,
        coverage=demands.coverage,
        min_familiarity=demands.min_familiarity,
        leave_out_poor=leave_out_poor,
        overlap=overlap,
        quality_limits=settings.quality_limits,
        kept=kept,
        front=front,
        early=early,
        **chosen,
    )
    listed = listed_case(slide.path)
    if listed is None or listed[1] < 2:
        return result
    case = CaseOf(*listed, JOINED_ANSWERS, result.limits.case_rule)
    if kept is not None:
        kept[:] = [replace(of, case=case) for of in kept]
    return of_case(result, case)


def finding_ahead(
    slides: Sequence[Slide], preset: Preset, model: ModelEntry | None = None, device: str = "auto"
) -> Generator[Progress, None, None]:
    """Find what scoring needs to know of slides whatever the model is, and load the model.

    The slides keep what is found; the model stays loaded until another one is. Which slides they are is not
    among it: that reads gigabytes, and is found when their work is brought back.
    """
    yield Progress("Finding tissue")
    from napari_her2.inference.fit import slide_stain

    for slide in slides:
        with suppress(Exception):  # whoever scores it meets the fault again, and says so
            tissue = slide.tissue(preset)
            yield Progress("Finding tissue")
            slide_stain(slide, tissue, preset)
        yield Progress("Finding tissue")
    if model is not None:
        with suppress(Exception):
            _load_ahead(model, device)


def _load_ahead(model: ModelEntry, device: str) -> None:
    """Load a model as scoring does, and compare its encoder with float32; none that is large or elsewhere."""
    encoder = model.card.encoder
    if encoder is None or encoder.weights != "bundled" or model.path.stat().st_size > _LOADED_AHEAD_BYTES:
        return
    load_torch()
    from napari_her2.inference.device import choose_device
    from napari_her2.inference.encode import EncoderRunner
    from napari_her2.inference.loaded import loaded_bundle

    runs_on = choose_device(device)
    EncoderRunner(loaded_bundle(model.name, runs_on).patch_encoder, runs_on)


def identifying(slides: Sequence[Slide]) -> Generator[Progress, None, None]:
    """Find the fingerprints of slides, which reads all of their files."""
    from napari_her2.inference.unchanged import identified

    yield from identified(*slides)


def aligning(slides: Sequence[Slide]) -> Generator[Progress, None, Registration]:
    """Lay the second slide of a case on the first one."""
    yield Progress("Aligning")
    from napari_her2.registration.automatic import register_steps

    fixed, moving = slides
    return (yield from passed_on(register_steps(fixed, moving), lambda step: Progress(*step)))


def finding_equipment(settings: Settings) -> Generator[Progress, None, Equipment]:
    """Find models, which takes a moment, and then the device, for which PyTorch is loaded; in a thread."""
    yield Progress("Looking for models")
    from napari_her2.methods.catalogue import available_models
    from napari_her2.models.registry import unreadable_models

    models = tuple(available_models())
    problems = [item.problem for item in unreadable_models()]
    yield ModelsFound("Looking for a device", models=models)
    load_torch()
    from napari_her2.inference.device import choose_device

    try:
        chosen = choose_device(settings.device)
        device = f"{chosen.name}; features in {chosen.precision_words}"
    except Her2Error as error:  # the models are shown all the same
        device = f"{settings.device} cannot be used"
        problems.append(str(error))
    return Equipment(models, tuple(problems), device)


def adding_model(path: Path, *, force: bool = False) -> Generator[Progress, None, ModelEntry]:
    """Check a model file in full and install it; ``force`` replaces another one of its name."""
    yield Progress("Checking the model")
    load_torch()
    from napari_her2.models.registry import add_model

    return add_model(path, force=force)


def exporting(result: SlideResult, manual: ManualScore, folder: Path) -> Generator[Progress, None, Path]:
    """Write a result to a folder, with the pathologist's own score beside it."""
    yield Progress("Writing")
    from napari_her2.desk.own_score import write_manual
    from napari_her2.export.tables import write_result

    written = Path(write_result(result, folder))
    write_manual(written, manual, result)
    return written


def reading_tile(slide: Slide, result: SlideResult, tile: int) -> Generator[Progress, None, TileView]:
    """Read one tile at full resolution."""
    yield Progress("Reading")
    from napari_her2._napari.tile import read_tile

    return read_tile(slide, result, tile)


def reading_thumbnails(
    slide: Slide, result: SlideResult, tiles: Sequence[int]
) -> Generator[Progress, None, list[NDArray[np.uint8] | None]]:
    """Read some tiles small; None stands for one that is damaged."""
    from napari_her2._napari.tile import read_thumbnail

    pictures = []
    for done, tile in enumerate(tiles):
        yield Progress("Reading", done, len(tiles), "tiles")
        pictures.append(read_thumbnail(slide, result, tile))
    return pictures
