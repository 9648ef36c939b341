"""The work of the dock HER2 Reading, in threads: files are read, written and synced there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2._napari.blinding import hashing_case, reading_answers
from napari_her2.errors import JobFailed
from napari_her2.reading.model_answers import AnswersFound, find_answers
from napari_her2.reading.sitting import Sitting
from napari_her2.reading.study_file import keep_fingerprints, read_study
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from napari_her2.inference.result import SlideResult
    from napari_her2.reading.readings import Reading
    from napari_her2.reading.worklist import Study, StudyCase
    from napari_her2.slide.reader import Slide


@dataclass(frozen=True, slots=True)
class Begun:
    """A sitting that began.

    Parameters
    ----------
    sitting : Sitting
    answers : AnswersFound
        Of models; empty where the round reveals none.
    notes : tuple of str
        What the reader should know.
    """

    sitting: Sitting
    answers: AnswersFound
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Revealed:
    """What a reader sees of a case once it is scored.

    Parameters
    ----------
    case_id : str
    lines : tuple of str
        Names of the files, and the answers of models.
    results : tuple of SlideResult
        Those of models that were kept whole, for maps.
    fingerprints : mapping of str to str
        Stain to content.
    """

    case_id: str
    lines: tuple[str, ...]
    results: tuple[SlideResult, ...]
    fingerprints: Mapping[str, str]


def opening_study(
    folder: Path, notes: tuple[str, ...] = ()
) -> Generator[Progress, None, tuple[Path, Study, tuple[str, ...]]]:
    """Read a study; ``notes`` are passed on."""
    yield Progress("Opening the study")
    return folder, read_study(folder), notes


def beginning(folder: Path, study: Study, reader: str, round_name: str) -> Generator[Progress, None, Begun]:
    """Begin a sitting."""
    yield Progress("Opening the readings")
    answers = find_answers(study.results) if study.reveals_after(round_name) else AnswersFound()
    notes = answers.notes
    if study.blinded and notes:  # folders of results are named after slides
        notes = ("Some results of models cannot be read: ask whoever runs the study.",)
    sitting = Sitting(folder, study, reader, round_name)
    return Begun(sitting, answers, (*sitting.notes, *notes))


def saving(sitting: Sitting, score: str, **entered: object) -> Generator[Progress, None, Reading]:
    """Save a reading; see `Sitting.save`."""
    yield Progress("Saving")
    return sitting.save(score, **entered)  # type: ignore[arg-type]  # as the form has it


def skipping(sitting: Sitting, reason: str, seconds: float = 0.0) -> Generator[Progress, None, Reading]:
    """Save why a case is not read."""
    yield Progress("Saving")
    return sitting.skip(reason[:1000], seconds)


def fingerprinting(
    folder: Path, case: StudyCase, slides: Sequence[Slide]
) -> Generator[Progress, None, dict[str, str]]:
    """Work out the content of the slides of a case, and note it in the study."""
    found = yield from hashing_case(case, slides)
    with suppress(JobFailed):  # every reading holds it too
        keep_fingerprints(folder, case.case_id, found)
    return found


def revealing(
    begun: Begun, case: StudyCase, slides: Sequence[Slide], known: Mapping[str, str]
) -> Generator[Progress, None, Revealed]:
    """Collect what a reader sees of a case once it is scored."""
    yield Progress("Looking for results")
    prints = dict(known) if len(known) == len(slides) else (yield from hashing_case(case, slides))
    answers = begun.answers.of(prints.values())
    ids = {
        prints[of.stain]: slide.slide_id
        for of, slide in zip(case.slides, slides, strict=True)
        if of.stain in prints
    }
    results = yield from reading_answers(answers, ids)
    lines = [f"File: {slide.path.name}" for slide in slides]
    lines += [f"{answer.model}: {answer.label}" for answer in answers]
    if begun.sitting.study.results and not answers:
        lines.append("No model has a result for this case.")
    return Revealed(case.case_id, tuple(lines), tuple(results), prints)
