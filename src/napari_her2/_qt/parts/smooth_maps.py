"""Smoother maps: whether overlapping tiles are scored beside those that make the score."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_her2._qt.parts.text import Combo, Label, tip
from napari_her2.inference.options import parts_of

_OFFERED = {"Off": 0.0, "Half overlapping": 0.5}
"""The command line has three quarters too, which take sixteen times the tiles."""
_TIMES = parts_of(0.5) ** 2
_WHAT = (
    f"Half overlapping: tiles shifted by half their side are scored too, and each place of the maps is the "
    f"mean over those that cover it. That takes {_TIMES} times the tiles, and about {_TIMES} times as long "
    f"the first time; then they are kept. The score stays the same. Once you change regions, maps are of "
    f"tiles side by side until you press Score."
)


class SmoothMaps(QWidget):
    """A choice, off unless somebody takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.choice = Combo("Smoother maps")
        for words, overlap in _OFFERED.items():
            self.choice.addItem(words, overlap)
        self.caption = Label("Smoother &maps")
        self.caption.setBuddy(self.choice)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.caption)
        layout.addWidget(self.choice, 1)
        self.set_reason("")

    @property
    def overlap(self) -> float:
        """What neighbouring tiles have in common of their side; 0 where it is off, or of no use."""
        return float(self.choice.currentData()) if self.choice.isEnabled() else 0.0

    def set_reason(self, reason: str) -> None:
        """Say why there is nothing to choose; empty where there is. What was chosen stays."""
        self.choice.setEnabled(not reason)
        self.setToolTip(tip(reason or _WHAT))
