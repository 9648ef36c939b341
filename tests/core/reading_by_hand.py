"""Studies and readings made by hand."""

from __future__ import annotations

from pathlib import Path

from napari_her2.reading.readings import Reading
from napari_her2.reading.worklist import Study, StudyCase, StudySlide

SCORE = ("0, no staining", "0, with membrane staining", "1+", "2+", "3+")


def make_study(cases: int = 12, readers: tuple[str, ...] = ("Anna", "Ben"), **options: object) -> Study:
    made = tuple(
        StudyCase(f"case-{n}", (StudySlide(Path(f"/slides/case-{n}.svs"), "IHC", fingerprint=f"print {n}"),))
        for n in range(1, cases + 1)
    )
    return Study("HER2 by eye", made, readers, **options)


def readings_of(levels: dict[str, list[int | None]], round_name: str = "1") -> list[Reading]:
    """Readings of case-1, case-2, ... by their level among the five, None where the case was not read."""
    return [
        Reading(reader, f"case-{n}", round_name, SCORE[level])
        for reader, given in levels.items()
        for n, level in enumerate(given, start=1)
        if level is not None
    ]
