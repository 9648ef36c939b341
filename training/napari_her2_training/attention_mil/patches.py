"""Labelled patches for pre-training, cut from the slides of the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import JobFailed
from napari_her2.steps import Progress
from napari_her2_training.cohort.embedding import tiles_to_learn
from napari_her2_training.cohort.manifest import label_of
from napari_her2_training.cohort.outlines import NORMAL_TO, TUMOUR_FROM, tumour_share
from napari_her2_training.cohort.reading import naming_row, slide_to_learn
from napari_her2_training.encoder.patches import Patches

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2_training.attention_mil.config import AttentionConfig
    from napari_her2_training.cohort.manifest import Case


def gather_patches(
    cases: Sequence[Case], config: AttentionConfig, folder: Path, *, per_slide: int, seed: int, stage: str
) -> Generator[Progress, None, Patches]:
    """Cut patches from the slides of cases.

    Parameters
    ----------
    cases : sequence of Case
    config : AttentionConfig
    folder : Path
        Of the manifest, which the pattern of the regions is relative to.
    per_slide : int
        Patches a slide at most; with regions, half of them tumour where there is enough.
    seed : int
    stage : str
        Named in the progress.
    """
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    for number, case in enumerate(cases):
        yield Progress(stage, number, len(cases), "slides")
        rng = np.random.default_rng([seed, number])
        with naming_row(case):
            cut, label = _of_slide(case, config, folder, per_slide, rng)
        images.append(cut)
        labels.append(label)
    if not images or not sum(map(len, images)):
        raise JobFailed("No patch could be cut from the slides: they hold no tissue, or no labelled regions.")
    yield Progress(stage, len(cases), len(cases), "slides")
    return Patches(np.concatenate(images), np.concatenate(labels))


def _of_slide(
    case: Case, config: AttentionConfig, folder: Path, per_slide: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data = config.data
    score = label_of(case, data.classes)
    with slide_to_learn(case, "he") as slide:
        grid, tissue = tiles_to_learn(slide, data, "he")
        label = np.full(grid.shape, -1, np.int64)
        label[tissue] = score
        if config.pretraining.regions:
            regions = folder / config.pretraining.regions.format(case_id=case.case_id)
            share = tumour_share(regions, grid)
            label[(label >= 0) & (share <= NORMAL_TO)] = 4 if data.classes == "scores" else 2
            label[(share > NORMAL_TO) & (share < TUMOUR_FROM)] = -1
        keep = _choose(label, score, per_slide, rng)
        images = np.zeros((int(keep.sum()), data.tile_px, data.tile_px, 3), np.uint8)
        labels = np.zeros(len(images), np.int64)
        done = 0
        for batch in slide.tiles(tile_px=data.tile_px, mpp=data.mpp, keep=keep):
            part = slice(done, done + len(batch.images))
            images[part] = batch.images
            labels[part] = label[batch.index[:, 0], batch.index[:, 1]]
            done = part.stop
    return images[:done], labels[:done]


def _choose(
    label: NDArray[np.int64], score: int, per_slide: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw tiles: tumour and normal half and half where both are there."""
    tumour, other = np.argwhere(label == score), np.argwhere((label >= 0) & (label != score))
    wanted = max(per_slide // 2, per_slide - len(other)) if len(other) else per_slide
    keep = np.zeros(label.shape, np.bool_)
    for index, count in ((tumour, wanted), (other, per_slide - min(wanted, len(tumour)))):
        drawn = rng.permutation(len(index))[:count]
        keep[tuple(index[drawn].T)] = True
    return keep
