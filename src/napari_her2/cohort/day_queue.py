"""A day's list: how its cases stand with one or several models, kept in the folder of their results.

`napari_her2.cohort.day_run.score_day_steps` scores what waits in it.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2.cohort.case_table import case_answers
from napari_her2.cohort.day_file import (
    DAY_FILE,
    DayState,
    append_item,
    going_on,
    held_day,
    read_day,
    write_day,
)
from napari_her2.cohort.day_items import STATES, DayModel, DaySettings, Item, planned
from napari_her2.cohort.sources import absolute
from napari_her2.errors import JobFailed
from napari_her2.export.result_files import RESULT_FILE
from napari_her2.whole_files import check_writable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from napari_her2.cohort.case_answer import CaseAnswer
    from napari_her2.cohort.day_items import State
    from napari_her2.cohort.day_list import DayList
    from napari_her2.cohort.entry import Entry
    from napari_her2.models.card import ModelCard


class DayQueue:
    """A list in the folder that its results go to.

    Parameters
    ----------
    folder : Path
        It holds a list, see `DayQueue.begin`.

    Raises
    ------
    JobFailed
        If it holds none, or one that cannot be read.

    Attributes
    ----------
    folder : Path
    changes : list of int
        Numbers of the items that changed, in the order in which they did; whoever shows them remembers how
        far it has read.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = absolute(folder)
        self.changes: list[int] = []
        self._enough = threading.Event()
        state = read_day(self.folder)
        self._settings, self.entries, self.models = state.settings, state.entries, state.models
        self._items = list(map(self._still_there, state.items))

    @classmethod
    def begin(
        cls,
        folder: Path | str,
        cases: DayList | Sequence[Entry],
        models: Sequence[tuple[Path | str, ModelCard]],
        settings: DaySettings | None = None,
    ) -> DayQueue:
        """Begin a list, or go on with the one in the folder.

        Parameters
        ----------
        folder : Path or str
            For the results: a folder for each model in it, with a folder for each slide. What a list there
            has done already for the same case and model by the same settings stays done; cases and models
            that are not given any more leave the list, their results stay.
        cases : DayList or sequence of Entry
        models : sequence of (Path or str, ModelCard)
            Each by its name or file, and its card.
        settings : DaySettings, optional

        Returns
        -------
        DayQueue

        Raises
        ------
        JobFailed
            If there is nothing to score, the folder cannot be written, or somebody works on its list.
        """
        target, chosen = absolute(folder), settings or DaySettings()
        entries = tuple(cases if isinstance(cases, list | tuple) else cases.entries)  # type: ignore[union-attr]
        cards = {card.name: (DayModel.of(card, source), card) for source, card in models}
        if not entries or not cards:
            raise JobFailed("A list takes at least one case and one model: choose both.")
        check_writable(target)
        chosen = replace(chosen, options=chosen.options.calibrated())
        items = planned(entries, [card for _, card in cards.values()], chosen.case_slides)
        state = DayState(entries, tuple(model for model, _ in cards.values()), items, chosen)
        with held_day(target):
            if (target / DAY_FILE).is_file():
                state = going_on(state, read_day(target))
            write_day(target, state)
        return cls(target)

    @property
    def items(self) -> tuple[Item, ...]:
        """How every case stands with every model."""
        return tuple(self._items)

    def item(self, number: int) -> Item:
        """Return how a case stands with a model, by the number of the item."""
        return self._items[number]

    @property
    def settings(self) -> DaySettings:
        """How its slides are scored."""
        return self._settings

    def counts(self) -> dict[State, int]:
        """Return how many items are in each state."""
        found = Counter(item.state for item in self._items)
        return {state: found[state] for state in STATES}

    def entry_of(self, item: Item) -> Entry:
        """Return the case of an item."""
        return self.entries[item.entry]

    def model_of(self, item: Item) -> DayModel:
        """Return the model of an item."""
        return self.models[item.model]

    def folder_of(self, item: Item) -> Path | None:
        """Folder of its result; None where there is none."""
        return self.folder / item.folder if item.folder else None

    def case_answers(self, *, lone: bool = False) -> list[CaseAnswer]:
        """Join the results of cases with several slides that are there, by model; read from their files.

        With ``lone``, those of one slide are told beside them.
        """
        folders = [self.folder_of(item) for item in self._items if item.state == "done"]
        return case_answers((folder for folder in folders if folder is not None), lone=lone)

    def pause(self) -> None:
        """Begin no other slide; those under way are finished.

        To stop at once, close the generator of `napari_her2.cohort.day_run.score_day_steps`.
        """
        self._enough.set()

    def rested(self) -> None:
        """Let slides be begun again: nothing is under way any more."""
        self._enough.clear()

    @property
    def pausing(self) -> bool:
        """Whether it pauses after what is under way."""
        return self._enough.is_set()

    def can_retry(self, number: int) -> bool:
        """Whether an item failed, or was skipped because its slides had a problem."""
        item = self._items[number]
        entry = self.entries[item.entry]
        return item.state == "failed" or (
            item.state == "skipped" and bool(entry.slides) and item.reason == entry.problem
        )

    def retry(self, numbers: Iterable[int] | None = None) -> int:
        """Let items that failed, or whose slides had a problem, be tried again.

        Parameters
        ----------
        numbers : iterable of int, optional
            By default all that failed.

        Returns
        -------
        int
            How many wait again.

        Raises
        ------
        JobFailed
            If the folder cannot be written to, or somebody works on the list.
        """
        chosen = range(len(self._items)) if numbers is None else numbers
        again = [number for number in chosen if self.can_retry(number)]
        entries = list(self.entries)
        for number in again:
            at = self._items[number].entry
            entries[at] = replace(entries[at], problem="")  # whoever opens the slide will see
        with held_day(self.folder):
            self.entries = tuple(entries)
            for number in again:
                self._items[number] = self._items[number].again()
            self.write()
        self.changes += again
        return len(again)

    def leave_out(self, numbers: Iterable[int]) -> None:
        """Skip items that wait."""
        with held_day(self.folder):
            for number in numbers:
                item = self._items[number]
                if item.state == "waiting":
                    self.set(number, replace(item, state="skipped", reason="left out by you"))

    def set(self, number: int, item: Item) -> None:
        """Keep how an item stands now; on the disk first."""
        append_item(self.folder, number, item)
        self._items[number] = item
        self.changes.append(number)

    def write(self) -> None:
        """Write the list anew, as it stands."""
        write_day(self.folder, DayState(self.entries, self.models, self.items, self._settings))

    def _still_there(self, item: Item) -> Item:
        """Let an item whose result is gone wait again."""
        gone = item.state == "done" and not (self.folder / item.folder / RESULT_FILE).is_file()
        return item.again() if gone else item
