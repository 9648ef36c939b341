"""What models answered for the cases of a study, from the folders of their results, found by content alone.

Two slides may have one name: an answer belongs to a case when it was computed from the very bytes that the
reader was shown.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2.export.result_files import RESULT_FILE, read_result
from napari_her2.outside import shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

_DEEPEST, _MOST = 4, 200_000


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """The answer of a model for a case.

    Parameters
    ----------
    model : str
    label : str
        In words, as it may be seen.
    score : str
        Class; empty where the answer is withheld, or the model measures and predicts nothing.
    class_scores : mapping of str to tuple of str
        Which scores each class holds, where the card says it.
    fingerprints : frozenset of str
        Content of the slides that it was computed from.
    folder : Path
        Of the result.
    """

    model: str
    label: str
    score: str
    class_scores: Mapping[str, tuple[str, ...]]
    fingerprints: frozenset[str]
    folder: Path


@dataclass(frozen=True, slots=True)
class AnswersFound:
    """Answers of models, and what could not be read.

    Parameters
    ----------
    answers : tuple of ModelAnswer
    notes : tuple of str
        A sentence each.
    """

    answers: tuple[ModelAnswer, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, fingerprints: Collection[str]) -> tuple[ModelAnswer, ...]:
        """Return the answers for a case with slides of this content, one a model."""
        wanted = frozenset(filter(None, fingerprints))
        found = {answer.model: answer for answer in self.answers if answer.fingerprints & wanted}
        return tuple(found[name] for name in sorted(found))


def find_answers(folders: Sequence[Path]) -> AnswersFound:
    """Read the results in folders, each itself the folder of a result or one of many.

    Parameters
    ----------
    folders : sequence of Path
        Looked through four levels deep; links to folders are not followed.
    """
    answers: list[ModelAnswer] = []
    damaged: dict[Path, list[str]] = defaultdict(list)
    notes = [
        f"{folder} is not there: its results are not shown." for folder in folders if not folder.is_dir()
    ]
    for folder in folders:
        for path in _results_in(folder):
            try:
                answers.append(_answer(read_result(path), path.parent))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                damaged[folder].append(path.parent.name)
    for folder, names in damaged.items():
        first = shown(names[0])
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        notes.append(f"{folder} holds results that cannot be read ({first}{more}): score those slides again.")
    return AnswersFound(tuple(answers), tuple(notes))


def _results_in(folder: Path) -> Iterator[Path]:
    for number, (place, inside, files) in enumerate(os.walk(folder)):
        inside.sort()
        if len(Path(place).relative_to(folder).parts) >= _DEEPEST:
            inside.clear()
        if RESULT_FILE in files:
            inside.clear()
            yield Path(place) / RESULT_FILE
        if number >= _MOST:
            return


def _answer(values: dict[str, Any], folder: Path) -> ModelAnswer:
    model, label, score = (_text(values[name]) for name in ("model", "label", "score"))
    if values.get("withheld") is True and values.get("shown_anyway") is not True:
        score = ""
    held = {
        _text(name): tuple(map(_text, scores)) for name, scores in (values.get("class_scores") or {}).items()
    }
    prints = {values.get("slide_sha256"), *(slide.get("slide_sha256") for slide in values.get("slides", []))}
    known = frozenset(item for item in prints if isinstance(item, str) and item)
    return ModelAnswer(model, label, score, held, known, folder)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value
