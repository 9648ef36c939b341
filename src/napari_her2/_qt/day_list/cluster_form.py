"""A cluster that scores instead of this machine: its address, and certificates where it has TLS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QLineEdit, QToolButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Label
from napari_her2.cohort.day_run import Workers
from napari_her2.cohort.tls import tls_files
from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from napari_her2._qt.parts.theme import Colours

_FIELDS = (
    (
        "Address",
        "tls://host:8786",
        "Of a dask scheduler, or the file that it wrote; empty: this machine scores",
    ),
    ("Authority", "ca.pem", "Certificate of the authority of the cluster (PEM)"),
    ("Certificate", "cert.pem", "Your own certificate for it (PEM)"),
    ("Key", "key.pem", "The key of that certificate; empty where it stands in the same file"),
)


class ClusterForm(QWidget):
    """Address and certificates, folded away until they are wanted."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.shown = QToolButton()
        self.shown.setText("On a cluster")
        self.shown.setToolTip(
            "Let the workers of a dask cluster score; slides and results lie where all see them"
        )
        self.shown.setCheckable(True)
        self.shown.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.shown.setArrowType(Qt.ArrowType.RightArrow)
        self.box = QWidget()
        form = QFormLayout(self.box)
        form.setContentsMargins(0, 0, 0, 0)
        self.fields = []
        for name, example, words in _FIELDS:
            field = QLineEdit()
            field.setPlaceholderText(example)
            field.setToolTip(words)
            field.setAccessibleName(f"{name} of the cluster")
            caption = Label(name)
            caption.setBuddy(field)
            form.addRow(caption, field)
            self.fields.append(field)
        self.box.setVisible(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.shown)
        layout.addWidget(self.box)
        self.shown.toggled.connect(self._show)

    def workers(self) -> Workers | None:
        """Return the cluster; None where this machine scores.

        Raises
        ------
        JobFailed
            If certificates are given without an address, or only some of them.
        """
        address, *files = (field.text().strip() for field in self.fields)
        ca, cert, key = (Path(file).expanduser() if file else None for file in files)
        tls = tls_files(ca, cert, key)
        if not address:
            if tls is not None:
                raise JobFailed("Certificates belong to a cluster: give its address, or take them out.")
            return None
        return Workers(address, tls)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""

    def _show(self, shown: bool) -> None:
        self.shown.setArrowType(Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow)
        self.box.setVisible(shown)
