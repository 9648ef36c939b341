"""What a check of the cases found, before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Label, Markup, joined, markup
from napari_her2._qt.parts.theme import Colours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2.training_runs.work import CheckReport

_GOOD = "Nothing is wrong with the cases."
_MOST = 20  # faults in the dock: who has more mends these first


class CheckView(QWidget):
    """The report of a check, or nothing."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._colours = Colours()
        self.report: CheckReport | None = None
        self.text = Label(wrap=True, selectable=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text)
        self.clear()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours
        if self.report is not None:
            self.show_report(self.report)

    def clear(self) -> None:
        """Show nothing."""
        self.report = None
        self.text.clear()
        self.setVisible(False)

    def show_report(self, report: CheckReport) -> None:
        """Show what was found: faults, then warnings, then facts, estimates before the others."""
        self.report = report
        colours = self._colours
        count = len(report.faults)
        if count:
            some = "1 fault: mend it" if count == 1 else f"{count} faults: mend them"
            title = f"{some}, then check again."
            found = _list(title, report.faults, colours.error)
        else:
            found = markup('<p style="margin:0; color:{}"><b>{}</b></p>', colours.top_bar, _GOOD)
        found += _list("Worth knowing:", report.warnings, colours.warning)
        # What it will take is asked before all else.
        facts = sorted(report.facts, key=lambda fact: fact[0] not in report.estimates)
        row = '<tr><td width="30%" style="color:{}; padding-right:8px">{}</td><td>{}</td></tr>'
        rows = joined(markup(row, colours.muted, name, text) for name, text in facts)
        if rows:
            found += markup('<table width="100%" style="margin-top:4px">{}</table>', rows)
        self.text.set_markup(found)
        self.setAccessibleName("; ".join(report.faults) or _GOOD)
        self.setVisible(True)


def _list(title: str, lines: Sequence[str], colour: str) -> Markup:
    if not lines:
        return Markup()
    shown = list(lines[:_MOST])
    if len(lines) > _MOST:
        shown.append(f"and {len(lines) - _MOST} more")
    items = joined(markup('<p style="margin:2px 0 0 0">• {}</p>', line) for line in shown)
    return markup('<div style="color:{}; margin-bottom:6px"><b>{}</b>{}</div>', colour, title, items)
