"""Images cut from slides to learn from: one small image of a whole slide, or tiles of it.

They are cut once, a file a slide in the folder of the run: ``ROW.npy`` with the images and then ``ROW.json``,
which means that the slide is finished. A run that was stopped goes on with the next slide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2.errors import JobFailed
from napari_her2.inference.embed import refuse_damage
from napari_her2.inference.image_fit import damaged_share
from napari_her2.inference.result import Progress
from napari_her2.slide.thumbnail import read_thumbnails
from napari_her2_training.cohort.manifest import STAINS, label_of
from napari_her2_training.cohort.reading import naming_row, slide_to_learn
from napari_her2_training.cohort.tissue import check_scale, tissue_to_learn
from napari_her2_training.files import OWN_FILES, array_file, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.slide.reader import Slide
    from napari_her2_training.arm_config import StainedCasesConfig
    from napari_her2_training.classes import ClassMapping
    from napari_her2_training.cohort.manifest import Case, Stain
    from napari_her2_training.low_resolution.config import ImageConfig, PatchesConfig


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Images of one slide.

    Parameters
    ----------
    images : (n, S, S, 3) uint8
    mpp : float
        µm per pixel.
    weights : tuple of float
        Of each image in the mean over the slide.
    """

    images: NDArray[np.uint8]
    mpp: float
    weights: tuple[float, ...]


class SlideImages:
    """The images of some slides, read from their files when they are asked for.

    Parameters
    ----------
    files : sequence of Path
        Of each slide.
    cases : sequence of Case
    mapping : ClassMapping

    Attributes
    ----------
    labels : (slides,) int64
    cases : tuple of str
        Case of each slide.
    slide_of : (images,) int64
        Slide that each image is of.
    image_labels : (images,) int64
    weights : (images,) float64
        In the mean over a slide; they sum to 1 there.
    mpp : (slides,) float64
    """

    def __init__(self, files: Sequence[Path], cases: Sequence[Case], mapping: ClassMapping) -> None:
        self.files = tuple(files)
        self.cases = tuple(case.case_id for case in cases)
        self.labels = np.array([label_of(case, mapping) for case in cases], np.int64)
        facts = [OWN_FILES.json_object(_facts(file), "weights", "mpp") for file in files]
        counts = [len(fact["weights"]) for fact in facts]
        self.weights = np.concatenate([_shares(fact["weights"]) for fact in facts])
        self.mpp = np.array([fact["mpp"] for fact in facts], np.float64)
        self.slide_of = np.repeat(np.arange(len(cases)), counts)
        self.image_labels = self.labels[self.slide_of]
        self._first = np.concatenate([[0], np.cumsum(counts)])

    def __len__(self) -> int:
        return len(self.slide_of)

    def batch(self, numbers: Sequence[int] | NDArray[np.integer]) -> Tensor:
        """(B, 3, S, S) uint8 of some of the images."""
        images = []
        for number in numbers:
            slide = int(self.slide_of[number])
            stack = np.load(self.files[slide], mmap_mode="r")
            images.append(np.array(stack[int(number) - self._first[slide]]))
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

    def of_slide(self, slide: int) -> NDArray[np.int64]:
        """Numbers of the images of a slide."""
        return np.arange(self._first[slide], self._first[slide + 1])


class ImageStore:
    """The folder in which the images of the slides of a run are kept.

    Parameters
    ----------
    folder : Path
        Made when absent.
    stain : {"he", "ihc"}
        Which slide of a case.
    cut : callable
        Takes an open slide and its case, and gives its `Cut`.
    """

    def __init__(self, folder: Path, stain: Stain, cut: Callable[[Slide, Case], Cut]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.stain = stain
        self.cut = cut

    def prepare(self, cases: Sequence[Case], stage: str) -> Generator[Progress, None, None]:
        """Cut the images of the slides that have none yet.

        Parameters
        ----------
        cases : sequence of Case
        stage : str
            Named in the progress.

        Yields
        ------
        Progress

        Raises
        ------
        JobFailed
            Naming the row of a slide that cannot be read, holds no tissue, or is changed while it is read.
        """
        for number, case in enumerate(cases):
            yield Progress(stage, number, len(cases), "slides")
            path = self._path(case)
            if _facts(path).exists():
                continue
            with naming_row(case), slide_to_learn(case, self.stain) as slide:
                found = self.cut(slide, case)
            if not len(found.images):
                raise JobFailed(
                    f"Row {case.row} of the manifest: the {STAINS[self.stain]} slide of case {case.case_id} "
                    f"holds too little tissue for a tile; leave it out."
                )
            with array_file(path, found.images.shape, np.uint8) as file:
                file[:] = found.images
            write_json(_facts(path), {"mpp": found.mpp, "weights": found.weights})
        yield Progress(stage, len(cases), len(cases), "slides")

    def of(self, cases: Sequence[Case], mapping: ClassMapping) -> SlideImages:
        """Return the images of cases that were prepared."""
        return SlideImages([self._path(case) for case in cases], cases, mapping)

    def _path(self, case: Case) -> Path:
        return self.folder / f"{case.row}.npy"


def _facts(path: Path) -> Path:
    return path.with_suffix(".json")


def _shares(weights: Sequence[float]) -> NDArray[np.float64]:
    given = np.array(weights, np.float64)
    return given / given.sum() if given.sum() > 0 else np.full(len(given), 1 / len(given))


def cut_thumbnails(config: ImageConfig, data: StainedCasesConfig) -> Callable[[Slide, Case], Cut]:
    """Return what reads a slide as the low-resolution model sees it."""

    def cut(slide: Slide, _: Case) -> Cut:
        tissue = tissue_to_learn(slide, data.column, check=data.check_stains)
        if not tissue.mask.any():
            return Cut(np.zeros((0, config.size_px, config.size_px, 3), np.uint8), 0.0, ())
        found = read_thumbnails(
            slide,
            tissue,
            size_px=config.size_px,
            mode=config.mode,
            mpp=config.mpp if config.mode == "fixed" else None,
            whiten=config.whiten,
        )
        refuse_damage(slide, damaged_share(tissue, tuple(found)))
        check_scale(slide, found[0].mpp)
        held = tuple(float(image.tissue.sum()) for image in found)
        return Cut(np.stack([image.rgb for image in found]), found[0].mpp, held)

    return cut


def cut_tiles(config: PatchesConfig, data: StainedCasesConfig, seed: int) -> Callable[[Slide, Case], Cut]:
    """Return what reads tiles of a slide, at most so many, drawn anew for each slide by the seed."""

    def cut(slide: Slide, case: Case) -> Cut:
        grid = slide.tile_grid(config.tile_px, config.mpp)
        check_scale(slide, config.mpp)
        keep = tissue_to_learn(slide, data.column, check=data.check_stains).keep(grid, config.min_tissue)
        index = np.argwhere(keep)
        if config.per_slide:
            drawn = np.random.default_rng([seed, case.row]).permutation(len(index))[: config.per_slide]
            index = index[np.sort(drawn)]
        wanted = np.zeros_like(keep)
        wanted[tuple(index.T)] = True
        found = [np.zeros((0, config.tile_px, config.tile_px, 3), np.uint8)]
        lost = 0
        for batch in slide.tiles(tile_px=config.tile_px, mpp=config.mpp, batch_size=16, keep=wanted):
            found.append(batch.images)
            lost += len(batch.corrupt)
        images = np.concatenate(found)
        refuse_damage(slide, lost / max(1, len(index)))
        return Cut(images, config.mpp, (1.0,) * len(images))

    return cut
