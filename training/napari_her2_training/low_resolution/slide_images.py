"""Images cut from slides to learn from: one small image of a whole slide, or tiles of it.

They are cut once, a file a slide in the folder of the run: ``ROW.npy`` with the images and then ``ROW.json``,
which means that the slide is finished. A run that was stopped goes on with the next slide.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from napari_her2.inference.embeddings import refuse_damage
from napari_her2.inference.image_fit import damaged_share
from napari_her2.slide.thumbnail import count_thumbnails, read_thumbnails, thumbnail_mpp
from napari_her2.steps import Progress
from napari_her2_training.cohort.counting import Counted, count_slides
from napari_her2_training.cohort.manifest import STAINS, label_of
from napari_her2_training.cohort.reading import naming_row, slide_to_learn
from napari_her2_training.cohort.tissue import check_scale, refuse_empty, tissue_to_learn
from napari_her2_training.files import OWN_FILES, array_file, write_json

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.slide.reader import Slide
    from napari_her2_training.arm_config import StainedCasesConfig
    from napari_her2_training.classes import ClassMapping
    from napari_her2_training.cohort.manifest import Case, Stain
    from napari_her2_training.findings import Findings
    from napari_her2_training.low_resolution.config import ImageConfig, PatchesConfig

_TIMED = 16
"""Tiles that are read to time it."""


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
        self._index(cases, mapping, [OWN_FILES.json_object(_facts(file), "weights", "mpp") for file in files])

    def _index(
        self, cases: Sequence[Case], mapping: ClassMapping, facts: Sequence[Mapping[str, Any]]
    ) -> None:
        self.cases = tuple(case.case_id for case in cases)
        self.labels = np.array([label_of(case, mapping) for case in cases], np.int64)
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


class MadeUpImages(SlideImages):
    """As many images of some slides as were counted, for a step that is only timed; all are one.

    Parameters
    ----------
    counts : sequence of int
        Images of each slide.
    cases : sequence of Case
    mapping : ClassMapping
    side : int
        Pixels.
    """

    def __init__(
        self, counts: Sequence[int], cases: Sequence[Case], mapping: ClassMapping, side: int
    ) -> None:
        self.files = ()
        self._index(cases, mapping, [{"weights": (1.0,) * count, "mpp": 1.0} for count in counts])
        self._one = torch.randint(0, 255, (3, side, side), dtype=torch.uint8)

    def batch(self, numbers: Sequence[int] | NDArray[np.integer]) -> Tensor:
        """(B, 3, S, S) uint8 of some of the images."""
        return self._one.repeat(len(numbers), 1, 1, 1)


class Cutting(ABC):
    """What is cut from a slide to learn from."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def side(self) -> int:
        """Of an image, pixels."""

    @abstractmethod
    def __call__(self, slide: Slide, case: Case) -> Cut:
        """Cut the images of a slide."""

    @abstractmethod
    def count(self, slide: Slide) -> int:
        """Count the images of a slide."""

    def some(self, slide: Slide, case: Case) -> Cut:
        """Cut enough images of a slide to time it."""
        return self(slide, case)

    @property
    def wanted(self) -> int:
        """Images that a slide should give; 0: as many as it holds."""
        return 0


class ImageStore:
    """The folder in which the images of the slides of a run are kept.

    Parameters
    ----------
    folder : Path
        Made when absent.
    stain : {"he", "ihc"}
        Which slide of a case.
    cut : Cutting
    """

    def __init__(self, folder: Path, stain: Stain, cut: Cutting) -> None:
        self.folder = folder
        self.stain = stain
        self.cut = cut
        self._counts: dict[int, int] = {}

    def prepare(self, cases: Sequence[Case], stage: str) -> Generator[Progress, None, None]:
        """Cut the images of the slides that have none yet.

        Parameters
        ----------
        cases : sequence of Case
        stage : str
            Named in the progress.

        Raises
        ------
        JobFailed
            Naming the row of a slide that cannot be read, holds no tissue, or is changed while it is read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, case in enumerate(cases):
            yield Progress(stage, number, len(cases), "slides")
            path = self._path(case)
            if _facts(path).exists():
                continue
            with naming_row(case), slide_to_learn(case, self.stain) as slide:
                found = self.cut(slide, case)
                refuse_empty(slide, len(found.images))
            with array_file(path, found.images.shape, np.uint8) as file:
                file[:] = found.images
            write_json(_facts(path), {"mpp": found.mpp, "weights": found.weights})
        yield Progress(stage, len(cases), len(cases), "slides")

    def count(
        self, cases: Sequence[Case], findings: Findings, *, check: bool
    ) -> Generator[Progress, None, None]:
        """Count the images of slides, and time a few, in place of `prepare`.

        Parameters
        ----------
        cases : sequence of Case
        findings : Findings
        check : bool
            Whether a slide that does not look like its stain is a fault.
        """
        seconds: list[float] = []

        def count(slide: Slide, case: Case) -> Counted:
            taken = self.cut.count(slide)
            if taken and not seconds:
                began = time.perf_counter()
                some = len(self.cut.some(slide, case).images)
                seconds.append((time.perf_counter() - began) / max(1, some))
            return Counted(case, taken)

        found = yield from count_slides(cases, self.stain, count, findings, check=check)
        taken, side = sum(one.taken for one in found), self.cut.side
        findings.facts[self.cut.name] = (
            f"{taken:,} of {side} px, from {len(found):,} {STAINS[self.stain]} slides"
        )
        few = [one for one in found if one.taken < self.cut.wanted]
        if few:
            least = min(few, key=lambda one: one.taken)
            findings.warn(
                f"{len(few)} slides give fewer than the {self.cut.wanted} patches of [patches] per_slide, "
                f"row {least.case.row} the fewest ({least.taken})."
            )
        findings.disk_bytes += taken * side**2 * 3
        findings.spend("cutting images", seconds[0] * taken if seconds else None, "no slide could be read")
        self._counts = dict.fromkeys((case.row for case in cases), 1)
        self._counts |= {one.case.row: one.taken for one in found}

    def of(self, cases: Sequence[Case], mapping: ClassMapping) -> SlideImages:
        """Return the images of cases that were prepared; made-up ones where they were only counted."""
        if self._counts:
            return MadeUpImages([self._counts[case.row] for case in cases], cases, mapping, self.cut.side)
        return SlideImages([self._path(case) for case in cases], cases, mapping)

    def _path(self, case: Case) -> Path:
        return self.folder / f"{case.row}.npy"


def _facts(path: Path) -> Path:
    return path.with_suffix(".json")


def _shares(weights: Sequence[float]) -> NDArray[np.float64]:
    given = np.array(weights, np.float64)
    return given / given.sum() if given.sum() > 0 else np.full(len(given), 1 / len(given))


@dataclass(frozen=True, slots=True)
class Thumbnails(Cutting):
    """Reads a slide as the low-resolution model sees it."""

    config: ImageConfig
    data: StainedCasesConfig
    name: ClassVar[str] = "Small images"

    @property
    def side(self) -> int:
        """Of an image, pixels."""
        return self.config.size_px

    def __call__(self, slide: Slide, _: Case) -> Cut:
        """Read the images of a slide."""
        tissue = tissue_to_learn(slide, self.data.column, check=self.data.check_stains)
        if not tissue.mask.any():
            return Cut(np.zeros((0, self.side, self.side, 3), np.uint8), 0.0, ())
        found = read_thumbnails(slide, tissue, whiten=self.config.whiten, **self._frame)
        refuse_damage(slide, damaged_share(tissue, tuple(found)))
        check_scale(slide, found[0].mpp)
        held = tuple(float(image.tissue.sum()) for image in found)
        return Cut(np.stack([image.rgb for image in found]), found[0].mpp, held)

    def count(self, slide: Slide) -> int:
        """Count the images of a slide."""
        tissue = slide.tissue()
        check_scale(slide, thumbnail_mpp(slide, tissue, **self._frame))
        return count_thumbnails(slide, tissue, **self._frame)

    @property
    def _frame(self) -> dict[str, Any]:
        mpp = self.config.mpp if self.config.mode == "fixed" else None
        return {"size_px": self.side, "mode": self.config.mode, "mpp": mpp}


@dataclass(frozen=True, slots=True)
class Tiles(Cutting):
    """Reads tiles of a slide, at most so many, drawn anew for each slide by the seed."""

    config: PatchesConfig
    data: StainedCasesConfig
    seed: int
    name: ClassVar[str] = "Patches"

    @property
    def side(self) -> int:
        """Of a tile, pixels."""
        return self.config.tile_px

    def __call__(self, slide: Slide, case: Case) -> Cut:
        """Read the tiles of a slide."""
        config = self.config
        keep = self._keep(slide)
        index = np.argwhere(keep)
        if config.per_slide:
            drawn = np.random.default_rng([self.seed, case.row]).permutation(len(index))[: config.per_slide]
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

    def count(self, slide: Slide) -> int:
        """Count the tiles of a slide."""
        found = int(np.count_nonzero(self._keep(slide)))
        return min(found, self.config.per_slide) if self.config.per_slide else found

    def some(self, slide: Slide, case: Case) -> Cut:
        """Read a few tiles of a slide."""
        few = min(_TIMED, self.config.per_slide or _TIMED)
        return replace(self, config=replace(self.config, per_slide=few))(slide, case)

    @property
    def wanted(self) -> int:
        """Tiles that a slide should give; 0: as many as it holds."""
        return self.config.per_slide

    def _keep(self, slide: Slide) -> NDArray[np.bool_]:
        """(rows, columns) bool: the tiles with enough tissue."""
        grid = slide.tile_grid(self.config.tile_px, self.config.mpp)
        check_scale(slide, self.config.mpp)
        tissue = tissue_to_learn(slide, self.data.column, check=self.data.check_stains)
        return tissue.keep(grid, self.config.min_tissue)
