"""The curves of a training, stage by stage: loss, and measures on the validation cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.training.curve_plot import CurvePlot, Line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2._qt.parts.theme import Colours
    from napari_her2.training_runs.log import Curve, StageCurves

_SHORT_FORMS = {"auc": "AUC", "f1": "F1", "mcc": "MCC"}


class CurvesView(QWidget):
    """Loss and measures of one stage, with other folds of it behind; nothing before the first epoch."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._stages: tuple[StageCurves, ...] = ()
        self.combo = Combo()
        self.combo.setAccessibleName("Stage whose curves are shown")
        self.combo.setToolTip("Stage whose curves are shown; other folds of it lie faint behind")
        self.waiting = Label("Curves appear after the first epoch.", wrap=True)
        self.loss, self.measures = CurvePlot("Loss"), CurvePlot("Validation", of_one=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self.waiting, self.combo, self.loss, self.measures):
            layout.addWidget(widget)
        self.combo.currentIndexChanged.connect(self._show)
        self.clear()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.waiting.setStyleSheet(f"color: {colours.muted};")
        for plot in (self.loss, self.measures):
            plot.set_colours(colours)

    def clear(self) -> None:
        """Show no curves."""
        self.set_stages(())

    def set_stages(self, stages: Sequence[StageCurves]) -> None:
        """Show curves; the latest stage is followed unless another one was chosen."""
        follows = self.combo.currentIndex() == self.combo.count() - 1
        before = self.combo.currentIndex()
        self._stages = tuple(stages)
        titles = [stage.title for stage in stages]
        if titles != [self.combo.itemData(at) for at in range(self.combo.count())]:
            self.combo.blockSignals(True)
            self.combo.clear()
            for title in titles:
                self.combo.addItem(title, title)
            self.combo.setCurrentIndex(len(titles) - 1 if follows else min(before, len(titles) - 1))
            self.combo.blockSignals(False)
        self._show()

    def _show(self) -> None:
        at = self.combo.currentIndex()
        stage = self._stages[at] if 0 <= at < len(self._stages) else None
        self.waiting.setVisible(stage is None)
        self.combo.setVisible(len(self._stages) > 1)
        loss, measures = ((), ()) if stage is None else (stage.of_loss(), stage.of_measures())
        self.loss.setVisible(bool(loss))
        self.measures.setVisible(bool(measures))
        if stage is None:
            return
        behind = [other for other in self._stages if other.stage == stage.stage and other is not stage]
        self.loss.set_lines([*_lines(loss), *(line for other in behind for line in _faint(other.of_loss()))])
        more = (line for other in behind for line in _faint(other.of_measures()))
        self.measures.set_lines([*_lines(measures), *more])


def _lines(curves: Sequence[Curve], *, faint: bool = False) -> list[Line]:
    lines, style = [], 1
    for curve in curves:
        of_training = curve.name.startswith("train")
        label = "" if faint else in_words(curve.name)
        lines.append(Line(label, curve.points, 0 if of_training else style, faint))
        style += 0 if of_training else 1
    return lines


def _faint(curves: Sequence[Curve]) -> list[Line]:
    return _lines(curves, faint=True)


def in_words(name: str) -> str:
    """Return the name of a measure for a person: "train_loss" is "training", "patch_auc" is "patch AUC"."""
    if name in ("train_loss", "validation_loss"):
        return "training" if name == "train_loss" else "validation"
    parts = name.removeprefix("validation_").split("_")
    return " ".join(_SHORT_FORMS.get(part, part) for part in parts)
