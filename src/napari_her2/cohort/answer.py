"""What a worker says of a slide, as text: plain values only, each checked where it arrives.

A task neither returns nor raises objects of its own: what it found goes as JSON, an error as its kind and its
words. So no class of a worker, of whatever version, is built here, and a wrong answer is one failed slide.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.errors import Her2Error, JobFailed, ModelError, ModelMisfit, SlideError, file_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_her2.cohort.jobs import SlideJob

MOST_CHARACTERS = 1_000_000
_MOST_TEXT = 20_000
_MOST_FACTS = 1_000


class WorkerUnfit(JobFailed):
    """A worker lacks what the cohort needs; the message goes on after "The worker at ADDRESS"."""


class NotWanted(JobFailed):
    """Nobody waits for the slide any more: whoever asked cancelled, or is gone."""


_KINDS: dict[str, type[Her2Error]] = {
    kind.__name__: kind for kind in (SlideError, ModelMisfit, ModelError, WorkerUnfit, NotWanted, JobFailed)
}


def answer_of(work: Callable[[], SlideOutcome]) -> str:
    """Do work, and say what became of it; called on a worker.

    Parameters
    ----------
    work : callable

    Returns
    -------
    str
        JSON; also where the work failed, by whatever error.
    """
    try:
        outcome = work()
    except Exception as error:  # noqa: BLE001 - told to whoever asked, who could not load it
        kind, text = _in_words(error)
        return json.dumps({"error": kind, "text": text[:_MOST_TEXT]})
    return json.dumps(
        {
            "state": outcome.state,
            "title": outcome.title,
            "written": None if outcome.written is None else str(outcome.written),
            "facts": [list(fact) for fact in outcome.facts],
            "withheld": outcome.withheld,
        }
    )


def read_answer(answer: object, job: SlideJob[Any]) -> SlideOutcome | Her2Error:
    """Read what a worker said of a slide, checking every field.

    Parameters
    ----------
    answer : object
        As it arrived.
    job : SlideJob
        That it was asked to do.

    Returns
    -------
    SlideOutcome or Her2Error
        An error where the slide failed, or the answer is none.
    """
    try:
        # Exactly: what else arrives is not even asked what it is.
        if type(answer) is not str or len(answer) > MOST_CHARACTERS:
            raise ValueError("it is no text, or too long")
        values = json.loads(answer)
        if not isinstance(values, dict):
            raise ValueError("it holds no fields")
        if "error" in values:
            return _KINDS[_text(values["error"])](_text(values["text"]))
        state = values["state"]
        if state not in ("done", "skipped"):
            raise ValueError("its state is unknown")
        return SlideOutcome(
            job.path,
            state,
            _text(values["title"]),
            _within(values["written"], job.out),
            _facts(values["facts"]),
            withheld=_yes_or_no(values["withheld"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return JobFailed(
            f"A worker gave an answer that cannot be read ({error}): check that it runs napari-her2 and "
            f"nothing else, and run this slide by itself."
        )


def _in_words(error: Exception) -> tuple[str, str]:
    """Kind and words of an error: the nearest kind that is known on the other side."""
    for kind in type(error).__mro__:
        if _KINDS.get(kind.__name__) is kind:
            return kind.__name__, str(error)
    if isinstance(error, OSError):
        text = file_problem(error)
    elif isinstance(error, MemoryError):
        text = "The memory of the worker is too short: close other programs there and try again."
    else:
        text = (
            f"The worker met a fault of its own ({type(error).__name__}: {error}): run this slide by itself "
            f"with --debug and report what it prints."
        )
    return JobFailed.__name__, text


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MOST_TEXT:
        raise ValueError("a text is missing, or too long")
    return value


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("whether its answer is withheld is missing")
    return value


def _within(value: object, out: Path) -> Path | None:
    """Return where the result lies: below the folder that was asked for, or nowhere."""
    if value is None:
        return None
    path = Path(_text(value))
    if ".." in path.parts or not path.is_relative_to(out):
        raise ValueError("its result lies elsewhere")
    return path


def _facts(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list) or len(value) > _MOST_FACTS:
        raise ValueError("its facts are no list, or too many")
    facts = []
    for fact in value:
        if not isinstance(fact, list) or len(fact) != 2:
            raise ValueError("a fact has no name")
        facts.append((_text(fact[0]), _text(fact[1])))
    return tuple(facts)
