"""Labelled patches for pre-training, cut from the slides of the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import shapely

from napari_her2.errors import JobFailed
from napari_her2.inference.regions import read_regions
from napari_her2.inference.result import Progress
from napari_her2.slide.reader import open_slide
from napari_her2_training.manifest import label_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid
    from napari_her2_training.attention_config import AttentionConfig
    from napari_her2_training.manifest import Case

TUMOUR_FROM, NORMAL_TO = 0.5, 0.05
"""A patch is tumour from this share of it inside the regions, normal up to the other; between, left out."""


class PatchStack(Protocol):
    """N patches of (t, t, 3) uint8, in memory or on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | NDArray[np.int64], /) -> NDArray[np.uint8]: ...


class LabelledPatches(Protocol):
    """Patches with their labels: `Patches` in memory, or what a folder of patches gives."""

    @property
    def images(self) -> PatchStack:
        """Pixels."""
        ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) int64 class numbers."""
        ...

    def mean_std(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of RGB on [0, 1]."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Patches with their labels.

    Parameters
    ----------
    images : (N, t, t, 3) uint8
    labels : (N,) int64
        Class number; with regions the class after the last score is "normal".
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def mean_std(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of RGB on [0, 1] over all pixels."""
        counts = [np.bincount(self.images[..., c].ravel(), minlength=256) for c in range(3)]
        level = np.arange(256) / 255
        means = [float((n * level).sum() / n.sum()) for n in counts]
        stds = [
            float(np.sqrt((n * (level - m) ** 2).sum() / n.sum())) for n, m in zip(counts, means, strict=True)
        ]
        return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])


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

    Yields
    ------
    Progress

    Returns
    -------
    Patches
    """
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    for number, case in enumerate(cases):
        yield Progress(stage, number, len(cases), "slides")
        rng = np.random.default_rng([seed, number])
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
    with open_slide(case.slide("he")) as slide:
        grid = slide.tile_grid(data.tile_px, data.mpp)
        label = np.full(grid.shape, -1, np.int64)
        label[slide.tissue("auto").keep(grid, data.min_tissue)] = score
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


def tumour_share(path: Path, grid: TileGrid) -> NDArray[np.float64]:
    """Share of each tile that lies inside the regions of a GeoJSON file.

    Parameters
    ----------
    path : Path
    grid : TileGrid

    Returns
    -------
    (rows, columns) float64
    """
    region = shapely.union_all(read_regions(path))
    rows, cols = np.indices(grid.shape)
    side_y, side_x = grid.tile_px0
    tiles = shapely.box(cols * side_x, rows * side_y, (cols + 1) * side_x, (rows + 1) * side_y)
    shapely.prepare(region)
    share = np.zeros(grid.shape)
    touched = shapely.intersects(region, tiles)
    inside = shapely.contains(region, tiles)
    share[inside] = 1.0
    edge = touched & ~inside
    share[edge] = shapely.area(shapely.intersection(region, tiles[edge])) / (side_y * side_x)
    return share
