"""A folder of paired patches, laid out as the BCI data set (Liu et al. 2022, arXiv:2204.11425).

``HE/train``, ``HE/test``, ``IHC/train`` and ``IHC/test`` hold ``<index>_<split>_<score>.png``; the two stains
of a place have the same name. Names say nothing of patients, so that patches of one may lie on both sides of
a split: figures from such a folder are of patches, and kinder than those of unseen patients.

Differences from the published code of Corr-A-Net
-------------------------------------------------
- It pairs what two unsorted listings of folders happen to have in one place, and takes labels from a
  separate file. Here both come from the name, and every file without a partner is named.
- Colours are red, green, blue, and H&E is normalised as the paper tells: one Macenko fit of the training
  patches for all. The weak stain of IHC is what is to be seen, and stays.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import train_test_split

from napari_her2.errors import JobFailed
from napari_her2.models.class_scores import SCORES
from napari_her2.slide.macenko import fit_macenko, he_transform, sample_pixels
from napari_her2.slide.names import slide_name
from napari_her2_training.cohort.manifest import STAINS
from napari_her2_training.corr_a_net.fields import FieldList, averaged, check_he
from napari_her2_training.pictures import place, read_picture

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.slide.macenko import StainTransform
    from napari_her2_training.cohort.manifest import Stain
    from napari_her2_training.corr_a_net.config import FieldDataConfig
    from napari_her2_training.findings import Findings

_FOLDERS: Mapping[Stain, str] = {"he": "HE", "ihc": "IHC"}
_SPLITS = ("train", "test")
_NAME = re.compile(r"\d+_(train|test)_(0|1\+|2\+|3\+)\.png")
_MOST_FAULTS = 20
_AT_ONCE = 8
_PATCHES_TO_FIT = 256


@dataclass(frozen=True, slots=True)
class Patch:
    """Two images of one place."""

    he: Path
    ihc: Path
    score: str

    def image(self, stain: Stain) -> Path:
        """Return the image of a stain."""
        return self.he if stain == "he" else self.ihc


def is_bci_folder(path: Path) -> bool:
    """Whether a path is a folder, which is then expected to be laid out as told above."""
    return path.is_dir()


def read_bci(folder: Path) -> dict[str, tuple[Patch, ...]]:
    """List the pairs of a folder and check all names; no image is opened.

    Returns
    -------
    dict of "train" and "test" to tuple of Patch
        In the order of the names.

    Raises
    ------
    JobFailed
        Naming every faulty file, the first twenty of them.
    """
    faults: list[str] = []
    found: dict[str, tuple[Patch, ...]] = {}
    for split in _SPLITS:
        names = {stain: _names(folder, stain, split, faults) for stain in _FOLDERS}
        for stain, other in (("he", "ihc"), ("ihc", "he")):
            faults += [
                f"{_FOLDERS[stain]}/{split}/{name} has no {STAINS[other]} image of the same name."  # type: ignore[index]
                for name in sorted(names[stain] - names[other])  # type: ignore[index]
            ]
        found[split] = tuple(
            Patch(folder / "HE" / split / name, folder / "IHC" / split / name, _score(name))
            for name in sorted(names["he"] & names["ihc"])
        )
        if not found[split] and not faults:
            faults.append(f"HE/{split} and IHC/{split} hold no patch.")
    if faults:
        more = f" And {len(faults) - _MOST_FAULTS} more." if len(faults) > _MOST_FAULTS else ""
        raise JobFailed(f"{folder.name} has {len(faults)} faults. {' '.join(faults[:_MOST_FAULTS])}{more}")
    return found


def _names(folder: Path, stain: Stain, split: str, faults: list[str]) -> set[str]:
    where = f"{_FOLDERS[stain]}/{split}"
    try:
        listed = [item.name for item in (folder / where).iterdir() if not item.name.startswith(".")]
    except OSError as error:
        faults.append(
            f"{where} cannot be listed ({error.strerror or error}): the folder needs HE/train, HE/test, "
            f"IHC/train and IHC/test."
        )
        return set()
    good = set()
    for name in sorted(listed):
        named_as = _NAME.fullmatch(name)
        if named_as is None:
            faults.append(f"{where}/{name} is not named <index>_{split}_<score>.png, score 0, 1+, 2+ or 3+.")
        elif named_as[1] != split:
            faults.append(f"{where}/{name} says {named_as[1]} by its name: it belongs to that folder.")
        else:
            good.add(name)
    return good


def _score(name: str) -> str:
    return name.removesuffix(".png").rpartition("_")[2]


class BCIFolder:
    """The fields of such a folder, split for training.

    Training patches are split into "train" and "validation", each score in proportion; "test" is as given.

    Raises
    ------
    JobFailed
        For faulty names, or too few patches to split.
    """

    def __init__(self, folder: Path, config: FieldDataConfig) -> None:
        self.config = config
        self.field_px = config.field_px
        given = read_bci(folder)
        scores = [patch.score for patch in given["train"]]
        try:
            learn, check = train_test_split(
                list(given["train"]), test_size=config.validation, random_state=config.seed, stratify=scores
            )
        except ValueError as error:
            raise JobFailed(
                f"{len(scores)} patches are too few to hold out {config.validation:.0%} of every score: add "
                f"patches."
            ) from error
        self.parts: Mapping[str, tuple[Patch, ...]] = {
            "train": tuple(learn), "validation": tuple(check), "test": given["test"]
        }  # fmt: skip

    def listed(self, part: str) -> FieldList:
        """Say which patches a part holds; their names stand for the cases, which are not known."""
        patches = self.parts[part]
        return FieldList(
            tuple(SCORES.index(patch.score) for patch in patches),
            tuple(slide_name(patch.he) for patch in patches),
            tuple(range(len(patches))),
        )

    def cut(self, part: str, stain: Stain) -> Iterator[NDArray[np.uint8]]:
        """Read, check, normalise (H&E) and average the patches of a part."""
        transform = self.he_transform if stain == "he" else None
        paths = [patch.image(stain) for patch in self.parts[part]]
        for first in range(0, len(paths), _AT_ONCE):
            images = []
            for path in paths[first : first + _AT_ONCE]:
                image = self._read(path)
                if stain == "he" and self.config.check_stains:
                    check_he(image, place(path, 2))
                images.append(image)
            yield averaged(np.stack(images), self.field_px, transform)

    def pixels(self, part: str, number: int) -> NDArray[np.uint8]:
        """Read the H&E patch of a number in a part, as it lies: (tile_px, tile_px, 3) uint8."""
        return self._read(self.parts[part][number].he)

    def tell(self, findings: Findings) -> None:
        """Tell what a folder holds; of each part one patch is read, with a stopwatch."""
        for part, patches in self.parts.items():
            labels = self.listed(part).labels
            per_class = ", ".join(f"{labels.count(number)} of {name}" for number, name in enumerate(SCORES))
            findings.facts[f"Patches ({part})"] = f"{len(labels):,} ({per_class})"
            for path in (patches[0].he, patches[0].ihc):
                began = time.perf_counter()
                self._read(path)
                findings.spend("cutting fields", (time.perf_counter() - began) * len(labels))
        findings.warn(
            "Names of the patches say nothing of patients: those of one may lie on both sides of the split, "
            "and figures are kinder than those of unseen patients."
        )

    @cached_property
    def he_transform(self) -> StainTransform:
        """What brings H&E to the reference: fitted once, to training patches, for all."""
        paths = [patch.he for patch in self.parts["train"]]
        step = max(1, len(paths) // _PATCHES_TO_FIT)
        return he_transform(fit_macenko(sample_pixels(self._read(path) for path in paths[::step])))

    def _read(self, path: Path) -> NDArray[np.uint8]:
        side = self.config.tile_px
        image = read_picture(path, "PNG image", folders=2)
        height, width = image.shape[:2]
        if (height, width) != (side, side):
            raise JobFailed(
                f"{place(path, 2)} has {width} x {height} pixels, not {side} x {side}: all must have the "
                f"size that [data] tile_px tells."
            )
        pixels: NDArray[np.uint8] = image
        return pixels
