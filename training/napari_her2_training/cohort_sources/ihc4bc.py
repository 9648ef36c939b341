"""IHC4BC: fields of H&E and IHC of four stains; HER2 is told as 0/1+ against 3+."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.errors import Her2Error, JobFailed
from napari_her2.number_words import counted
from napari_her2.outside import shown
from napari_her2.spreadsheets import TABLES, WORKBOOKS
from napari_her2_training.cohort_sources.bcnb import NO_SCALE
from napari_her2_training.cohort_sources.found import Found, ManifestRow, checked, named_few
from napari_her2_training.cohort_sources.scores import NoScore, read_score
from napari_her2_training.cohort_sources.slide_names import files_in, key_of
from napari_her2_training.cohort_sources.tables import read_case_table

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2_training.cohort_sources.options import ImportOptions

_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff"})


def find_ihc4bc(folder: Path, options: ImportOptions) -> Found:
    """Find the HER2 pairs of Images/HandE/Her2 and Images/IHC/Her2: a patient a case.

    Two classes, 0/1+ and 3+, are no score of four: a list to score is written, with the label of each field
    beside it where a table in Labels has it, unless the user says what they mean.
    """
    images = next((sub for sub in folder.iterdir() if sub.name.casefold() == "images"), folder)
    he, ihc = (_fields(images, stain) for stain in ("hande", "ihc"))
    labels, notes = _labels(folder)
    rows, alone = [], []
    for name in sorted(he | ihc):
        if name not in he or name not in ihc:
            alone.append(name)
            continue
        patient = name.partition("/")[0]
        label = labels.get(key_of(name.rpartition(".")[0])) or labels.get(key_of(patient), "")
        score = _score(label, options)
        rows.append(
            ManifestRow(
                name, patient, he[name], ihc[name], score, mpp=options.mpp, ihc_mpp=options.mpp,
                label="" if score else label,
            )
        )  # fmt: skip
    if alone:
        notes.append(f"{counted(len(alone), 'field')} without the other stain left out: {named_few(alone)}.")
    if options.mpp is None:
        notes.append(NO_SCALE)
    found = checked(Found(tuple(rows), notes=tuple(notes)))
    if not found.scored:
        words = (
            "0/1+ against 3+ is no score of four: this is a list of pairs to score, no table to learn from. "
            'To learn from it all the same, say what the labels mean (--map "0/1+=0" --map "3+=3+").'
        )
        return Found(found.rows, found.faults, found.missing, found.doubled, (*found.notes, words))
    return found


def _score(label: str, options: ImportOptions) -> str:
    """Return a score only where the user said what both labels mean: 3+ alone would be half a truth."""
    if not options.mapped:
        return ""
    try:
        return read_score(label, options.mapped)
    except NoScore:
        return ""


def _fields(images: Path, stain: str) -> dict[str, Path]:
    place = images
    for wanted in (stain, "her2"):
        found = next((sub for sub in place.iterdir() if sub.is_dir() and sub.name.casefold() == wanted), None)
        if found is None:
            raise JobFailed(
                f"{shown(place.name)} has no folder {wanted}: IHC4BC has Images/HandE/Her2 and "
                f"Images/IHC/Her2."
            )
        place = found
    return {path.relative_to(place).as_posix(): path for path in files_in(place, _PICTURES)}


def _labels(folder: Path) -> tuple[dict[tuple[str, ...], str], list[str]]:
    """Read the tables of Labels that speak of HER2: the label of each patient or field."""
    place = next((sub for sub in folder.iterdir() if sub.is_dir() and sub.name.casefold() == "labels"), None)
    found: dict[tuple[str, ...], str] = {}
    notes = []
    for path in () if place is None else files_in(place, TABLES | WORKBOOKS):
        if "her2" not in path.relative_to(place or folder).as_posix().casefold():
            continue
        try:
            table = read_case_table(path, wanted=("case_id", "he", "score"), needed=("score",))
        except Her2Error as error:
            notes.append(f"The labels in {shown(path.name)} are not used: {error}")
            continue
        for row in table.rows:
            name = row.text("he").replace("\\", "/") or row.text("case_id")
            found[key_of(name.rpartition(".")[0] if row.text("he") and "." in name else name)] = row.text(
                "score"
            )
    if not found:
        notes.append("No label was found in a table under Labels: the fields have none beside them.")
    return found, notes
