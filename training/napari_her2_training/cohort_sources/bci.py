"""BCI: registered fields of H&E and HER2 IHC, with the score of their slide in the name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2_training.cohort_sources.found import Found, ManifestRow, checked
from napari_her2_training.cohort_sources.slide_names import files_in

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2_training.cohort_sources.options import ImportOptions

MPP = 0.46
_NAME = re.compile(r"(\d+)_(train|test)_(0|1\+|2\+|3\+)\.png")


def find_bci(folder: Path, options: ImportOptions) -> Found:
    """Find the pairs of HE/train, HE/test, IHC/train and IHC/test: a case each, as patients are not known."""
    sides = {stain: _fields(folder, name) for stain, name in (("he", "HE"), ("ihc", "IHC"))}
    rows, missing, faults = [], [], []
    for name in sorted(sides["he"] | sides["ihc"]):
        he, ihc = sides["he"].get(name), sides["ihc"].get(name)
        named = _NAME.fullmatch(name)
        if named is None:
            faults.append(f"{name}: its name is none of <number>_<train or test>_<score>.png; take it away.")
        elif he is None or ihc is None:
            missing.append(f"{name}: there is no {'H&E' if he is None else 'IHC'} field of this name.")
        elif he.parent.name != named[2]:
            faults.append(f"{name}: it lies in the folder {he.parent.name} and says {named[2]} by its name.")
        else:
            mpp = options.mpp or MPP
            rows.append(
                ManifestRow(
                    name, f"{named[2]}-{named[1]}", he, ihc, named[3], split=named[2], mpp=mpp, ihc_mpp=mpp
                )
            )
    notes = [
        "Names of the fields say nothing of patients: those of one may lie on both sides of the split, and "
        "figures are kinder than those of unseen patients. The score is that of the whole slide.",
        "Corr-A-Net learns from the folder itself too (--data FOLDER), which is quicker than a table.",
    ]
    return checked(Found(tuple(rows), tuple(faults), tuple(missing), (), tuple(notes)))


def _fields(folder: Path, stain: str) -> dict[str, Path]:
    place = next(
        (sub for sub in folder.iterdir() if sub.is_dir() and sub.name.casefold() == stain.casefold()), None
    )
    if place is None:
        raise JobFailed(f"{folder.name} has no folder {stain}: choose that with HE and IHC in it.")
    return {path.name: path for path in files_in(place, {".png"})}
