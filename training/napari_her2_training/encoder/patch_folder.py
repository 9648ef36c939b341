"""A folder of labelled patches: listed, checked and split, before any is learnt from.

Three ways to lay it out, told apart by what is there:

- ``CLASS/*.png``: a folder for each class; a share of the patches is held out to check with;
- ``train/CLASS/*.png`` and ``val/CLASS/*.png`` (``valid`` and ``validation`` do too), perhaps ``test``;
- the HDF5 files of PatchCamelyon (Veeling et al. 2018, arXiv:1806.03962) as published: ``*_train_x.h5`` with
  ``x`` (N, 96, 96, 3) uint8 and ``*_train_y.h5`` with ``y`` (N, 1, 1, 1); so too ``valid`` and ``test``.

Images are PNG, JPEG or TIFF. Whose patch one is says ``groups.csv`` in the folder (columns ``file`` and
``group``), or a pattern for the names of the files.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from napari_her2.errors import JobFailed
from napari_her2.outside import MiB, Reading
from napari_her2_training.cohort.hdf5 import HDF5_ERRORS, damaged_hdf5, open_dataset
from napari_her2_training.cohort.manifest import SPLITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2_training.encoder.config import PatchFolderConfig

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_TABLES = Reading(limit=64 * MiB, advice="save it anew, as CSV in UTF-8 with commas")
GROUPS_FILE = "groups.csv"
_PARTS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)
}  # fmt: skip
_MOST_NAMED = 10


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The patches of "train", "validation" or "test".

    Parameters
    ----------
    labels : (N,) int64
    files : tuple of Path
        Of each patch; empty where they lie in HDF5.
    hdf5 : Path or None
        The file with the pixels, ``x``.
    rows : (N,) int64 or None
        Where each lies in it.
    """

    labels: NDArray[np.int64]
    files: tuple[Path, ...] = ()
    hdf5: Path | None = None
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, classes: Sequence[str]) -> dict[str, int]:
        """Patches of each class."""
        found = np.bincount(self.labels, minlength=len(classes)).tolist()
        return dict(zip(classes, found, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class PatchFolder:
    """What a folder of patches holds.

    Parameters
    ----------
    classes : tuple of str
        In the order of the class numbers, which is that of their names.
    parts : mapping of str to Part
        "train" and "validation", and "test" where there is one.
    notes : tuple of str
        What a person should know of the split, a sentence each.
    """

    classes: tuple[str, ...]
    parts: Mapping[str, Part]
    notes: tuple[str, ...] = ()


def read_patch_folder(folder: Path, config: PatchFolderConfig) -> PatchFolder:
    """List the patches of a folder and split them; no image is opened.

    Raises
    ------
    JobFailed
        With what is wrong with the folder, naming files and classes.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise JobFailed(
            f"{folder} is no folder of patches: it must hold a folder for each class, or train and val with "
            f"a folder for each class, or the HDF5 files of PatchCamelyon."
        )
    try:
        found = _hdf5_parts(folder, config) or _image_parts(folder, config)
    except OSError as error:
        reason = error.strerror or error
        raise JobFailed(f"{folder} cannot be read ({reason}): check the files and their rights.") from error
    _check(found, folder)
    return found


def _check(found: PatchFolder, folder: Path) -> None:
    if len(found.classes) < 2:
        raise JobFailed(
            f"{folder.name} has the one class {found.classes[0]!r}: an encoder learns to tell two or more "
            f"apart."
        )
    for part in ("train", "validation"):
        if part not in found.parts:
            raise JobFailed(f"{folder.name} has a folder for {part} patches, but holds none: add some.")
        counts = found.parts[part].counts(found.classes)
        absent = [name for name, count in counts.items() if not count]
        if absent:
            raise JobFailed(
                f"No {part} patch of {', '.join(absent)} in {folder.name}: add some, or change the split."
            )


def _image_parts(folder: Path, config: PatchFolderConfig) -> PatchFolder:
    places = {
        part: next((folder / name for name in names if (folder / name).is_dir()), None)
        for part, names in _PARTS.items()
    }
    if places["train"] is None and any(places.values()):
        raise JobFailed(f"{folder} has a folder for checking or testing, but no folder train to learn from.")
    learn = places["train"] or folder
    classes = tuple(sorted(item.name for item in _folders(learn)))
    given: dict[str, list[tuple[Path, int]]] = {}
    for part, place in (("train", learn), *((part, places[part]) for part in SPLITS[1:])):
        if place is not None:
            given[part] = _listed(place, classes, folder)
    if not given["train"]:
        raise JobFailed(
            f"{folder} holds no patch: it needs folders named after the classes with PNG, JPEG or TIFF files "
            f"in them, or train and val with such folders, or the HDF5 files of PatchCamelyon."
        )
    groups = _groups(folder, config, [path for listed in given.values() for path, _ in listed])
    notes: list[str] = []
    if "validation" not in given:
        labels = np.array([label for _, label in given["train"]], np.int64)
        names = [groups[path] for path, _ in given["train"]] if groups else None
        keep, held = _hold_out(labels, names, config)
        given["validation"] = [given["train"][i] for i in held]
        given["train"] = [given["train"][i] for i in keep]
        if not groups:
            notes.append(
                "Nothing says whose patches these are, so patches of one patient may lie on both sides of "
                "the split: its figures are kinder than those of unseen patients."
            )
    if groups:
        _check_groups({part: {groups[path] for path, _ in listed} for part, listed in given.items()}, folder)
    parts = {
        part: Part(np.array([label for _, label in given[part]], np.int64), tuple(p for p, _ in given[part]))
        for part in SPLITS
        if given.get(part)
    }
    return PatchFolder(classes, parts, tuple(notes))


def _folders(place: Path) -> list[Path]:
    return [item for item in sorted(place.iterdir()) if item.is_dir() and not item.name.startswith(".")]


def _listed(place: Path, classes: Sequence[str], folder: Path) -> list[tuple[Path, int]]:
    found: list[tuple[Path, int]] = []
    for own in _folders(place):
        images = sorted(path for path in own.rglob("*") if path.suffix.lower() in SUFFIXES)
        images = [path for path in images if not path.name.startswith(".")]
        if own.name not in classes:
            raise JobFailed(
                f"{own.relative_to(folder)} is no class to learn: train holds "
                f"{', '.join(classes) or 'none'}. Call classes alike in every part."
            )
        found += [(path, classes.index(own.name)) for path in images]
    return found


def _groups(folder: Path, config: PatchFolderConfig, paths: Sequence[Path]) -> dict[Path, str]:
    """Whose patch each is; empty where nothing says it."""
    file = folder / GROUPS_FILE
    if config.groups:
        pattern = _pattern(config.groups)
        matches = {path: pattern.search(path.name) for path in paths}
        lost = [path for path, match in matches.items() if match is None]
        _refuse(lost, folder, f"do not fit [data] groups ({config.groups!r})")
        return {path: match[1] or "" for path, match in matches.items() if match is not None}
    if not file.is_file():
        return {}
    table = _TABLES.table(file)
    if not {"file", "group"} <= set(table.columns):
        raise JobFailed(f"{GROUPS_FILE} needs the columns file and group.")
    group_of = {folder / row["file"]: (row["group"] or "").strip() for _, row in table.rows if row["file"]}
    _refuse([path for path in paths if not group_of.get(path)], folder, f"have no group in {GROUPS_FILE}")
    return {path: group_of[path] for path in paths}


def _pattern(groups: str) -> re.Pattern[str]:
    try:
        return re.compile(groups)
    except (re.error, RecursionError, OverflowError) as error:
        raise JobFailed(
            f"[data] groups {groups!r:.80} is no regular expression ({error}): correct it."
        ) from error


def _refuse(paths: Sequence[Path], folder: Path, why: str) -> None:
    if paths:
        named = ", ".join(str(path.relative_to(folder)) for path in paths[:_MOST_NAMED])
        more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
        raise JobFailed(f"These patches {why}: {named}{more}.")


def _check_groups(groups: Mapping[str, set[str]], folder: Path) -> None:
    for number, part in enumerate(groups):
        for other in list(groups)[number + 1 :]:
            shared = sorted(groups[part] & groups[other])
            if shared:
                raise JobFailed(
                    f"{shared[0]!r} has patches in {part} and in {other} of {folder.name} ({len(shared)} "
                    f"such groups): keep the patches of one patient together."
                )


def _hold_out(
    labels: NDArray[np.int64], groups: Sequence[str] | None, config: PatchFolderConfig
) -> tuple[list[int], list[int]]:
    """Numbers of the patches to learn from and to check with, each class in proportion, groups whole."""
    numbers = np.arange(len(labels))
    try:
        if groups is None:
            keep, held = train_test_split(
                numbers, test_size=config.validation, random_state=config.seed, stratify=labels
            )
        else:
            folds = max(2, round(1 / config.validation))
            splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=config.seed)
            with warnings.catch_warnings():
                # A class with fewer patches than folds: whether it is on both sides is checked after.
                warnings.filterwarnings("ignore", message="The least populated class")
                keep, held = next(splitter.split(numbers, labels, groups))
    except ValueError as error:
        what = f"{len(labels)} patches" if groups is None else f"{len(set(groups))} groups of patches"
        raise JobFailed(
            f"{what} are too few to hold out {config.validation:.0%} of every class: add some, or give a "
            f"part val."
        ) from error
    return sorted(keep.tolist()), sorted(held.tolist())


def _hdf5_parts(folder: Path, config: PatchFolderConfig) -> PatchFolder | None:
    found: dict[str, tuple[Path, NDArray[np.int64]]] = {}
    for part, names in _PARTS.items():
        for name in names:
            pixels = sorted(folder.glob(f"*_{name}_x.h5")) + sorted(folder.glob(f"{name}_x.h5"))
            if len(pixels) > 1:
                raise JobFailed(f"{pixels[0].name} and {pixels[1].name} both hold {part} patches: keep one.")
            if pixels:
                found[part] = pixels[0], _hdf5_labels(pixels[0], config)
    for packed in sorted(folder.glob("*_[xy].h5.gz")):
        if not packed.with_suffix("").is_file():
            raise JobFailed(f"{packed.name} is compressed as a whole: unpack the .gz files first.")
    if not found:
        return None
    if "train" not in found:
        raise JobFailed(f"{folder} holds no file *_train_x.h5 to learn from.")
    count = int(max(labels.max() for _, labels in found.values())) + 1
    parts = {
        part: Part(labels, hdf5=path, rows=np.arange(len(labels))) for part, (path, labels) in found.items()
    }
    notes: tuple[str, ...] = ()
    if "validation" not in parts:
        path, labels = found["train"]
        for part, rows in zip(("train", "validation"), _hold_out(labels, None, config), strict=True):
            chosen = np.array(rows, np.int64)
            parts[part] = Part(labels[chosen], hdf5=path, rows=chosen)
        notes = ("There is no file *_valid_x.h5: a share of the training patches is held out.",)
    classes = tuple(str(number) for number in range(count))
    return PatchFolder(classes, {part: parts[part] for part in SPLITS if part in parts}, notes)


def _hdf5_labels(pixels: Path, config: PatchFolderConfig) -> NDArray[np.int64]:
    """Labels of a part; the pixels beside them are checked without being read."""
    other = pixels.with_name(pixels.name.removesuffix("_x.h5") + "_y.h5")
    if not other.is_file():
        raise JobFailed(f"{pixels.name} has no {other.name} with the labels beside it.")
    labels = np.asarray(_dataset(other, "y")[1]).reshape(-1)
    shape, _ = _dataset(pixels, "x", values=False)
    side = config.tile_px
    if len(shape) != 4 or shape[3] != 3 or len(labels) != shape[0] or not len(labels):
        raise JobFailed(
            f"{pixels.name} holds patches of shape {shape} for {len(labels)} labels: it must be one RGB "
            f"patch a label."
        )
    if shape[1:3] != (side, side) and not config.resize:
        raise JobFailed(
            f"{pixels.name} has patches of {shape[2]} x {shape[1]} px, not of {side} px: set [data] tile_px, "
            f"or [data] resize = true, which changes their µm/px."
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 1000:
        raise JobFailed(f"{other.name} must hold class numbers from 0 on.")
    return labels.astype(np.int64)


def _dataset(path: Path, name: str, *, values: bool = True) -> tuple[tuple[int, ...], NDArray[np.generic]]:
    with open_dataset(path, name) as found:
        if name == "x" and found.dtype != np.uint8:
            raise JobFailed(f"{path.name} holds {found.dtype!s:.60}, not bytes: get it again.")
        try:
            return tuple(found.shape), np.asarray(found[()] if values else 0)
        except HDF5_ERRORS as error:
            raise damaged_hdf5(path, error) from error
