"""HER2-IHC-40x: pictures of HER2 IHC in a folder for each score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.outside import shown
from napari_her2.slide.names import slide_name
from napari_her2_training.classes import SCORE_NAMES
from napari_her2_training.cohort_sources.bcnb import NO_SCALE
from napari_her2_training.cohort_sources.found import Found, ManifestRow, checked, split_of
from napari_her2_training.cohort_sources.slide_names import files_in

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2_training.cohort_sources.options import ImportOptions

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
_FOLDER = "wsi-based"


def find_her2_ihc_40x(folder: Path, options: ImportOptions) -> Found:
    """Find the pictures of {train,test}/class_{0,1+,2+,3+}: the folder is the label, a picture a case."""
    place = next(
        (sub for sub in folder.iterdir() if sub.is_dir() and sub.name.casefold().startswith(_FOLDER)), folder
    )
    rows: list[ManifestRow] = []
    faults: list[str] = []
    taken: dict[str, Path] = {}
    for path in files_in(place, _PICTURES):
        where = path.relative_to(place).as_posix()
        words = path.parent.name.casefold().removeprefix("class").strip("_- ")
        split = split_of(path.parent.parent.name)
        if words not in SCORE_NAMES or not split:
            faults.append(f"{shown(where)}: it lies in no folder such as train/class_2+; take it away.")
            continue
        name = f"{split}-{slide_name(path)}"
        if name in taken:
            other = taken[name].relative_to(place).as_posix()
            faults.append(f"{shown(where)}: {shown(other)} has the same name; rename one of the two.")
            continue
        taken[name] = path
        rows.append(
            ManifestRow(where, name, None, path, SCORE_NAMES[words], split=split, ihc_mpp=options.mpp)
        )
    if not rows and not faults:
        raise JobFailed(
            f"{folder.name} holds no picture in train/class_0 to test/class_3+: choose the folder of "
            f"HER2-IHC-40x."
        )
    notes = [
        "Names of the pictures say nothing of patients: those of one may lie on both sides of the split, and "
        "figures are kinder than those of unseen patients."
    ]
    if options.mpp is None:
        notes.append(NO_SCALE)
    return checked(Found(tuple(rows), tuple(faults), notes=tuple(notes)))
