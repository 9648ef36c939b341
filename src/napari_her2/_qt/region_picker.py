"""Whether the whole slide is scored, or only inside regions that the pathologist drew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.text import Combo, Label

if TYPE_CHECKING:
    from collections.abc import Sequence

WHOLE_SLIDE = "Whole slide"
_PRESETS = (
    ("automatic", "auto"),
    ("resection: large pieces", "resection"),
    ("biopsy: small and thin pieces", "biopsy"),
)


class RegionPicker(QWidget):
    """Combo of the shapes layers of the chosen slide, and how tissue is looked for.

    Attributes
    ----------
    add_wanted : Signal()
        The user wants a layer to draw regions in.
    """

    add_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.combo = Combo()
        self.combo.setAccessibleName("Region to score")
        self.combo.setToolTip("Score the whole slide, or only inside the regions of a layer")
        self.add = QPushButton("Add region")
        self.add.setToolTip("Adds a layer over the slide and starts drawing; double-click ends a region")
        self.add.clicked.connect(self.add_wanted)
        self.tissue = Combo()
        self.tissue.setAccessibleName("Kind of tissue")
        self.tissue.setToolTip("How tissue is told from glass; try another where the outline is wrong")
        for text, preset in _PRESETS:
            self.tissue.addItem(text, preset)
        label = Label("Tissue")
        label.setBuddy(self.tissue)
        where, how = QHBoxLayout(), QHBoxLayout()
        where.addWidget(self.combo, 1)
        where.addWidget(self.add)
        how.addWidget(label)
        how.addWidget(self.tissue, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(where)
        layout.addLayout(how)
        self.set_layers([])

    @property
    def layer_name(self) -> str:
        """Name of the chosen layer; empty for the whole slide."""
        return str(self.combo.currentData() or "")

    @property
    def preset(self) -> str:
        """Preset of the tissue mask: "auto", "resection" or "biopsy"."""
        return str(self.tissue.currentData())

    def set_layers(self, names: Sequence[str], chosen: str = "") -> None:
        """Show the layers that hold regions; the choice stays where it can."""
        wanted = chosen or self.layer_name
        self.combo.blockSignals(True)
        self.combo.clear()
        self.combo.addItem(WHOLE_SLIDE, "")
        for name in names:
            self.combo.addItem(name, name)
        self.combo.setCurrentIndex(1 + list(names).index(wanted) if wanted in names else 0)
        self.combo.blockSignals(False)

    def set_ready(self, ready: bool) -> None:
        """Whether there is a slide to draw on."""
        self.combo.setEnabled(ready)
        self.add.setEnabled(ready)
