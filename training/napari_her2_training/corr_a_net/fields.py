"""Fields of H&E and IHC as the networks take them, cut once and kept in the folder of the run.

A file for each part of the data and each stain: what is not asked for is not read. So a run that needs no
IHC of the test part proves it by never having made, or opened, that file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from napari_her2.errors import JobFailed
from napari_her2.models.preprocessing import TilePreparation
from napari_her2.slide.stain import guess_stain
from napari_her2.steps import Progress
from napari_her2_training.cohort.manifest import STAINS
from napari_her2_training.files import array_file

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.slide.macenko import StainTransform
    from napari_her2_training.cohort.manifest import Stain
    from napari_her2_training.findings import Findings

_LIGHTEST_STAINED = 220


@dataclass(frozen=True, slots=True)
class FieldList:
    """Which fields a part of the data holds.

    Parameters
    ----------
    labels : tuple of int
        Class of each.
    cases : tuple of str
        Case of each; where cases are not known, the name of the field.
    slides : tuple of int
        Number of the slide of each: those of a slide are scored together.
    """

    labels: tuple[int, ...]
    cases: tuple[str, ...]
    slides: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)


class FieldSource(Protocol):
    """Where fields come from: a folder of patches, or slides."""

    field_px: int

    def listed(self, part: str) -> FieldList:
        """Say which fields a part ("train", "validation" or "test") holds."""
        ...

    def cut(self, part: str, stain: Stain) -> Iterator[NDArray[np.uint8]]:
        """Yield the fields of a part in their order, some at a time: (n, 3, field_px, field_px) uint8."""
        ...


class FieldStore:
    """Fields that were cut before, or are when first asked for.

    Parameters
    ----------
    folder : Path
        Made when absent.
    source : FieldSource
    findings : Findings, optional
        Nothing is cut: fields are made up, all of them one.
    """

    def __init__(self, folder: Path, source: FieldSource, findings: Findings | None = None) -> None:
        if findings is None:
            folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.source = source
        self.findings = findings

    def listed(self, part: str) -> FieldList:
        """Say which fields a part holds."""
        return self.source.listed(part)

    def labels(self, part: str) -> NDArray[np.int64]:
        """(N,) int64 classes of the fields of a part."""
        return np.array(self.listed(part).labels, np.int64)

    def prepare(self, part: str, stain: Stain) -> Generator[Progress, None, None]:
        """Cut the fields of a part in one stain, unless they are there.

        Parameters
        ----------
        part : {"train", "validation", "test"}
        stain : {"he", "ihc"}
        """
        path, count, side = self._path(part, stain), len(self.listed(part)), self.source.field_px
        if path.exists() or self.findings is not None:
            return
        stage, done = f"Cutting {STAINS[stain]} fields ({part})", 0
        yield Progress(stage, 0, count, "fields")
        with array_file(path, (count, 3, side, side), np.uint8) as fields:
            for some in self.source.cut(part, stain):
                fields[done : done + len(some)] = some
                done += len(some)
                yield Progress(stage, done, count, "fields")
            if done != count:
                raise JobFailed(
                    f"{count - done} of {count} {STAINS[stain]} fields ({part}) could not be read: the files "
                    f"changed since they were listed, or are damaged."
                )

    def images(self, part: str, stain: Stain) -> NDArray[np.uint8]:
        """(N, 3, field_px, field_px) uint8 of a part that was prepared, mapped from the file."""
        if self.findings is not None:
            side = self.source.field_px
            one = np.random.default_rng(0).integers(0, 255, (1, 3, side, side), np.uint8)
            return np.broadcast_to(one, (len(self.listed(part)), *one.shape[1:]))
        fields: NDArray[np.uint8] = np.load(self._path(part, stain), mmap_mode="r")
        return fields

    def _path(self, part: str, stain: Stain) -> Path:
        return self.folder / f"{part}-{stain}.npy"


def averaged(
    images: NDArray[np.uint8], field_px: int, transform: StainTransform | None = None
) -> NDArray[np.uint8]:
    """Normalise fields and average them to size, by the very code that scoring uses.

    Parameters
    ----------
    images : (n, t, t, 3) uint8
    field_px : int
        Divides t.
    transform : StainTransform, optional

    Returns
    -------
    (n, 3, field_px, field_px) uint8
    """
    plain = transform is None or transform.is_identity
    prepare = TilePreparation(
        tile_px=images.shape[1],
        out_px=field_px,
        matrix=None if plain or transform is None else transform.matrix,
        offset=None if plain or transform is None else transform.offset,
    )
    small: NDArray[np.uint8] = prepare(torch.from_numpy(images)).mul_(255).round_().to(torch.uint8).numpy()
    return small


def check_he(image: NDArray[np.uint8], name: str) -> None:
    """Refuse an image among the H&E that has the colours of IHC.

    The other way round colours prove nothing: IHC without a reaction is as blue as pale H&E.

    Parameters
    ----------
    image : (h, w, 3) uint8
    name : str
        For the message.

    Raises
    ------
    JobFailed
    """
    if guess_stain(image, image.min(axis=2) < _LIGHTEST_STAINED) == "IHC":
        raise JobFailed(
            f"{name} is given as H&E but looks like IHC: put it where it belongs. If it is H&E all the same, "
            f"set [data] check_stains = false."
        )
