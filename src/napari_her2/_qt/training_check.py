"""What a check of the cases found, before anything is trained."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_her2._qt.theme import Colours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2._napari.training_work import CheckReport

_GOOD = "Nothing is wrong with the cases."
_ESTIMATED = "Estimated"
_MOST = 20  # faults in the dock: who has more mends these first


class CheckView(QWidget):
    """The report of a check, or nothing."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._colours = Colours()
        self.report: CheckReport | None = None
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.text.setTextFormat(Qt.TextFormat.RichText)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
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
            html = _list(title, report.faults, colours.error)
        else:
            html = f'<p style="margin:0; color:{colours.top_bar}"><b>{_GOOD}</b></p>'
        html += _list("Worth knowing:", report.warnings, colours.warning)
        # What it will take is asked before all else.
        facts = sorted(report.facts, key=lambda fact: not fact[0].startswith(_ESTIMATED))
        rows = "".join(
            f'<tr><td width="30%" style="color:{colours.muted}; padding-right:8px">{escape(name)}</td>'
            f"<td>{escape(text)}</td></tr>"
            for name, text in facts
        )
        html += f'<table width="100%" style="margin-top:4px">{rows}</table>' if rows else ""
        self.text.setText(html)
        self.setAccessibleName("; ".join(report.faults) or _GOOD)
        self.setVisible(True)


def _list(title: str, lines: Sequence[str], colour: str) -> str:
    if not lines:
        return ""
    shown = list(lines[:_MOST])
    if len(lines) > _MOST:
        shown.append(f"and {len(lines) - _MOST} more")
    items = "".join(f'<p style="margin:2px 0 0 0">• {escape(line)}</p>' for line in shown)
    return f'<div style="color:{colour}; margin-bottom:6px"><b>{escape(title)}</b>{items}</div>'
