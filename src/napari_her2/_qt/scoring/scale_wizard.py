"""The µm/px of the chosen slide: what speaks against them, their sources, and lines to measure with."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._napari.measuring_lines import MeasuringLines
from napari_her2._qt.parts.slide_facts import mpp_in_words
from napari_her2._qt.parts.text import Combo, Label
from napari_her2.desk.kept_slide import GivenScale, now
from napari_her2.errors import SlideError
from napari_her2.number_words import counted
from napari_her2.slide.facts import GIVEN_BY_USER
from napari_her2.slide.scale_sources import RULERS, measured_scale, scale_problem, sources_of

if TYPE_CHECKING:
    from napari_her2._napari.session import Session
    from napari_her2._qt.parts.theme import Colours
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.scale_sources import Ruler, ScaleSource

MEASURE, TYPE = "measure", "type"
_DECIMALS = 4
_LEAST_CHANGE = 0.5 * 10**-_DECIMALS  # µm/px
_TYPE_REASON = "Type what the scanner's software states; 40× is often near 0.25, 20× near 0.5."


class ScaleWizard(QWidget):
    """Says what is wrong with the µm/px of a slide and lets the user choose, measure or type them.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    given : Signal(str, object)
        Id of a slide, and the GivenScale that the user states for it; None for what the file states.
    """

    given = Signal(str, object)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._slide: Slide | None = None
        self._shown = ("", 0.0)
        self._sources: tuple[ScaleSource, ...] = ()
        self._lines: MeasuringLines | None = None
        self._measured: GivenScale | None = None
        self.problem = Label(wrap=True)
        self.change = QPushButton("Change µm/p&x…")
        self.change.setCheckable(True)
        self.change.setToolTip("Choose another source of the µm/px of this slide, measure them, or type them")
        self.panel = QWidget()
        self.sources = Combo("Source of the µm/px")
        self.sources.setToolTip(
            "Where the µm/px of the slide can be known from. Every result says which was taken."
        )
        self.reason = Label(wrap=True)
        self.ruler = Combo("What the lines are drawn over")
        for ruler in RULERS:
            self.ruler.addItem(ruler.title, ruler.name)
        self.length = QDoubleSpinBox()
        self.length.setRange(0.0, 100_000.0)
        self.length.setDecimals(2)
        self.length.setSuffix(" µm")
        self.length.setSpecialValueText("how long?")
        self.length.setAccessibleName("Length of what each line is drawn over, µm")
        self.draw = QPushButton("&Draw lines")
        self.draw.setToolTip("Click where a line begins and where it ends; draw as many as you like")
        self.lines = Label(wrap=True)
        self.mpp = QDoubleSpinBox()
        self.mpp.setRange(0.0, 100.0)
        self.mpp.setSpecialValueText("?")  # nothing is put in that could be taken for the truth
        self.mpp.setDecimals(_DECIMALS)
        self.mpp.setSingleStep(0.01)
        self.mpp.setAccessibleName("µm per pixel of the slide")
        self.mpp.setToolTip("The scale bar and the score depend on it.")
        self.use = QPushButton("&Use")
        self._arrange()
        self.change.toggled.connect(self._show_panel)
        self.sources.currentIndexChanged.connect(self._show_choice)
        self.ruler.currentIndexChanged.connect(self._on_ruler)
        self.length.valueChanged.connect(self._measure)
        self.mpp.valueChanged.connect(self._show_use)
        self.draw.clicked.connect(self._draw)
        self.use.clicked.connect(self._on_use)
        self.show_slide(None)

    def _arrange(self) -> None:
        self.measuring = QWidget()
        row = QHBoxLayout()
        row.addWidget(self.length, 1)
        row.addWidget(self.draw)
        layout = QVBoxLayout(self.measuring)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.ruler)
        layout.addLayout(row)
        layout.addWidget(self.lines)
        choice = QHBoxLayout()
        choice.addWidget(self.sources, 1)
        choice.addWidget(self.mpp)
        choice.addWidget(self.use)
        inside = QVBoxLayout(self.panel)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setSpacing(4)
        inside.addLayout(choice)
        inside.addWidget(self.measuring)
        inside.addWidget(self.reason)
        outside = QVBoxLayout(self)
        outside.setContentsMargins(0, 0, 0, 0)
        outside.setSpacing(4)
        for widget in (self.problem, self.change, self.panel):
            outside.addWidget(widget)
        # By keyboard in the order in which it is read.
        order = (self.change, self.sources, self.ruler, self.length, self.draw, self.mpp, self.use)
        for before, after in pairwise(order):
            QWidget.setTabOrder(before, after)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.problem.setStyleSheet(f"color: {colours.warning};")
        self.reason.setStyleSheet(f"color: {colours.muted};")

    def set_busy(self, busy: bool) -> None:
        """Keep µm/px as they are while they are used."""
        self.panel.setEnabled(not busy)
        self.change.setEnabled(not busy)

    def show_slide(self, slide: Slide | None) -> None:
        """Show what is known of the scale of a slide; what is being typed or drawn on it stays."""
        known = (
            "" if slide is None else slide.slide_id,
            0.0 if slide is None or not slide.mpp else slide.mpp[1],
        )
        same = known == self._shown
        self._slide = slide
        if self._lines is not None and (not self._lines.alive or known[0] != self._lines.slide_id):
            self._stop_drawing()
        problem = "" if slide is None else scale_problem(slide)
        # A contradiction stands among the warnings of the slide already.
        self.problem.setText("" if slide is not None and problem in slide.warnings else problem)
        self.problem.setVisible(bool(self.problem.text()))
        self.change.setVisible(slide is not None and not problem)
        if not same:
            self._shown = known
            self.change.setChecked(False)
            self.mpp.setValue(known[1])
            self._fill_sources()
        self._show_panel()

    def choose(self, name: str) -> None:
        """Choose a source by its name, or `MEASURE` or `TYPE`."""
        self.sources.setCurrentIndex(self.sources.findData(name))

    def shutdown(self) -> None:
        """Take the lines away, and keep no slide open."""
        self._stop_drawing()
        self.show_slide(None)

    def _fill_sources(self) -> None:
        self._sources = () if self._slide is None else sources_of(self._slide)
        self.sources.blockSignals(True)
        self.sources.clear()
        self.sources.addItem("choose a source…", "")
        for source in self._sources:
            self.sources.addItem(f"{source.title}: {mpp_in_words(source.mpp, '')}", source.name)
        self.sources.addItem("measure with a line…", MEASURE)
        self.sources.addItem("type them…", TYPE)
        self.sources.blockSignals(False)
        self._show_choice()

    def _show_panel(self, _checked: bool = False) -> None:
        slide = self._slide
        self.panel.setVisible(slide is not None and (bool(scale_problem(slide)) or self.change.isChecked()))
        self._show_choice()

    @property
    def _chosen(self) -> str:
        return str(self.sources.currentData() or "")

    @property
    def _source(self) -> ScaleSource | None:
        return next((source for source in self._sources if source.name == self._chosen), None)

    @property
    def _ruler(self) -> Ruler:
        return next(ruler for ruler in RULERS if ruler.name == self.ruler.currentData())

    def _show_choice(self, _index: int = 0) -> None:
        chosen, source = self._chosen, self._source
        self.measuring.setVisible(chosen == MEASURE)
        self.mpp.setVisible(chosen == TYPE)
        reason = {MEASURE: self._ruler.reason, TYPE: _TYPE_REASON}.get(chosen, "")
        self.reason.setText(reason if source is None else source.reason)
        self.reason.setVisible(bool(self.reason.text()))
        if chosen != MEASURE:
            self._stop_drawing()
        self._on_ruler()

    def _on_ruler(self, _index: int = 0) -> None:
        known = self._ruler.length_um
        self.length.setEnabled(known is None)
        if known is not None:
            self.length.setValue(known)
        elif self._chosen == MEASURE and self.length.value() in {of.length_um for of in RULERS}:
            self.length.setValue(0.0)
        if self._chosen == MEASURE:
            self.reason.setText(self._ruler.reason)
        self._measure()

    def _draw(self) -> None:
        viewer = self._session.viewer
        layer = None if self._slide is None else self._session.layer_of(self._slide.slide_id)
        if viewer is None or layer is None:
            return
        self._stop_drawing()
        self._lines = MeasuringLines(viewer, layer)
        self._lines.changed.connect(self._measure)
        self.draw.setText("&Draw anew")
        self._measure()

    def _stop_drawing(self) -> None:
        lines, self._lines = self._lines, None
        if lines is not None:
            lines.changed.disconnect(self._measure, missing_ok=True)
            lines.remove()
        self.draw.setText("&Draw lines")

    def _measure(self, _value: float = 0.0) -> None:
        """Show what the lines make, or what is missing."""
        self._measured = None
        slide, lines = self._slide, self._lines
        layer = None if slide is None else self._session.layer_of(slide.slide_id)
        if lines is None or layer is None or not lines.alive:
            self.lines.setText("")
        else:
            try:
                found = measured_scale(lines.lines_px0(layer), self._ruler, self.length.value())
            except SlideError as error:
                self.lines.setText(str(error))
            else:
                spread = f", {found.spread:.0%} apart" if found.lines > 1 else ""
                self.lines.setText(f"{counted(found.lines, 'line')}: {found.mpp:.4g} µm/px{spread}")
                self._measured = GivenScale((found.mpp, found.mpp), found.words, now())
        self.lines.setVisible(bool(self.lines.text()))
        self._show_use()

    @property
    def _wished(self) -> GivenScale | None:
        """What would be used; None where nothing is chosen yet."""
        if self._chosen == MEASURE:
            return self._measured
        if self._chosen == TYPE:
            value = self.mpp.value()
            return GivenScale((value, value), GIVEN_BY_USER, now()) if value > 0 else None
        source = self._source
        return (
            None if source is None else GivenScale(source.mpp, f"{source.title}, chosen by the user", now())
        )

    def _show_use(self, _value: float = 0.0) -> None:
        """Let a value be used once there is one, and another one than before."""
        wished, slide = self._wished, self._slide
        same = (
            wished is not None
            and slide is not None
            and slide.mpp is not None
            and all(abs(a - b) <= _LEAST_CHANGE for a, b in zip(wished.mpp, slide.mpp, strict=True))
            and not scale_problem(slide)
            and self._chosen == TYPE
        )
        self.use.setEnabled(wished is not None and not same)
        self.use.setToolTip(
            "Choose a source first"
            if wished is None
            else f"Take {mpp_in_words(wished.mpp, wished.source)} for the slide; what was scored with "
            f"another value goes, and regions stay"
        )

    def _on_use(self) -> None:
        wished, slide, source = self._wished, self._slide, self._source
        if wished is None or slide is None:
            return
        slide_id = slide.slide_id
        first = slide.stated_scales[0].source if slide.stated_scales else ""
        as_stated = source is not None and source.title == first and not slide.header_contradiction
        self._stop_drawing()
        self.change.setChecked(False)
        self.given.emit(slide_id, None if as_stated else wished)
