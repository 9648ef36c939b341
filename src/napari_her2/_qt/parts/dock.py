"""What the docks have in common: a banner that stays, parts that scroll, and work that ends with them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import (
    QApplication,
    QDockWidget,
    QMainWindow,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_her2._napari.session import session_of
from napari_her2._napari.settings import apply_settings, read_settings
from napari_her2._qt.parts.ahead import load_ahead
from napari_her2._qt.parts.file_drop import holds_files
from napari_her2._qt.parts.jobs import stop_all
from napari_her2._qt.parts.subscriptions import Subscriptions
from napari_her2._qt.parts.text import Label
from napari_her2._qt.parts.theme import colours_of
from napari_her2._qt.parts.wheel import WheelNeedsFocus
from napari_her2.models.card import NOTICE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from qtpy.QtGui import QCloseEvent, QDragEnterEvent, QShowEvent

    from napari_her2._qt.parts.jobs import Job
    from napari_her2._qt.parts.theme import Colours

_MIN_WIDTH_PX = 340


class Dock(QWidget):
    """A dock of napari-her2.

    Parameters
    ----------
    napari_viewer : ViewerModel
        Or the proxy that napari hands to plugins.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self.session = session_of(napari_viewer)
        self.settings = read_settings()
        apply_settings(self.settings)
        self.banner = Label(NOTICE, wrap=True)
        self.banner.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._colour_banner()
        self.scroll = QScrollArea()
        self.scroll.setWidgetResizable(True)
        self.scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        self.scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        WheelNeedsFocus(self.scroll)
        content = QWidget()
        self._column = QVBoxLayout(content)
        self._column.setContentsMargins(8, 4, 8, 8)
        self._column.setSpacing(4)
        self._column.addStretch()
        self.scroll.setWidget(content)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.banner)
        layout.addWidget(self.scroll)
        self.setMinimumWidth(_MIN_WIDTH_PX)
        self.subscriptions = Subscriptions(self)
        self._jobs: list[Job] = []
        # A window that closes takes its docks along without closing them one by one.
        self.destroyed.connect(partial(_stop, self._jobs))
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.shutdown)
        self._was_docked = False
        self._has_place = False
        QTimer.singleShot(0, load_ahead)  # once the dock is there

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Take files, where a dock says what it does with them."""
        if event is not None and holds_files(event.mimeData()):
            event.acceptProposedAction()

    def put_on_top(self, part: QWidget) -> None:
        """Show something between the banner and what scrolls."""
        layout = self.layout()
        if isinstance(layout, QVBoxLayout):
            layout.insertWidget(1, part)

    def hold(self, parts: Sequence[QWidget]) -> None:
        """Show parts of the dock, below one another and below those before."""
        for part in parts:
            self._column.insertWidget(self._column.count() - 1, part)

    def stop_with_dock(self, *jobs: Job) -> None:
        """End jobs with the dock."""
        self._jobs += jobs

    def live_with(self, jobs: Sequence[Job], *, others: Sequence[Job] = ()) -> None:
        """Take the colours of the viewer from now on, and end jobs with the dock.

        Parameters
        ----------
        jobs : sequence of Job
            Of the dock itself.
        others : sequence of Job
            Of its parts.
        """
        self.stop_with_dock(*jobs, *others)
        viewer = self.session.viewer
        if viewer is not None:
            self.subscriptions.add(viewer.events.theme, self._take_colours)
        self._take_colours()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""

    def shutdown(self) -> None:
        """Stop all work, wait for it, and let go of the viewer."""
        stop_all(self._jobs)
        self.subscriptions.end()

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """Stop all work when the dock is closed."""
        self.shutdown()
        super().closeEvent(event)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Share the place of our other docks when the dock is shown for the first time."""
        super().showEvent(event)
        if not self._has_place:
            self._has_place = True
            QTimer.singleShot(0, self._share_place)  # napari has not finished with its place yet

    def event(self, event: QEvent | None) -> bool:
        """Stop all work when napari takes the dock apart: it then only loses its parent."""
        if event is not None and event.type() == QEvent.Type.ParentChange:
            docked = self.parent() is not None
            if self._was_docked and not docked:
                self.shutdown()
            self._was_docked = docked
        return bool(super().event(event))

    def _share_place(self) -> None:
        """Become a tab beside another dock of ours: below one another both would be too small to use."""
        frame = self.parentWidget()
        window = frame.parentWidget() if isinstance(frame, QDockWidget) else None
        if not isinstance(window, QMainWindow) or frame.isFloating():
            return
        area = window.dockWidgetArea(frame)
        for other in window.findChildren(QDockWidget):
            ours = isinstance(other.widget(), Dock) and other is not frame
            if (
                ours
                and not other.isHidden()
                and not other.isFloating()
                and window.dockWidgetArea(other) == area
            ):
                window.tabifyDockWidget(other, frame)
                frame.raise_()
                return

    def _take_colours(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        self._colour_banner()
        self.set_colours(colours_of(self.session.viewer))

    def _colour_banner(self) -> None:
        colours = colours_of(self.session.viewer)
        self.banner.setStyleSheet(
            f"color: {colours.warning}; border-bottom: 1px solid {colours.warning}; "
            "padding: 4px; font-size: 8pt;"
        )


def _stop(jobs: Sequence[Job], _dock: object = None) -> None:
    stop_all(jobs)
