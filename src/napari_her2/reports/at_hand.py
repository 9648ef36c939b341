"""What a report or a replay is made from, found again: the kept result, its slides, the card of its model."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.cohort.case_table import case_answers
from napari_her2.desk.own_score import ISH_RESULTS, SCORES, ManualScore
from napari_her2.errors import Her2Error, JobFailed
from napari_her2.export.kept_result import read_kept
from napari_her2.export.result_files import KEPT_NAME, RESULT_FILE
from napari_her2.inference.unchanged import identified
from napari_her2.methods.catalogue import METHODS
from napari_her2.models.bundle_card import read_card
from napari_her2.models.registry import find_model
from napari_her2.outside import Reading
from napari_her2.slide.reader import open_slide

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from contextlib import ExitStack

    from napari_her2.cohort.case_answer import CaseAnswer
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide
    from napari_her2.models.card import ModelCard
    from napari_her2.slide.reader import Slide
    from napari_her2.steps import Progress

MANUAL_FILE = "manual.json"
_MANUAL = Reading(limit=1 << 20, advice="write it again from the dock")
_LONGEST_NOTE = 2000


def kept_path(result: Path) -> Path:
    """Return the kept result that a path leads to.

    Parameters
    ----------
    result : Path
        The folder of a result, its result.json, or the file itself.

    Raises
    ------
    JobFailed
        If there is none.
    """
    folder = result if result.is_dir() else result.parent
    path = result if result.suffix == Path(KEPT_NAME).suffix else folder / KEPT_NAME
    if path.is_file():
        return path
    if (folder / RESULT_FILE).is_file():
        raise JobFailed(
            f"{folder} holds a {RESULT_FILE} but no {KEPT_NAME}, which older versions did not write: "
            "score the slide again."
        )
    raise JobFailed(f"{result} is no result: give the folder that `score` wrote, or the result.json in it.")


def result_at(result: Path) -> SlideResult:
    """Read the kept result that a path leads to; see `kept_path`."""
    return read_kept(kept_path(result))


def manual_beside(kept: Path) -> ManualScore:
    """Read the pathologist's own score beside a kept result; an empty one where there is none.

    Raises
    ------
    JobFailed
        If the file is none of ours.
    """
    path = kept.parent / MANUAL_FILE
    if not path.is_file():
        return ManualScore()
    values = _MANUAL.json_object(path, "score", "ish", "note")
    score, ish, note = values["score"], values["ish"], values["note"]
    if score not in SCORES or ish not in ISH_RESULTS or not isinstance(note, str):
        raise _MANUAL.refusal(path, "holds no score of a pathologist")
    return ManualScore(score, ish, note[:_LONGEST_NOTE])


def case_beside(result: SlideResult, folder: Path) -> CaseAnswer | None:
    """Join the answers of a case whose results lie beside one of them.

    Parameters
    ----------
    result : SlideResult
    folder : Path
        Its own; results of the other slides lie in those beside it.

    Returns
    -------
    CaseAnswer or None
        None where its slides are not answered together.
    """
    if result.case is None:
        return None
    beside = [of for of in sorted(folder.parent.iterdir()) if of.is_dir() and not of.is_symlink()]
    wanted = (result.case.case_id, result.model)
    return next((of for of in case_answers(beside) if (of.case_id, of.model) == wanted), None)


def slides_steps(
    result: SlideResult, stack: ExitStack, given: Sequence[Path] = ()
) -> Generator[Progress, None, dict[str, Slide]]:
    """Open the slides of a result that are at hand.

    Parameters
    ----------
    result : SlideResult
    stack : ExitStack
        Closes them.
    given : sequence of Path
        Where slides lie now, if they were moved.

    Yields
    ------
    Progress

    Returns
    -------
    dict
        By fingerprint. A slide of another content is none of the result.
    """
    wanted = {scored.fingerprint: scored for scored in result.slides}
    found: dict[str, Slide] = {}
    for path in (*given, *(scored.path for scored in result.slides)):
        if set(wanted) == set(found):
            break
        try:
            slide = open_slide(path)
        except Her2Error:
            continue
        yield from identified(slide)
        scored = wanted.get(slide.fingerprint)
        if scored is None or slide.fingerprint in found:
            slide.close()
            continue
        found[slide.fingerprint] = stack.enter_context(_scaled(slide, scored))
    return found


def _scaled(slide: Slide, scored: ScoredSlide) -> Slide:
    """Return the slide with the µm/px that it was scored with."""
    if slide.mpp == scored.grid.slide_mpp:
        return slide
    slide.close()
    return open_slide(slide.path, mpp=scored.grid.slide_mpp)


def card_at_hand(result: SlideResult) -> ModelCard | None:
    """Return the card of the very model that scored; None where it is not at hand."""
    method = METHODS[result.method]
    if not method.needs_weights:
        return method.own_card()
    path = model_at_hand(result)
    return None if path is None else read_card(path)


def model_at_hand(result: SlideResult) -> Path | None:
    """Find the file of the model that scored, by its hash: where it lay, or among the models; else None."""
    places = [] if result.asked is None or result.asked.model_path is None else [result.asked.model_path]
    with suppress(Her2Error):  # it was removed, or was never installed
        places.append(find_model(result.model).path)
    return next((path for path in places if sha256_of(path) == result.model_sha256), None)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
