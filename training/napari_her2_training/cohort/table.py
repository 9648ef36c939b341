"""The table of cases, read and split: for a run, and for a dry run, which hears of all that is in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2_training.cohort.checks import ish_warnings, split_warnings
from napari_her2_training.cohort.manifest import PARTS, SPLITS, label_of, read_manifest
from napari_her2_training.cohort.splits import absent_classes, fold_name, make_splits
from napari_her2_training.findings import Enough, noted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_her2_training.classes import ClassMapping
    from napari_her2_training.cohort.manifest import Case, Stain
    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.config_sections import CasesConfig
    from napari_her2_training.findings import Findings


@dataclass(frozen=True, slots=True)
class Table:
    """The cases of a manifest.

    Parameters
    ----------
    cases : tuple of Case
        None where the manifest is at fault.
    splits : tuple of Split
        None where they cannot be split.
    """

    cases: tuple[Case, ...] = ()
    splits: tuple[Split, ...] = ()

    @property
    def used(self) -> tuple[Case, ...]:
        """Cases of any part of any fold; all where they cannot be split."""
        return self._of(PARTS)

    @property
    def judged(self) -> tuple[Case, ...]:
        """Those that are learnt from, choose the epoch or are measured on: not those of calibration."""
        return self._of(SPLITS)

    def _of(self, parts: Sequence[str]) -> tuple[Case, ...]:
        rows = {case.row for split in self.splits for part in parts for case in getattr(split, part)}
        return tuple(case for case in self.cases if case.row in rows or not self.splits)

    @property
    def learnt(self) -> frozenset[int]:
        """Rows of the cases that are learnt from, or choose the epoch, in any fold."""
        return frozenset(case.row for split in self.splits for case in (*split.train, *split.validation))


def read_table(
    data: Path, needed: Sequence[Stain], config: CasesConfig, findings: Findings | None = None
) -> Table:
    """Read and split the manifest.

    Parameters
    ----------
    data : Path
    needed : sequence of {"he", "ihc"}
        Stains that every row must have.
    config : CasesConfig
    findings : Findings, optional
        Hears of what is in the table, and of its faults.

    Returns
    -------
    Table
        Without splits only where findings heard why there are none.

    Raises
    ------
    JobFailed
        Naming the faults.
    """
    cases: tuple[Case, ...] = ()
    splits: tuple[Split, ...] = ()
    with noted(findings):
        cases = read_manifest(data, needed)
    if findings is not None:
        if not cases:
            raise Enough
        _add_case_facts(cases, config.mapping, findings)
    with noted(findings):
        splits = make_splits(cases, config)
    if findings is not None and splits:
        _add_split_facts(cases, splits, config.mapping, findings)
    return Table(cases, splits)


def _add_case_facts(cases: Sequence[Case], mapping: ClassMapping, findings: Findings) -> None:
    different = len({case.case_id for case in cases})
    findings.facts["Cases"] = f"{different:,} in {len(cases):,} rows; classes {mapping.in_words()}"
    findings.warnings += ish_warnings(cases)
    if any(case.ish for case in cases):
        findings.facts["ISH"] = (
            f"a 2+ with a positive ISH is learnt as {mapping.ish}"
            if mapping.ish
            else "in the table, and not used: the classes rest on the IHC score alone"
        )


def _add_split_facts(
    cases: Sequence[Case], splits: Sequence[Split], mapping: ClassMapping, findings: Findings
) -> None:
    for number, split in enumerate(splits):
        name = f"Fold {number + 1}" if len(splits) > 1 else "Split"
        findings.facts[name] = "; ".join(
            f"{part} {_class_counts(getattr(split, part), mapping)}" for part in PARTS if getattr(split, part)
        )
        for part in SPLITS[1:]:
            absent = absent_classes(getattr(split, part), mapping) if getattr(split, part) else ()
            if absent:
                findings.warn(
                    f"No {part} case of {', '.join(absent)} in {fold_name(number, len(splits))}: its "
                    f"measures say nothing of that class."
                )
    findings.facts["Leakage"] = "no case, and no slide by its content, is in two parts"
    findings.warnings += split_warnings(cases, splits, mapping)


def _class_counts(cases: Sequence[Case], mapping: ClassMapping) -> str:
    """Say how many cases there are of each class: "12 (3 of 0, 4 of 1+, 5 of 2+)"."""
    labels = {case.case_id: label_of(case, mapping) for case in cases}
    counts = Counter(labels.values())
    per_class = ", ".join(f"{counts[number]} of {name}" for number, name in enumerate(mapping.names))
    return f"{len(labels)} ({per_class})"
