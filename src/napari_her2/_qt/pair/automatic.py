"""Align automatically: a proposal with its error, to be accepted or rejected."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._napari.alignment_error import show_error
from napari_her2._napari.collecting import take_out
from napari_her2._napari.work import aligning
from napari_her2._qt.parts.jobs import Failure, Job
from napari_her2._qt.parts.progress_bar import ProgressBar
from napari_her2._qt.parts.text import Label

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_her2._napari.pairing import Pairing
    from napari_her2._napari.session import Session
    from napari_her2.registration.automatic import Registration
    from napari_her2.steps import Progress


class AutomaticAlignment(QWidget):
    """Button, progress and the answer to what is proposed, for the pair of the session.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    failed : Signal(Failure)
        The slides cannot be aligned, with the reason.
    settled : Signal()
        A proposal was accepted or rejected.
    """

    failed = Signal(object)
    settled = Signal()

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._pairing: Pairing | None = None
        self._layer: Image | None = None
        self.job = Job()
        self.start = QPushButton("Align &automatically")
        self.start.setToolTip(
            "Lays the IHC slide on the H&E slide by what is on both, in seconds. You see how far it is off "
            "before you accept it."
        )
        self.cancel = QPushButton("Cancel")
        self.cancel.setAccessibleName("Cancel the alignment")
        self.bar = ProgressBar()
        self.bar.setAccessibleName("Progress of the alignment")
        self.words = Label(wrap=True)
        self.accept = QPushButton("A&ccept")
        self.accept.setToolTip("Keep this alignment for the case")
        self.reject = QPushButton("Re&ject")
        self.reject.setToolTip("Lay the slides as they were before")
        running, answer = QHBoxLayout(), QHBoxLayout()
        for row, widgets in (
            (running, (self.start, self.bar, self.cancel)),
            (answer, (self.accept, self.reject)),
        ):
            for widget in widgets:
                row.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(running)
        layout.addWidget(self.words)
        layout.addLayout(answer)
        self.start.clicked.connect(self._on_start)
        self.cancel.clicked.connect(self.job.cancel)
        self.accept.clicked.connect(self._on_accept)
        self.reject.clicked.connect(self._on_reject)
        self.job.progressed.connect(self._on_progress)
        self.job.running_changed.connect(self._show)
        self.job.returned.connect(self._on_found)
        self.job.failed.connect(self.failed)
        self._show()

    def set_pairing(self, pairing: Pairing | None) -> None:
        """Work on another pair, or on none; what is proposed for the one before is rejected."""
        if pairing is self._pairing:
            return
        self.job.cancel()
        if self._pairing is not None:
            self._pairing.reject()
        self._pairing = pairing
        self._remove_map()
        self._show()

    def follow(self) -> None:
        """Show whether there is a proposal still: the user may have moved the slide instead."""
        if self._pairing is None or not self._pairing.proposed:
            self._remove_map()
        self._show()

    def shutdown(self) -> None:
        """Stop the work and reject what is proposed."""
        self.job.shutdown()
        if self._pairing is not None:
            self._pairing.reject()
        self._remove_map()
        self._pairing = None

    def _on_start(self) -> None:
        pairing = self._pairing
        if pairing is not None and len(pairing.slides) == 2:
            pairing.reject()
            self._remove_map()
            self.bar.setRange(0, 0)
            self.job.start(partial(aligning, pairing.slides))

    def _on_progress(self, progress: Progress) -> None:
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)
        self.bar.setFormat(progress.title)

    def _on_found(self, found: Registration) -> None:
        pairing, viewer = self._pairing, self._session.viewer
        if pairing is None or viewer is None:
            return
        if found.reason or found.error is None:
            self.failed.emit(Failure(found.reason))
            return
        self._layer = show_error(viewer, pairing.ids[0], found.error)
        pairing.propose(found.alignment)
        pairing.set_arrangement("stacked")
        self.words.setText(proposal_in_words(found))
        self._show()
        self.accept.setFocus()

    def _on_accept(self) -> None:
        if self._pairing is not None:
            self._pairing.accept()
        self.settled.emit()

    def _on_reject(self) -> None:
        if self._pairing is not None:
            self._pairing.reject()
        self.settled.emit()

    def _show(self) -> None:
        running, pairing = self.job.running, self._pairing
        proposed = pairing is not None and pairing.proposed
        self.start.setVisible(not running)
        self.start.setEnabled(pairing is not None)
        self.bar.setVisible(running)
        self.cancel.setVisible(running)
        for widget in (self.words, self.accept, self.reject):
            widget.setVisible(proposed)

    def _remove_map(self) -> None:
        layer, self._layer = self._layer, None
        viewer = self._session.viewer
        if viewer is not None:
            take_out(viewer, layer)


def proposal_in_words(found: Registration) -> str:
    """Say what is proposed, and how far it is off."""
    return (
        f"Proposed: {found.alignment.in_words()}. Still off by {found.error_um:.1f} µm (median; the map over "
        f"the H&E slide shows where), and {found.agreement:.0%} of the tissue was found near its place."
    )
