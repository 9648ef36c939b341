"""Rows of a table brought together with the slides in a folder; what is missing or double is named."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from napari_her2.number_words import counted
from napari_her2.outside import shown
from napari_her2_training.cohort.manifest import STAINS
from napari_her2_training.cohort_sources.found import Found, ManifestRow, checked, named_few

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from napari_her2_training.cohort.manifest import Stain
    from napari_her2_training.cohort_sources.slide_names import SlideIndex
    from napari_her2_training.cohort_sources.tables import CaseTable, TableRow


@dataclass(slots=True)
class Gathered:
    """What comes together on the way to a `Found`."""

    rows: list[ManifestRow] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def found(self, table: CaseTable | None = None) -> Found:
        """Return it, checked."""
        if table is not None:
            self.faults += table.faults
            self.notes += table.all_notes()
        columns = None if table is None else table.columns
        return checked(
            Found(
                tuple(self.rows), tuple(self.faults), tuple(self.missing), tuple(self.doubled),
                tuple(self.notes), columns,
            )
        )  # fmt: skip

    def note_unused(self, index: SlideIndex, part: str = "") -> None:
        """Say which slides belong to no row; ``part`` names the rows."""
        used = {path for row in self.rows for path in (row.he, row.ihc) if path is not None}
        unused = [path for path in index.slides if path not in used]
        if unused:
            named = named_few(map(index.shown, unused))
            verb = "belongs" if len(unused) == 1 else "belong"
            self.notes.append(
                f"{counted(len(unused), 'slide')} {verb} to no row{f' of {part}' if part else ''}: {named}."
            )

    def one_of(
        self, row: TableRow, case_id: str, paths: Sequence[Path], index: SlideIndex, what: str
    ) -> Path | None:
        """Return the only one of the slides that could be meant; else say what is wrong."""
        if len(paths) == 1:
            return paths[0]
        where = f"{row.where}, case {shown(case_id, 40)}"
        if not paths:
            self.missing.append(f"{where}: there is no slide {what} in {shown(index.folder.name)}.")
        else:
            self.doubled.append(
                f"{where}: {len(paths)} slides could be {what}, {index.several(paths)}: take one out, or "
                f"name it with its folder in the table."
            )
        return None


def row_of(table: CaseTable, row: TableRow, mapped: Mapping[str, str], case_id: str = "") -> ManifestRow:
    """Make a row of the manifest of what a table says, still without slides."""
    return ManifestRow(
        row.where,
        case_id or row.text("case_id"),
        score=table.score(row, mapped),
        ish=table.ish(row),
        split=table.split(row),
        fold=table.fold(row),
        mpp=table.mpp(row),
        ihc_mpp=table.mpp(row, "ihc_mpp"),
    )


def add_slides(
    gathered: Gathered,
    row: TableRow,
    manifest_row: ManifestRow,
    index: SlideIndex,
    places: Sequence[Path],
    unnamed: Stain,
) -> None:
    """Find the slides of a row, by the names in it or by its case, and keep the row where there is one."""
    case_id = manifest_row.case_id
    slides: dict[Stain, Path | None] = {"he": None, "ihc": None}
    whole = True
    named = {stain: row.text(stain) for stain in slides}
    if any(named.values()):
        for stain, text in named.items():
            if text:
                paths = index.named(text, *places)
                slides[stain] = gathered.one_of(row, case_id, paths, index, f'"{shown(text, 60)}"')
                whole = whole and slides[stain] is not None
    else:
        by_stain = {stain: index.of_case(case_id, stain, unnamed=unnamed) for stain in slides}
        if not any(by_stain.values()):
            gathered.one_of(row, case_id, (), index, f"of the case {shown(case_id, 40)}")
            return
        for stain, paths in by_stain.items():
            if paths:
                slides[stain] = gathered.one_of(row, case_id, paths, index, f"its {STAINS[stain]} slide")
                whole = whole and slides[stain] is not None
    if whole:
        gathered.rows.append(replace(manifest_row, he=slides["he"], ihc=slides["ihc"]))


def with_scale(rows: Iterable[ManifestRow], mpp: float | None) -> list[ManifestRow]:
    """Give the slides of rows that have no µm/px the one that the user gave."""
    return [
        replace(
            row,
            mpp=row.mpp or (mpp if row.he is not None else None),
            ihc_mpp=row.ihc_mpp or (mpp if row.ihc is not None else None),
        )
        for row in rows
    ]
