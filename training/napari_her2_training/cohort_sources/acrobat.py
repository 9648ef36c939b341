"""ACROBAT: whole slides of H&E and IHC of the same tumours at 10x, without scores."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.number_words import counted
from napari_her2_training.cohort_sources.found import Found, ManifestRow, checked, named_few, split_of
from napari_her2_training.cohort_sources.slide_names import files_in, natural
from napari_her2_training.cohort_sources.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_her2_training.cohort_sources.options import ImportOptions

_NAME = re.compile(r"(\d+)_(HE|HER2|ER|PGR|PR|KI67)_(train|val|test)\.tiff?", re.IGNORECASE)
_LOWEST, _HIGHEST = 0.7, 1.3
"""µm/px of 10x: what the table says of other magnifications is not that of these files."""


def find_acrobat(folder: Path, options: ImportOptions) -> Found:
    """Find the pairs of H&E and HER2 IHC: a list to score, since no score is given."""
    cases: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    parts: dict[str, str] = {}
    for path in files_in(folder, {".tif", ".tiff"}):
        named = _NAME.fullmatch(path.name)
        if named is not None:
            case_id = f"{named[3].lower()}-{named[1]}"
            cases[case_id][named[2].upper()].append(path)
            parts[case_id] = split_of(named[3]) or ""
    if not cases:
        raise JobFailed(f"{folder.name} holds no slide such as 0_HE_train.tif: choose the folder of ACROBAT.")
    scale, notes = _scale(folder)
    rows, doubled, without = [], [], []
    for case_id in sorted(cases, key=natural):
        stains = cases[case_id]
        several = next((stain for stain in ("HE", "HER2") if len(stains[stain]) > 1), None)
        if several is not None:
            named_as = " and ".join(str(path.relative_to(folder)) for path in stains[several][:3])
            doubled.append(f"Case {case_id}: several {several} slides, {named_as}: take one out.")
        elif not stains["HE"] or not stains["HER2"]:
            without.append(case_id)
        else:
            he, ihc = stains["HE"][0], stains["HER2"][0]
            mpp = options.mpp or scale.get(he.stem.casefold())
            ihc_mpp = options.mpp or scale.get(ihc.stem.casefold())
            rows.append(
                ManifestRow(he.name, case_id, he, ihc, split=parts[case_id], mpp=mpp, ihc_mpp=ihc_mpp)
            )
    if without:
        count = counted(len(without), "case")
        notes.append(f"{count} without H&E and HER2 both left out: {named_few(without)}.")
    notes.append(
        "ACROBAT has no scores: this is a list of pairs to score (score --list), no table to learn from. Its "
        "landmarks are not read."
    )
    return checked(Found(tuple(rows), (), (), tuple(doubled), tuple(notes)))


def _scale(folder: Path) -> tuple[Mapping[str, float], list[str]]:
    """Read µm/px of the slides from df_acrobat_meta.csv, by the name of the file without its ending."""
    path = next((path for path in files_in(folder, {".csv"}) if "meta" in path.stem.casefold()), None)
    if path is None:
        return {}, []
    table = TABLES.table(path)
    names = {name.casefold(): name for name in table.columns}
    file, mpp = names.get("filename"), names.get("mpp") or names.get("mpp_10x")
    if file is None or mpp is None:
        return {}, [f"{path.name} has no columns filename and mpp: µm/px are those that the slides state."]
    found, other = {}, 0
    for _, row in table.rows:
        try:
            value = float(row[mpp] or "nan")
        except ValueError:
            continue
        if _LOWEST <= value <= _HIGHEST:
            name = str(row[file] or "").replace("\\", "/").rpartition("/")[2]
            found[name.rpartition(".")[0].casefold() or name.casefold()] = value
        elif value == value:
            other += 1
    notes = []
    if other:
        notes.append(
            f"{path.name} gives {counted(other, 'slide')} a µm/px that 10x cannot have: there the slides' "
            f"own is taken."
        )
    return found, notes
