"""The answer as it may be shown: with its task, its whole distribution, how sure, and its warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.slide_facts import mpp_in_words
from napari_her2._qt.parts.text import Label, Markup, joined, markup
from napari_her2._qt.parts.theme import Colours
from napari_her2._qt.scoring.head_answers import head_in_words, heads_markup
from napari_her2._qt.scoring.probability_bars import ProbabilityBars
from napari_her2.explain.quality import share_in_words
from napari_her2.inference.presentation import answer_classes, heading, trust_parts
from napari_her2.methods.catalogue import METHODS
from napari_her2.models.card import NOTICE
from napari_her2.models.familiarity import FAMILIAR, IN_PART

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide
    from napari_her2.methods.method import Method


class ResultCard(QWidget):
    """Shows one result; never a bare score, and no answer that is withheld.

    Attributes
    ----------
    export_wanted, report_wanted : Signal()
    show_wanted : Signal(bool)
        The user wants to see an answer that is withheld, or to have it withheld again.
    """

    export_wanted = Signal()
    report_wanted = Signal()
    show_wanted = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._colours = Colours()
        self._result: SlideResult | None = None
        self.task = _label("her2Task")
        self.withheld = _label("her2Withheld")
        self.notice = _label("her2Notice")
        self.label = _label("her2TopClass")
        self.trust = _label("her2Trust")
        self.reason = _label("her2Reason")
        self.category = _label("her2Category")
        self.head = _label("her2Head")
        self.heads = _label("her2Heads")
        self.bars = ProbabilityBars()
        self.facts = _label("her2Facts")
        self.warnings = _label("her2Warnings")
        self.show_anyway = QPushButton()
        self.show_anyway.clicked.connect(self._on_show)
        self.export = QPushButton("Export…")
        self.export.setToolTip("Write the result, tile table, maps and regions to a folder")
        self.export.clicked.connect(self.export_wanted)
        self.report = QPushButton("Report…")
        self.report.setToolTip("Write one page about this result, as PDF or for a browser")
        self.report.clicked.connect(self.report_wanted)
        beside, bottom = QHBoxLayout(), QHBoxLayout()
        for row, buttons in ((beside, [self.show_anyway]), (bottom, [self.report, self.export])):
            row.addStretch()
            for button in buttons:
                row.addWidget(button)
        self._place = QVBoxLayout()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for part in (
            self.task,
            self.withheld,
            self.label,
            self.reason,
            self.trust,
            self.head,
            self.category,
            beside,
            self.notice,
            self.warnings,
            self.bars,
            self.heads,
            self._place,
            self.facts,
            bottom,
        ):
            if isinstance(part, QWidget):
                layout.addWidget(part)
            else:
                layout.addLayout(part)
        self.set_colours(Colours())
        self.set_result(None)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours
        self.bars.set_colours(colours)
        for label in (self.task, self.facts, self.head):
            label.setStyleSheet(f"color: {colours.muted};")
        for label in (self.notice, self.warnings, self.withheld):
            label.setStyleSheet(f"color: {colours.warning};")
        self._colour_answer()

    def put_before_facts(self, widget: QWidget) -> None:
        """Show another widget between the answer and how it came about."""
        self._place.addWidget(widget)

    def set_result(self, result: SlideResult | None) -> None:
        """Show a result, as far as it may be seen, or nothing."""
        self._result = result
        self.setVisible(result is not None)
        if result is None:
            return
        self.task.setText(result.task)
        self._set_answer(result)
        self._set_numbers(result)
        # What every dock says stands in its banner; here is what this model has to say beyond.
        _fill(self.notice, result.notice.replace(NOTICE, "").strip())
        self.facts.set_markup(_paragraphs(facts_of(result)))
        self.warnings.set_markup(_paragraphs(f"⚠ {line}" for line in result.warnings))
        self.warnings.setVisible(bool(result.warnings))

    def set_category(self, category: str) -> None:
        """Show what follows from the user's own entries, beside the prediction; empty for nothing."""
        _fill(self.category, category)

    def _set_answer(self, result: SlideResult) -> None:
        """Show the answer, how far to trust it, and why there is none."""
        doubt = result.doubt
        _fill(self.withheld, f"⚠ Withheld: {result.reason}" if doubt.withheld and doubt.shown_anyway else "")
        self.label.setText(heading(result))
        trust = " · ".join(trust_parts(result))
        _fill(self.trust, f"{trust[:1].upper()}{trust[1:]}")
        _fill(self.head, head_in_words(result))
        _fill(self.reason, "" if self.withheld.text() else result.reason)
        self.show_anyway.setVisible(doubt.withheld)
        self.show_anyway.setText("Show it anyway" if doubt.hidden else "Withhold it again")
        self.show_anyway.setToolTip(
            "Shows the answer greyed, with the reason why it is withheld; files that are exported say so too"
            if doubt.hidden
            else "Hides the answer, and what would give it away, again"
        )
        self._colour_answer()

    def _set_numbers(self, result: SlideResult) -> None:
        heads = heads_markup(result)
        self.heads.set_markup(heads)
        self.heads.setVisible(bool(heads))
        bars = METHODS[result.method].bars(result)
        self.bars.set_values(
            bars.shares,
            bars.spread,
            title=bars.title,
            tip=bars.tip,
            answer=[result.named(name) for name in answer_classes(result)],
            greyed=result.doubt.withheld,
        )
        self.bars.setVisible(bool(bars.shares))

    def _colour_answer(self) -> None:
        """Grey what is not to be trusted, and set apart why."""
        colours, doubt = self._colours, None if self._result is None else self._result.doubt
        greyed = doubt is not None and doubt.withheld
        colour = f" color: {colours.muted};" if greyed else ""
        known = doubt is not None and doubt.verdict in (FAMILIAR, IN_PART)
        styles = {
            self.label: f"font-size: 15pt; font-weight: bold;{colour}",
            self.heads: colour,
            self.trust: "" if known else f"color: {colours.muted};",
            self.reason: f"color: {colours.warning};" if greyed else "",
        }
        for label, style in styles.items():
            if label.styleSheet() != style:  # Qt lays out and draws anew even for the same
                label.setStyleSheet(style)

    def _on_show(self) -> None:
        if self._result is not None:
            self.show_wanted.emit(self._result.doubt.hidden)


def _paragraphs(lines: Iterable[str]) -> Markup:
    """Lines as paragraphs: long ones break, and stay apart all the same."""
    return joined(markup('<p style="margin: 0 0 4px 0;">{}</p>', line) for line in lines)


def facts_of(result: SlideResult) -> list[str]:
    """How the answer came about, in lines; nothing of an answer that may not be seen."""
    method = METHODS[result.method]
    bars = method.bars(result)
    return [
        *_margin(result),
        *((f"Whiskers: {bars.whiskers}",) if bars.whiskers else ()),
        *_method_facts(result),
        *(_seen(slide, method, named=len(result.slides) > 1) for slide in result.slides),
        *(line for slide in result.slides for line in _quality(slide, named=len(result.slides) > 1)),
        f"{result.model}: {method.title}",
        *((f"Trained on: {result.training_data or 'not stated'}",) if method.needs_weights else ()),
        f"Scored in {sum(result.seconds.values()):.1f} s on {result.device}",
    ]


def _method_facts(result: SlideResult) -> list[str]:
    """How the answer came about; of cells the dock tells it where their thresholds are."""
    if result.slides[0].cells is not None:
        return []
    facts = METHODS[result.method].facts(result)
    return [f"{name[:1].upper()}{name[1:]}: {text}" for name, text in facts]


def _seen(slide: ScoredSlide, method: Method, *, named: bool) -> str:
    of = f"{slide.stain}: " if named else ""
    return f"{of}{method.seen(slide)} · {mpp_in_words(slide.grid.slide_mpp, slide.mpp_source)}"


def _quality(slide: ScoredSlide, *, named: bool) -> tuple[str, ...]:
    """How much of a slide is poor; nothing where nobody looked."""
    if slide.quality is None:
        return ()
    return (f"{f'{slide.stain}: ' if named else ''}{share_in_words(slide.quality)}",)


def _margin(result: SlideResult) -> tuple[str, ...]:
    """How far the most probable class is ahead of the second; nothing where there are no probabilities."""
    if not result.probabilities:
        return ()
    ordered = sorted(result.probabilities, key=lambda name: result.probabilities[name], reverse=True)
    second = result.named(ordered[1]) if len(ordered) > 1 else "nothing"
    return (f"Margin over {second}: {100 * result.margin:.0f} percentage points",)


def _label(name: str) -> Label:
    label = Label(wrap=True, selectable=True)
    label.setObjectName(name)
    return label


def _fill(label: Label, text: str) -> None:
    label.setText(text)
    label.setVisible(bool(text))
