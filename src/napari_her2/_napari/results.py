"""What the models answered of the open slides: for every slide one result a model, and which is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari_her2.inference.result import SlideResult

MOST_RESULTS = 8
"""Results that one slide keeps; the oldest that is not shown gives way."""
MOST_BYTES = 1 << 30
"""Memory of all results that are not shown, beyond which the oldest of them give way."""


@dataclass(frozen=True, slots=True, eq=False)
class KeptResult:
    """A result, and when it was made.

    Parameters
    ----------
    result : SlideResult
        Whole, with the slide that it is kept for first.
    when : datetime
        With a time zone.
    """

    result: SlideResult
    when: datetime


_Key: TypeAlias = tuple[str, tuple[str, ...]]


class Results:
    """Results of all open slides, by the name of the model.

    A result of the two slides of a case is kept for both, and chosen, changed and dropped for both together,
    as long as neither was scored anew by the same model.
    """

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, KeptResult]] = {}
        self._chosen: dict[str, str] = {}

    def of(self, slide_id: str) -> Mapping[str, SlideResult]:
        """Results of a slide by the name of the model, the first one that was made first."""
        own = self._kept.get(slide_id, {})
        return MappingProxyType({model: kept.result for model, kept in own.items()})

    def kept(self, slide_id: str, model: str) -> KeptResult | None:
        """Return one result with its time; None where there is none."""
        return self._kept.get(slide_id, {}).get(model)

    @property
    def slide_ids(self) -> tuple[str, ...]:
        """Ids of the slides that have results."""
        return tuple(self._kept)

    def chosen(self, slide_id: str) -> SlideResult | None:
        """Return the result that is shown of a slide; None where there is none."""
        kept = self.kept(slide_id, self._chosen.get(slide_id, ""))
        return None if kept is None else kept.result

    def each(self) -> list[SlideResult]:
        """Results of all slides and models, each once."""
        found: dict[_Key, SlideResult] = {}
        for own in self._kept.values():
            for kept in own.values():
                found.setdefault(_key(kept.result), kept.result)
        return list(found.values())

    def add(
        self,
        result: SlideResult,
        open_ids: Iterable[str],
        *,
        when: datetime | None = None,
        chosen: bool = True,
    ) -> set[str]:
        """Keep a result for each of its slides, in place of one of the same model.

        Parameters
        ----------
        result : SlideResult
        open_ids : iterable of str
            Ids of its slides that are open; for others nothing is kept.
        when : datetime, optional
            By default now.
        chosen : bool
            Whether it is shown from now on.

        Returns
        -------
        set of str
            Ids of other slides that lost a result to the limits.
        """
        when = datetime.now().astimezone() if when is None else when
        for slide_id in open_ids:
            own = self._kept.setdefault(slide_id, {})
            own.pop(result.model, None)  # what is made anew comes last
            own[result.model] = KeptResult(result.seen_from(slide_id), when)
            if chosen:
                self._chosen[slide_id] = result.model
        return self._shrink()

    def choose(self, slide_id: str, model: str) -> list[str]:
        """Show the result of a model from now on; return the ids of the slides that it covers."""
        together = self._together(slide_id, model)
        for known in together:
            self._chosen[known] = model
        return together

    def refresh(self, result: SlideResult) -> list[str]:
        """Keep the same result judged anew; return the ids of the slides that have it.

        Slides that were scored alone by the model since, or never with it, are left out.
        """
        refreshed = []
        for slide in result.slides:
            slide_id = slide.slide_id
            kept = self.kept(slide_id, result.model)
            if kept is not None and self._is(slide_id, result):
                self._kept[slide_id][result.model] = replace(kept, result=result.seen_from(slide_id))
                refreshed.append(slide_id)
        return refreshed

    def is_chosen(self, slide_id: str, model: str) -> bool:
        """Whether the result of a model is the one that is shown of a slide."""
        return self.kept(slide_id, model) is not None and self._chosen.get(slide_id) == model

    def shows(self, slide_id: str, result: SlideResult) -> bool:
        """Whether a slide is to show a result, from whichever of its slides that is seen."""
        own = self.chosen(slide_id)
        return own is not None and _key(own) == _key(result)

    def drop(self, slide_id: str, model: str) -> list[str]:
        """Forget a result; return the ids of its slides. The last of the others takes its place."""
        together = self._together(slide_id, model)
        for known in together:
            own = self._kept[known]
            del own[model]
            if self._chosen.get(known) == model:
                self._chosen.pop(known)
                if own:
                    self._chosen[known] = next(reversed(own))
            if not own:
                del self._kept[known]
        return together

    def close(self, slide_id: str) -> None:
        """Forget all results of a slide that is open no more; the other slide of a case keeps its own."""
        self._kept.pop(slide_id, None)
        self._chosen.pop(slide_id, None)

    def _together(self, slide_id: str, model: str) -> list[str]:
        """Slides that keep one and the same result, the one that is asked for first."""
        kept = self.kept(slide_id, model)
        if kept is None:
            return []
        others = [known for known in self._kept if known != slide_id and self._is(known, kept.result)]
        return [slide_id, *others]

    def _is(self, slide_id: str, result: SlideResult) -> bool:
        own = self.kept(slide_id, result.model)
        return own is not None and _key(own.result) == _key(result)

    def _shrink(self) -> set[str]:
        """Let the oldest results give way that are not shown anywhere."""
        changed: set[str] = set()
        for slide_id in list(self._kept):
            while len(self._kept.get(slide_id, {})) > MOST_RESULTS:
                hidden = [model for model in self._kept[slide_id] if not self._is_shown(slide_id, model)]
                if not hidden:
                    break
                changed.update(self.drop(slide_id, hidden[0]))
        hidden_results = [
            (kept.when, slide_id, model, kept.result)
            for slide_id, own in self._kept.items()
            for model, kept in own.items()
            if not self._is_shown(slide_id, model)
        ]
        seen: set[int] = set()
        used = 0
        for _, slide_id, model, result in sorted(hidden_results, key=lambda of: of[0], reverse=True):
            used += sum(array.nbytes for array in _arrays(result, seen))
            if used > MOST_BYTES:
                changed.update(self.drop(slide_id, model))
        return changed

    def _is_shown(self, slide_id: str, model: str) -> bool:
        return any(self._chosen.get(known) == model for known in self._together(slide_id, model))


def _key(result: SlideResult) -> _Key:
    """Model and slides, the same from whichever slide a result is seen."""
    return result.model, tuple(sorted(slide.slide_id for slide in result.slides))


def _arrays(value: Any, seen: set[int]) -> Iterator[np.ndarray[Any, Any]]:  # noqa: ANN401 - any field
    """Arrays that a result holds, each once; those in files and in closures are not counted."""
    if id(value) in seen:
        return
    if isinstance(value, np.ndarray):
        seen.add(id(value))
        if not isinstance(value, np.memmap):
            yield value
    elif is_dataclass(value) and not isinstance(value, type):
        seen.add(id(value))
        for field in fields(value):
            yield from _arrays(getattr(value, field.name), seen)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _arrays(item, seen)
    elif isinstance(value, tuple | list) and not (value and isinstance(value[0], int | float | str)):
        for item in value:
            yield from _arrays(item, seen)
