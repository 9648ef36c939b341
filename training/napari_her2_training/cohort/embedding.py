"""Embedding of the cohort's slides through the same door, and the same cache, as scoring."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from napari_her2.errors import JobFailed
from napari_her2.inference.embed import embed_steps
from napari_her2.inference.embeddings import refuse_ruins
from napari_her2.steps import Progress, passed_on
from napari_her2_training.cohort.bags import SlideBag
from napari_her2_training.cohort.feature_file import MadeBy, joined
from napari_her2_training.cohort.features import read_feature_file
from napari_her2_training.cohort.manifest import STAINS, label_of
from napari_her2_training.cohort.outlines import TUMOUR_FROM, tumour_share
from napari_her2_training.cohort.reading import naming_row, slide_to_learn
from napari_her2_training.cohort.tissue import check_scale, refuse_empty, tissue_to_learn

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.models.patch_encoder import PatchEncoder
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.reader import Slide
    from napari_her2_training.cohort.manifest import Case, Stain
    from napari_her2_training.config_sections import DataConfig
    from napari_her2_training.findings import Findings

T = TypeVar("T")


def embed_cases(
    cases: Sequence[Case],
    encoder: PatchEncoder,
    config: DataConfig,
    device: Device,
    *,
    stage: str,
    stain: Stain = "he",
    regions: Callable[[Case], Path] | None = None,
) -> Generator[Progress, None, list[SlideBag]]:
    """Embed the slides of cases.

    Parameters
    ----------
    cases : sequence of Case
    encoder : PatchEncoder
    config : DataConfig
    device : Device
    stage : str
        Named in the progress.
    stain : {"he", "ihc"}
        Which slides of the cases.
    regions : callable, optional
        Gives the GeoJSON file of a case's tumour; the bags then tell which tiles are tumour.

    Yields
    ------
    Progress
        Counts slides; at least once a batch of tiles.

    Returns
    -------
    list of SlideBag
        In the order of the cases.
    """
    bags: list[SlideBag] = []
    for number, case in enumerate(cases):
        with naming_row(case), slide_to_learn(case, stain) as slide:
            grid, keep = tiles_to_learn(slide, config, stain)
            counted = partial(replace, stage=stage, done=number, total=len(cases), unit="slides")
            embedded = yield from passed_on(embed_steps(slide, encoder, grid, keep, device), counted)
            refuse_ruins(slide, embedded)
            refuse_empty(slide, len(embedded.features))
        tumour = None
        if regions is not None:
            share = tumour_share(regions(case), grid)
            tumour = share[tuple(embedded.index.T)] >= TUMOUR_FROM
        label = label_of(case, config.mapping)
        bags.append(SlideBag(case.case_id, label, embedded.features, tumour, embedded.precision))
    yield Progress(stage, len(cases), len(cases), "slides")
    return bags


def tiles_to_learn(slide: Slide, config: DataConfig, stain: Stain) -> tuple[TileGrid, NDArray[np.bool_]]:
    """Lay the grid over a slide, and find the tiles of it that hold enough tissue.

    Returns
    -------
    grid : TileGrid
    keep : (rows, columns) bool

    Raises
    ------
    SlideError
        If scoring would refuse the slide.
    """
    grid = slide.tile_grid(config.tile_px, config.mpp)
    check_scale(slide, config.mpp)
    return grid, tissue_to_learn(slide, stain, check=config.check_stains).keep(grid, config.min_tissue)


def read_cases(
    cases: Sequence[Case],
    stain: Stain,
    stage: str,
    make: Callable[[Case, NDArray[np.float16]], T],
    findings: Findings | None = None,
) -> Generator[Progress, None, tuple[list[T], MadeBy]]:
    """Read the features that others computed of the slides of cases.

    Parameters
    ----------
    cases : sequence of Case
        Their slides are files of features.
    stain : {"he", "ihc"}
    stage : str
    make : callable
        What is kept of each.
    findings : Findings, optional

    Returns
    -------
    list
        In the order of the cases.
    MadeBy
        How they were made, as far as the files state it.

    Raises
    ------
    JobFailed
        Naming the row of a file that is damaged, has features of another length than the first, or that were
        made otherwise.
    """
    made: list[T] = []
    made_by = MadeBy()
    first = 0
    for number, case in enumerate(cases):
        yield Progress(stage, number, len(cases), "slides", case.case_id)
        with naming_row(case, findings):
            file = read_feature_file(case.slide(stain))
            features = file.features
            width = features.shape[1]
            first = first or width
            if width != first:
                raise JobFailed(
                    f"the {STAINS[stain]} features have length {width}, those before it {first}. Extract all "
                    f"slides of a stain with the same encoder."
                )
            made_by = joined(made_by, file.made_by)
            made.append(make(case, features))
    yield Progress(stage, len(cases), len(cases), "slides")
    return made, made_by
