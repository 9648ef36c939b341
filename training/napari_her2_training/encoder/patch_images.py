"""The pixels of a folder of patches, read when they are asked for: data sets are larger than memory.

Image files are decoded once, into ``OUT/patches``, so that every file is known to be whole before anything is
learnt; HDF5 files are read where they lie.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.errors import Her2Error, JobFailed
from napari_her2.steps import Progress
from napari_her2_training.cohort.hdf5 import HDF5_ERRORS, damaged_hdf5, open_dataset
from napari_her2_training.encoder.patches import MadeUpPatches, Patches
from napari_her2_training.files import array_file
from napari_her2_training.pictures import place, read_picture

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2_training.encoder.config import PatchFolderConfig
    from napari_her2_training.encoder.patch_folder import Part, PatchFolder
    from napari_her2_training.encoder.patches import PatchStack
    from napari_her2_training.findings import Findings

MEASURED_PATCHES = 20_000
"""From so many patches, spread over all, the mean and the deviation of their pixels are measured at most."""
_AT_ONCE = 256
_MOST_NAMED, _MOST_FAULTS = 10, 100


@dataclass(frozen=True, slots=True, eq=False)
class StoredPatches:
    """Patches whose pixels stay on disk, with their labels.

    Parameters
    ----------
    images : PatchStack
        N patches of (t, t, 3) uint8.
    labels : (N,) int64
    """

    images: PatchStack
    labels: NDArray[np.int64]

    def mean_std(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of RGB on [0, 1], over `MEASURED_PATCHES` of them at most."""
        count = len(self.labels)
        chosen = np.unique(np.linspace(0, count - 1, min(count, MEASURED_PATCHES)).astype(np.int64))
        return Patches(self.images[chosen], self.labels[chosen]).mean_std()


class ArrayImages:
    """Patches in a ``.npy`` file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._array: NDArray[np.uint8] = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: slice | NDArray[np.integer]) -> NDArray[np.uint8]:
        return np.array(self._array[index])


class HDF5Images:
    """Patches in a dataset ``x``; the file is open only while it is read.

    Parameters
    ----------
    path : Path
    rows : (N,) int64
        Where each lies, in ascending order.
    tile_px : int
        Patches of another size are brought to it.
    """

    def __init__(self, path: Path, rows: NDArray[np.int64], tile_px: int) -> None:
        self.path, self.rows, self.tile_px = path, rows, tile_px

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | NDArray[np.integer]) -> NDArray[np.uint8]:
        rows = self.rows[index]
        images = np.zeros((len(rows), self.tile_px, self.tile_px, 3), np.uint8)
        with open_dataset(self.path, "x") as found:
            try:
                # One by one: a list of rows costs HDF5 many times as much.
                for place, row in enumerate(rows.tolist()):
                    images[place] = resized(found[row], self.tile_px)
            except HDF5_ERRORS as error:
                raise damaged_hdf5(self.path, error) from error
        return images


def open_patches(
    found: PatchFolder, part: str, config: PatchFolderConfig, folder: Path
) -> Generator[Progress, None, StoredPatches]:
    """Open the patches of a part, after their files were decoded where they are images.

    Parameters
    ----------
    found : PatchFolder
    part : {"train", "validation", "test"}
    config : PatchFolderConfig
    folder : Path
        Where decoded patches are kept; made when absent.

    Raises
    ------
    JobFailed
        Naming the files that cannot be read, or have another size.
    """
    own = found.parts[part]
    if own.hdf5 is not None and own.rows is not None:
        return StoredPatches(HDF5Images(own.hdf5, own.rows, config.tile_px), own.labels)
    path = folder / f"{part}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        yield from _decode(own, path, config, f"Reading the {part} patches")
    return StoredPatches(ArrayImages(path), own.labels)


def _decode(part: Part, path: Path, config: PatchFolderConfig, stage: str) -> Generator[Progress, None, None]:
    side, faults = config.tile_px, []
    with array_file(path, (len(part), side, side, 3), np.uint8) as images:
        for number, file in enumerate(part.files):
            if number % _AT_ONCE == 0:
                yield Progress(stage, number, len(part), "patches")
            try:
                images[number] = read_patch(file, config)
            except JobFailed as error:
                faults.append(str(error))
        if faults:
            more = f" And {len(faults) - _MOST_NAMED} more." if len(faults) > _MOST_NAMED else ""
            raise JobFailed(" ".join(faults[:_MOST_NAMED]) + more)
    yield Progress(stage, len(part), len(part), "patches")


def count_patches(
    found: PatchFolder, config: PatchFolderConfig, findings: Findings
) -> Generator[Progress, None, dict[str, MadeUpPatches]]:
    """Read every image file and keep none, in place of `open_patches`.

    Parameters
    ----------
    found : PatchFolder
    config : PatchFolderConfig
    findings : Findings
        Hears of those that cannot be used, and of those that two parts share.

    Returns
    -------
    dict of str to MadeUpPatches
        By part.
    """
    for part, own in found.parts.items():
        in_words = ", ".join(f"{count:,} of {name}" for name, count in own.counts(found.classes).items())
        findings.facts[f"Patches ({part})"] = f"{len(own):,} ({in_words})"
        findings.disk_bytes += len(own.files) * config.tile_px**2 * 3
    for note in found.notes:
        findings.warn(note)
    files = [(file, part) for part, own in found.parts.items() for file in own.files]
    began, faults = time.perf_counter(), len(findings.faults)
    first: dict[bytes, tuple[Path, str]] = {}
    shared: list[str] = []
    for number, (file, part) in enumerate(files):
        if number % _AT_ONCE == 0:
            yield Progress("Reading the patches", number, len(files), "patches")
        try:
            content = hashlib.blake2b(read_patch(file, config).tobytes(), digest_size=16).digest()
        except Her2Error as error:
            if len(findings.faults) - faults < _MOST_FAULTS:
                findings.faults.append(str(error))
            continue
        other, its_part = first.setdefault(content, (file, part))
        if its_part != part:
            shared.append(f"{place(file, 1)} ({part}) is {place(other, 1)} ({its_part})")
    if shared:
        findings.warn(
            f"{len(shared)} patches are in two parts, so that the encoder is judged by what it learnt: "
            f"{', '.join(shared[:_MOST_NAMED])}{' and others' if len(shared) > _MOST_NAMED else ''}."
        )
    if files:
        findings.spend("reading patches", time.perf_counter() - began)
        yield Progress("Reading the patches", len(files), len(files), "patches")
    classes, side = len(found.classes), config.tile_px
    findings.memory_bytes += min(len(found.parts["train"]), MEASURED_PATCHES) * side**2 * 3
    return {part: MadeUpPatches(len(own), side, classes) for part, own in found.parts.items()}


def read_patch(file: Path, config: PatchFolderConfig) -> NDArray[np.uint8]:
    """Read a patch.

    Parameters
    ----------
    file : Path
        PNG, JPEG or TIFF.
    config : PatchFolderConfig

    Returns
    -------
    (t, t, 3) uint8
        RGB.

    Raises
    ------
    JobFailed
        Naming the file, where it cannot be read or has another size.
    """
    name = place(file, 1)
    image = read_picture(file)
    height, width = image.shape[:2]
    if height != width or (width != config.tile_px and not config.resize):
        advice = "cut squares" if height != width else "set [data] tile_px, or resize = true"
        raise JobFailed(
            f"{name} has {width} x {height} px, not {config.tile_px} x {config.tile_px} px: {advice}."
        )
    return resized(image, config.tile_px)


def resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Bring a square patch to a size: averaged over areas, or enlarged bilinearly."""
    if image.shape[0] == side:
        return image
    kernel = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_LINEAR
    changed: NDArray[np.uint8] = cv2.resize(image, (side, side), interpolation=kernel)
    return changed
