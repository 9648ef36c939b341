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
from napari_her2.inference.presentation import INDETERMINATE
from napari_her2.methods.catalogue import METHODS
from napari_her2.models.card import NOTICE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_her2.inference.result import ScoredSlide, SlideResult
    from napari_her2.methods.method import Method


class ResultCard(QWidget):
    """Shows one result; never a bare score.

    Attributes
    ----------
    export_wanted : Signal()
    """

    export_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.task = _label("her2Task")
        self.notice = _label("her2Notice")
        self.label = _label("her2TopClass")
        self.reason = _label("her2Reason")
        self.category = _label("her2Category")
        self.head = _label("her2Head")
        self.heads = _label("her2Heads")
        self.bars = ProbabilityBars()
        self.facts = _label("her2Facts")
        self.warnings = _label("her2Warnings")
        self.export = QPushButton("Export…")
        self.export.setToolTip("Write the result, tile table, maps and regions to a folder")
        self.export.clicked.connect(self.export_wanted)
        bottom = QHBoxLayout()
        bottom.addStretch()
        bottom.addWidget(self.export)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (
            self.task,
            self.label,
            self.head,
            self.reason,
            self.category,
            self.notice,
            self.warnings,
            self.bars,
            self.heads,
            self.facts,
        ):
            layout.addWidget(widget)
        layout.addLayout(bottom)
        self.set_colours(Colours())
        self.set_result(None)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.bars.set_colours(colours)
        self.task.setStyleSheet(f"color: {colours.muted};")
        self.label.setStyleSheet("font-size: 15pt; font-weight: bold;")
        for label in (self.facts, self.head):
            label.setStyleSheet(f"color: {colours.muted};")
        for label in (self.notice, self.warnings):
            label.setStyleSheet(f"color: {colours.warning};")

    def set_result(self, result: SlideResult | None) -> None:
        """Show a result, or nothing."""
        self.setVisible(result is not None)
        if result is None:
            return
        self.task.setText(result.task)
        # The word is large, the reason why there is no answer is not.
        self.label.setText(INDETERMINATE if result.reason else result.label)
        _fill(self.head, head_in_words(result))
        heads = heads_markup(result)
        self.heads.set_markup(heads)
        self.heads.setVisible(bool(heads))
        self.reason.setText(result.reason)
        self.reason.setVisible(bool(result.reason))
        # What every dock says stands in its banner; here is what this model has to say beyond.
        own = result.notice.replace(NOTICE, "").strip()
        self.notice.setText(own)
        self.notice.setVisible(bool(own))
        bars = METHODS[result.method].bars(result)
        answer = result.named(result.score) if result.score else ""
        self.bars.set_values(bars.shares, bars.spread, title=bars.title, tip=bars.tip, answer=answer)
        self.bars.setVisible(bool(bars.shares))
        self.facts.set_markup(_paragraphs(_facts(result)))
        self.warnings.set_markup(_paragraphs(f"⚠ {line}" for line in result.warnings))
        self.warnings.setVisible(bool(result.warnings))

    def set_category(self, category: str) -> None:
        """Show what follows from the user's own entries, beside the prediction; empty for nothing."""
        _fill(self.category, category)


def _paragraphs(lines: Iterable[str]) -> Markup:
    """Lines as paragraphs: long ones break, and stay apart all the same."""
    return joined(markup('<p style="margin: 0 0 4px 0;">{}</p>', line) for line in lines)


def _facts(result: SlideResult) -> list[str]:
    method = METHODS[result.method]
    lines = [
        *_margin(result),
        *_method_facts(result),
        *(_seen(slide, method, named=len(result.slides) > 1) for slide in result.slides),
        f"{result.model}: {method.title}",
        *((f"Trained on: {result.training_data or 'not stated'}",) if method.needs_weights else ()),
        f"Scored in {sum(result.seconds.values()):.1f} s on {result.device}",
    ]
    if result.uncertainty is not None:
        drawn = result.uncertainty
        lines.insert(1, f"Whiskers: SD of {drawn.draws} random bags of {drawn.bag_size} tiles")
    return lines


def _method_facts(result: SlideResult) -> list[str]:
    """How the answer came about; of cells the dock tells it where their thresholds are."""
    if result.slides[0].cells is not None:
        return []
    facts = METHODS[result.method].facts(result)
    return [f"{name[:1].upper()}{name[1:]}: {text}" for name, text in facts]


def _seen(slide: ScoredSlide, method: Method, *, named: bool) -> str:
    of = f"{slide.stain}: " if named else ""
    return f"{of}{method.seen(slide)} · {mpp_in_words(slide.grid.slide_mpp, slide.mpp_source)}"


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
