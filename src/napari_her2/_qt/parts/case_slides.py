"""How several slides of a case give one answer: a choice for trainings and for lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_her2._qt.parts.text import Combo, Label, tip
from napari_her2.models.case_slides import EACH, HIGHEST, JOINED_ANSWERS, JOINED_BAGS, MEAN

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORDS = {
    EACH: ("Each slide by itself", "Every row has an answer of its own."),
    JOINED_BAGS: (
        "Tiles of all its slides",
        "All tiles of a case are one bag, with one answer.",
    ),
}
_MEAN = "Every slide is answered by itself; the answer of the case is the mean of their probabilities."
_HIGHEST = "Every slide is answered by itself; the slide whose answer lies highest speaks for the case."
_JOINED = "Every slide is answered by itself, and the answers are joined as the model has it."


class CaseSlides(QWidget):
    """A list of ways.

    Parameters
    ----------
    usual : str
        Caption of the first entry, which leaves the way to the model or to the configuration.
    what : str
        What it does, for its tooltip.
    rules : bool
        Whether it is chosen, too, how answers are joined.

    Attributes
    ----------
    changed : Signal()
    """

    changed = Signal()

    def __init__(self, usual: str, what: str, *, rules: bool) -> None:
        super().__init__()
        self._usual, self._what, self._rules = usual, what, rules
        self.choice = Combo("Slides of a case")
        self.caption = Label("Slides of a &case")
        self.caption.setBuddy(self.choice)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.caption)
        layout.addWidget(self.choice, 1)
        self.set_ways((EACH, JOINED_BAGS, JOINED_ANSWERS))
        self.choice.currentIndexChanged.connect(self._on_choice)

    @property
    def way(self) -> str:
        """Of `napari_her2.models.case_slides.WAYS`; empty for the usual one."""
        return str(self._chosen[0])

    @property
    def rule(self) -> str:
        """Of `napari_her2.models.case_slides.RULES`; empty where none is chosen."""
        return str(self._chosen[1])

    @property
    def _chosen(self) -> tuple[str, str]:
        data = self.choice.currentData()
        return ("", "") if data is None else (data[0], data[1])

    def set_ways(self, ways: Sequence[str]) -> None:
        """Offer these ways; what was chosen stays where it is among them."""
        before = self._chosen
        self.choice.blockSignals(True)
        self.choice.clear()
        self._add(self._usual, "", "", self._what)
        for way in ways:
            if way in _WORDS:
                self._add(_WORDS[way][0], way, "", _WORDS[way][1])
            elif self._rules:
                self._add("Answers joined: mean", way, MEAN, _MEAN)
                self._add("Answers joined: highest", way, HIGHEST, _HIGHEST)
            else:
                self._add("Answers joined", way, "", _JOINED)
        self.choice.blockSignals(False)
        self.choose(*before)
        self._show_tip()

    def choose(self, way: str, rule: str = "") -> None:
        """Choose a way; one that is not offered is the usual one."""
        wanted = (way, (rule or MEAN) if way == JOINED_ANSWERS and self._rules else "")
        data = [tuple(self.choice.itemData(row)) for row in range(self.choice.count())]
        self.choice.setCurrentIndex(data.index(wanted) if wanted in data else 0)

    def _add(self, words: str, way: str, rule: str, what: str) -> None:
        self.choice.addItem(words, (way, rule))
        self.choice.setItemData(self.choice.count() - 1, tip(what), Qt.ItemDataRole.ToolTipRole)

    def _on_choice(self) -> None:
        self._show_tip()
        self.changed.emit()

    def _show_tip(self) -> None:
        text = self.choice.itemData(self.choice.currentIndex(), Qt.ItemDataRole.ToolTipRole)
        self.setToolTip(str(text or ""))
        self.choice.setAccessibleDescription(str(text or ""))
