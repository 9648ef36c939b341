"""The mouse wheel scrolls a dock; a control under it changes only when it was chosen before.

Qt gives the wheel to whatever lies under the mouse: who scrolls through a dock would turn its combo boxes
and spin boxes on the way, a score among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QApplication, QScrollArea, QWidget

if TYPE_CHECKING:
    from qtpy.QtGui import QChildEvent


class WheelNeedsFocus(QObject):
    """Keeps the wheel from all that lies in a scroll area, except from what has the focus.

    Widgets that are added later are watched as well. Windows of their own, such as the list that a combo
    box drops down, are left alone.

    Parameters
    ----------
    scroll : QScrollArea
        What scrolls instead; it owns this object, which holds no reference to it.
    """

    def __init__(self, scroll: QScrollArea) -> None:
        super().__init__(scroll)
        scroll.viewport().installEventFilter(self)  # it tells when other content is put in

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Watch what is added, and pass the wheel on."""
        if event is None or not isinstance(watched, QWidget):
            return False
        kind = event.type()
        if kind in (QEvent.Type.ChildAdded, QEvent.Type.ChildPolished):
            self._watch_all(cast("QChildEvent", event).child())
        elif kind == QEvent.Type.Wheel and not self._may_have(watched):
            scroll = self.parent()
            if isinstance(scroll, QScrollArea):
                QApplication.sendEvent(scroll.viewport(), event.clone())
            return True
        return False

    def _watch_all(self, child: QObject) -> None:
        if not isinstance(child, QWidget) or child.isWindow():
            return
        for widget in (child, *child.findChildren(QWidget)):
            if widget.focusPolicy() == Qt.FocusPolicy.WheelFocus:
                widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)  # else the wheel would give the focus first
            widget.removeEventFilter(self)
            widget.installEventFilter(self)

    def _may_have(self, widget: QWidget) -> bool:
        """Whether a widget, or the control that it is a part of, has the focus."""
        scroll = self.parent()
        if not isinstance(scroll, QScrollArea):
            return True
        content, focused = scroll.widget(), QApplication.focusWidget()
        if content is None or widget.window() is not scroll.window() or not scroll.isAncestorOf(widget):
            return True
        if widget is scroll.viewport():
            return True
        inside = focused is not None and content.isAncestorOf(focused)
        return inside and (focused is widget or focused.isAncestorOf(widget))
