"""``study.json``: a study written whole or not at all, and read as a file that anyone may have made.

Slides inside the folder of the study are kept relative to it, so that both move together.
"""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2 import outside
from napari_her2.errors import JobFailed
from napari_her2.inference.locks import FileLock
from napari_her2.reading.worklist import Reveal, Study, StudyCase, StudySlide
from napari_her2.whole_files import not_written, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STUDY_FILE = "study.json"
_FORMAT = 1
_LOCK = ".study.lock"
_FILE = outside.Reading(limit=64 * outside.MiB, advice="choose another study, or write this one anew")


def write_study(folder: Path, study: Study, *, replace_it: bool = False) -> Path:
    """Write a study.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    study : Study
    replace_it : bool
        Whether a study that is there already is replaced.

    Returns
    -------
    Path
        Of the file.

    Raises
    ------
    JobFailed
        If there is a study already, or the folder cannot be written to.
    """
    target = folder / STUDY_FILE
    if not replace_it and target.exists():
        raise JobFailed(f"{folder} holds a study already: open it, or choose another folder.")
    text = json.dumps(_values(study, folder), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        data = text.encode() + b"\n"
    except UnicodeEncodeError as problem:
        raise JobFailed(
            "The path of a slide holds bytes that are no text, and cannot be kept: rename the file."
        ) from problem
    with whole_file(target) as file:
        file.write_bytes(data)
    return target


def read_study(folder: Path) -> Study:
    """Read the study of a folder.

    Raises
    ------
    JobFailed
        If there is none, it is damaged, or was written by a newer version.
    """
    path = folder / STUDY_FILE
    values = _FILE.json_object(path, "format")
    if values["format"] != _FORMAT:
        if isinstance(values["format"], int) and values["format"] > _FORMAT:
            raise JobFailed(
                f"The study in {folder} was written by a newer version of napari-her2: update napari-her2 to "
                f"open it."
            )
        raise _FILE.refusal(path, "is no study of napari-her2")
    try:
        return _study(values, folder)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise _FILE.refusal(path, f"is damaged ({type(problem).__name__}: {problem!s:.80})") from problem


def add_reader(folder: Path, reader: str) -> Study:
    """Add a reader to the study of a folder, and return the study."""
    with _held(folder):
        study = read_study(folder).with_reader(reader)
        write_study(folder, study, replace_it=True)
    return study


def keep_fingerprints(folder: Path, case_id: str, known: Mapping[str, str]) -> Study:
    """Note the content of the slides of a case where it is not known yet.

    Parameters
    ----------
    folder : Path
    case_id : str
    known : mapping of str to str
        Stain to fingerprint.

    Returns
    -------
    Study
    """
    with _held(folder):
        study = read_study(folder)
        case = study.case(case_id)
        slides = tuple(
            replace(slide, fingerprint=slide.fingerprint or known.get(slide.stain, ""))
            for slide in case.slides
        )
        if slides == case.slides:
            return study
        cases = tuple(replace(of, slides=slides) if of is case else of for of in study.cases)
        study = replace(study, cases=cases)
        write_study(folder, study, replace_it=True)
    return study


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep others from writing the study meanwhile."""
    lock = FileLock(folder / _LOCK, shared=True)
    try:
        if not lock.acquire():
            raise JobFailed(f"Another program is writing the study in {folder} at this moment: try again.")
    except OSError as error:
        raise not_written(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _values(study: Study, folder: Path) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "title": study.title,
        "blinded": study.blinded,
        "reveal": study.reveal,
        "seed": study.seed,
        "rounds": study.rounds,
        "washout_days": study.washout_days,
        "readers": list(study.readers),
        "results": [_written(path, folder) for path in study.results],
        "cases": [
            {"case": case.case_id, "slides": [_slide_values(slide, folder) for slide in case.slides]}
            for case in study.cases
        ],
    }


def _slide_values(slide: StudySlide, folder: Path) -> dict[str, Any]:
    return {
        "path": _written(slide.path, folder),
        "stain": slide.stain,
        "mpp": slide.mpp,
        "fingerprint": slide.fingerprint,
    }


def _written(path: Path, folder: Path) -> str:
    path, folder = path.expanduser().absolute(), folder.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _study(values: dict[str, Any], folder: Path) -> Study:
    reveal: Reveal = values["reveal"]
    return Study(
        title=_of(values["title"], str),
        cases=tuple(_case(item, folder) for item in _of(values["cases"], list)),
        readers=tuple(_of(name, str) for name in _of(values["readers"], list)),
        rounds=_whole(values["rounds"]),
        seed=_whole(values["seed"]),
        blinded=_of(values["blinded"], bool),
        reveal=_of(reveal, str),
        results=tuple(_path(item, folder) for item in _of(values["results"], list)),
        washout_days=_number(values["washout_days"]),
    )


def _case(item: Any, folder: Path) -> StudyCase:  # noqa: ANN401 - JSON
    slides = [_slide(slide, folder) for slide in _of(item["slides"], list)]
    return StudyCase(_of(item["case"], str), tuple(slides))


def _slide(item: Any, folder: Path) -> StudySlide:  # noqa: ANN401 - JSON
    mpp = None if item["mpp"] is None else _number(item["mpp"])
    return StudySlide(
        _path(item["path"], folder), _of(item["stain"], str), mpp, _of(item["fingerprint"], str)
    )


def _path(item: Any, folder: Path) -> Path:  # noqa: ANN401 - JSON
    if "\0" in _of(item, str):
        raise ValueError("a path with a NUL character")
    return folder / Path(item)


def _of(value: Any, kind: type) -> Any:  # noqa: ANN401 - JSON
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value


def _whole(value: Any) -> int:  # noqa: ANN401 - JSON
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is no whole number")
    return value


def _number(value: Any) -> float:  # noqa: ANN401 - JSON
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r:.40} is no number")
    return float(value)
