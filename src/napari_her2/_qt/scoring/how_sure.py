"""The part of the dock where the user says how sure an answer has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QFormLayout, QSpinBox, QWidget

from napari_her2._napari.demands import Demands
from napari_her2._qt.parts.text import Label
from napari_her2._qt.parts.theme import Colours
from napari_her2.models.answer_sets import COVERAGES

if TYPE_CHECKING:
    from napari_her2.inference.result import SlideResult

_MOST_FAMILIARITY = 50  # per cent: half of the slides that a model was checked on would be withheld


class HowSure(QWidget):
    """Spin boxes of a coverage and of a least familiarity, with what the model can promise.

    Attributes
    ----------
    changed : Signal(Demands)
        The user demands something else.
    """

    changed = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._demands = Demands()
        self.coverage = QSpinBox()
        self.coverage.setRange(*(round(100 * share) for share in COVERAGES))
        self.coverage.setSuffix(" %")
        self.coverage.setToolTip(
            "How often the set of scores has to hold the truth, of cases like those the model was calibrated "
            "on. A higher promise makes larger sets."
        )
        self.familiarity = QDoubleSpinBox()
        self.familiarity.setRange(0, _MOST_FAMILIARITY)
        self.familiarity.setDecimals(1)
        self.familiarity.setSingleStep(0.5)
        self.familiarity.setSuffix(" %")
        self.familiarity.setSpecialValueText("never")
        self.familiarity.setToolTip(
            "The answer is withheld where fewer than this share of slides like those the model was checked "
            "on would look at least as strange as this one. “never” withholds none."
        )
        self.promise = Label(wrap=True)
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for caption, box in (
            ("The set holds the truth in", self.coverage),
            ("Withhold below a familiarity of", self.familiarity),
        ):
            box.setKeyboardTracking(False)  # an answer is judged anew when a number is whole
            box.setAccessibleName(caption)
            label = Label(caption, wrap=True)
            label.setBuddy(box)
            layout.addRow(label, box)
        layout.addRow(self.promise)
        self.coverage.valueChanged.connect(self._on_changed)
        self.familiarity.valueChanged.connect(self._on_changed)
        self.set_colours(Colours())
        self.set_demands(self._demands)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.promise.setStyleSheet(f"color: {colours.muted};")

    @property
    def demands(self) -> Demands:
        """What is demanded."""
        return self._demands

    def set_demands(self, demands: Demands) -> None:
        """Show demands; nothing is reported."""
        self._demands = demands
        for box, share in ((self.coverage, demands.coverage), (self.familiarity, demands.min_familiarity)):
            box.blockSignals(True)
            box.setValue(round(100 * share) if box is self.coverage else 100 * share)
            box.blockSignals(False)

    def set_result(self, result: SlideResult | None) -> None:
        """Say what the model of a result can promise."""
        self.promise.setText("" if result is None else promise_in_words(result))

    def _on_changed(self) -> None:
        # What was not changed keeps all its digits, also those that a box does not show.
        before = self._demands
        coverage, least = self.coverage.value(), self.familiarity.value()
        self._demands = Demands(
            before.coverage if coverage == round(100 * before.coverage) else coverage / 100,
            before.min_familiarity if least == round(100 * before.min_familiarity, 1) else least / 100,
        )
        if self._demands != before:
            self.changed.emit(self._demands)


def promise_in_words(result: SlideResult) -> str:
    """Say what is promised of an answer, from how many cases, and for which; or why nothing is.

    Parameters
    ----------
    result : SlideResult

    Returns
    -------
    str
    """
    answer = result.doubt.answer
    if result.doubt.withheld:
        return "No promise holds for a slide that is unlike what the model learnt from."
    if answer is None:
        return "The model keeps no calibration cases of such answers: nothing is promised."
    if not answer.classes:
        return f"Nothing is promised: {answer.reason}."
    words = (
        f"From {answer.cases:,} calibration cases. It holds for cases like those only, and on average over "
        f"them, not for each one."
    )
    if answer.pooled:
        few = ", ".join(result.named(name) for name in answer.pooled)
        words += f" Too few of them are {few} to promise it for these alone."
    return words
