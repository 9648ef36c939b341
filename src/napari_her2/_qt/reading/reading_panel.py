"""A case before a reader: how far they are, the form, and what comes after it is saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QApplication,
    QFrame,
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QTextEdit,
    QVBoxLayout,
    QWidget,
)

from napari_her2._qt.parts.progress_bar import ProgressBar
from napari_her2._qt.parts.text import Label
from napari_her2._qt.reading.case_form import CaseForm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2._qt.parts.theme import Colours
    from napari_her2.reading.readings import Reading


_TEXT = (QLineEdit, QPlainTextEdit, QTextEdit, QAbstractSpinBox)


class ReadingPanel(QWidget):
    """Progress, form and buttons of a sitting.

    Attributes
    ----------
    save_wanted, previous_wanted, next_wanted, stop_wanted : Signal()
    on_wanted : Signal()
        To go on once what was hidden is seen.
    skip_wanted : Signal(str)
        With the reason.
    """

    save_wanted = Signal()
    previous_wanted = Signal()
    next_wanted = Signal()
    on_wanted = Signal()
    skip_wanted = Signal(str)
    stop_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._after = self._enter_wanted = self._typing_elsewhere = False
        self.title = Label()
        self.title.setStyleSheet("font-weight: bold;")
        self.bar = ProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.bar.setAccessibleName("Cases read")
        self.counts, self.clock = Label(wrap=True), Label()
        self.note = Label(wrap=True)
        self.form = CaseForm()
        self.save = _button("Save and next  (Enter)", "Keep this reading and go to the next case")
        self.previous = _button("Pr&evious", "Go to the case before, to correct it: both readings are kept")
        self.next = _button("Ne&xt", "Go to the next case without saving this one")
        self.skip = _button("S&kip…", "Leave this case unread, with a reason; it comes again at the end")
        self.correct = _button("Co&rrect…", "Read the case again: both readings are kept")
        self.stop = _button("S&top", "Close the case and the study; you go on here the next time")
        self.reason = QLineEdit()
        self.reason.setPlaceholderText("Why? For example: no invasive tumour")
        self.reason.setAccessibleName("Why the case is skipped")
        self.skip_now = _button("Skip", "Keep the reason and go to the next case")
        self.skip_row = QWidget()
        self.revealed = _Revealed()
        self.enter = [self._enter(key) for key in ("Return", "Enter")]
        self._arrange()
        self.save.clicked.connect(self._on_save)
        self.previous.clicked.connect(self.previous_wanted)
        self.next.clicked.connect(self.next_wanted)
        self.stop.clicked.connect(self.stop_wanted)
        self.correct.clicked.connect(self._on_correct)
        self.skip.clicked.connect(self._ask_reason)
        self.skip_now.clicked.connect(self._on_skip)
        app = QApplication.instance()
        if app is not None:
            app.focusChanged.connect(self._on_focus)
        self.set_open(False)

    def _arrange(self) -> None:
        head, walk, skipping = QHBoxLayout(), QHBoxLayout(), QHBoxLayout(self.skip_row)
        head.addWidget(self.title, 1)
        head.addWidget(self.clock)
        walk.setSpacing(4)
        for button in (self.previous, self.next, self.skip, self.correct, self.stop):
            walk.addWidget(button)
        skipping.setContentsMargins(0, 0, 0, 0)
        skipping.addWidget(self.reason, 1)
        skipping.addWidget(self.skip_now)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addLayout(head)
        for widget in (self.bar, self.counts, self.note, self.form, self.revealed, self.save):
            layout.addWidget(widget)
        layout.addLayout(walk)
        layout.addWidget(self.skip_row)
        self.skip_row.setVisible(False)
        self.note.setVisible(False)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        for label in (self.counts, self.clock):
            label.setStyleSheet(f"color: {colours.muted};")
        self.note.setStyleSheet(f"color: {colours.warning};")
        self.revealed.set_colours(colours)

    def show_case(self, title: str, at: int, counts: tuple[int, int, int]) -> None:
        """Show which case is before the reader.

        Parameters
        ----------
        title : str
            As it may be seen.
        at : int
            Its place, from 0.
        counts : tuple of int
            Cases read, skipped, and in all.
        """
        read, skipped, total = counts
        self.title.setText(title)
        self.bar.setRange(0, max(total, 1))
        self.bar.setValue(read)
        more = f" · {skipped} skipped" if skipped else ""
        self.counts.setText(f"{at + 1} of {total} · {read} read{more}")
        self.set_asking(False)

    def show_note(self, note: str) -> None:
        """Say something about the case; empty for nothing."""
        self.note.setText(note)
        self.note.setVisible(bool(note))

    def show_time(self, seconds: float, running: bool) -> None:
        """Show for how long the case was looked at."""
        paused = "" if running else " (paused)"
        self.clock.setText(f"{int(seconds) // 60}:{int(seconds) % 60:02d}{paused}")
        self.clock.setToolTip("How long the slide was shown while napari was the active program")

    def clear(self) -> None:
        """Let nothing stand there, and nothing be entered."""
        self._set_after(False)
        self.form.clear()
        self.revealed.clear()
        self.show_note("")
        self.set_open(False)

    def begin(self, reading: Reading | None) -> None:
        """Let the case be read; an earlier reading stands in the form."""
        self.clear()
        if reading is None or reading.skipped:
            self.form.clear()
        else:
            self.form.show_reading(reading)
        self.set_open(True)

    def show_after(self, lines: Sequence[str]) -> None:
        """Show what is known once the case is scored, until the reader goes on."""
        self.revealed.show_lines(lines)
        self.set_open(True)
        self._set_after(True)

    def set_open(self, open_: bool) -> None:
        """Let something be entered, or not, as while a slide is being opened."""
        self.form.set_open(open_)
        for button in (self.save, self.previous, self.next, self.skip):
            button.setEnabled(open_)
        self._set_enter(open_)

    def set_asking(self, asking: bool) -> None:
        """Ask for the reason why a case is skipped, or no more."""
        self.skip_row.setVisible(asking)
        self.reason.clear()
        if asking:
            self.reason.setFocus()

    def _set_after(self, after: bool) -> None:
        """Show the buttons of a case that is scored, or of one that is being read."""
        self._after = after
        self.form.set_open(not after)
        self.save.setText("Next case  (Enter)" if after else "Save and next  (Enter)")
        self.skip.setVisible(not after)
        self.correct.setVisible(after)

    def _on_correct(self) -> None:
        self._set_after(False)
        self.form.scores.setFocus()

    def _set_enter(self, enabled: bool) -> None:
        self._enter_wanted = enabled
        for shortcut in self.enter:
            shortcut.setEnabled(enabled and not self._typing_elsewhere)

    def _on_focus(self, _old: QWidget | None, now: QWidget | None) -> None:
        """Leave Enter to a field of text that is none of ours: the name of a layer, napari's palette."""
        self._typing_elsewhere = isinstance(now, _TEXT) and not self.isAncestorOf(now)
        self._set_enter(self._enter_wanted)

    def _enter(self, key: str) -> QShortcut:
        shortcut = QShortcut(QKeySequence(key), self)
        shortcut.setContext(Qt.ShortcutContext.ApplicationShortcut)
        shortcut.activated.connect(self._on_enter)
        return shortcut

    def _on_enter(self) -> None:
        if self.skip_row.isVisibleTo(self):
            self._on_skip()
        else:
            self._on_save()

    def _on_save(self) -> None:
        if self._after:
            self.on_wanted.emit()
        else:
            self.save_wanted.emit()

    def _ask_reason(self) -> None:
        self.set_asking(not self.skip_row.isVisibleTo(self))

    def _on_skip(self) -> None:
        self.skip_wanted.emit(self.reason.text())


class _Revealed(QFrame):
    """What was hidden, once the case is scored."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("her2Revealed")
        self.text = Label(wrap=True, selectable=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.addWidget(self.text)
        self.clear()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        edge = f"border-left: 3px solid {colours.top_bar};"
        self.setStyleSheet(f"QFrame#her2Revealed {{ background: {colours.track}; {edge} }}")

    def show_lines(self, lines: Sequence[str]) -> None:
        """Show lines."""
        self.text.setText("\n".join(lines))
        self.setVisible(bool(lines))

    def clear(self) -> None:
        """Show nothing."""
        self.text.clear()
        self.setVisible(False)


def _button(caption: str, tip: str) -> QPushButton:
    button = QPushButton(caption)
    button.setToolTip(tip)
    return button
