"""Which overlays are shown, on which scale, how opaque."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QPushButton, QSlider, QVBoxLayout, QWidget

from napari_her2._napari.colormaps import score_hex
from napari_her2._qt.parts.text import Combo, Label, Markup, joined, markup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_her2._napari.layers import OverlayLook
    from napari_her2._napari.tags import OverlayRole

_ATTENTION_TIP = "Regions the model used; not regions that are HER2-positive"
_WEIGHT_TIP = "How much each tile counts in the score of the slide; not where the slide is HER2-positive"
_BOXES: tuple[tuple[OverlayRole, str, str], ...] = (
    ("score", "Score of each tile", "The most probable class of each tile by itself"),
    (
        "confidence",
        "Confidence",
        "How far the model trusts its score of each tile: learnt, not a probability of being right",
    ),
    ("attention", "Attention", _ATTENTION_TIP),
    ("evidence", "Evidence for", "Orange speaks for the chosen score, blue against it"),
    ("Grad-CAM", "Grad-CAM", _ATTENTION_TIP),
    ("class Grad-CAM", "Grad-CAM for", f"{_ATTENTION_TIP}. It does not tell how much speaks for the score"),
    ("tissue", "Tissue", "Outline of what was taken for tissue"),
    ("top tiles", "Top tiles", "Frames around the most attended tiles"),
)


class OverlayControls(QWidget):
    """Controls of the overlays of one result.

    Attributes
    ----------
    visible_changed : Signal(str, bool)
        Role of an overlay, and whether it is wanted.
    class_changed : Signal(str)
    scale_changed : Signal(str)
        "percentile" or "raw".
    opacity_changed : Signal(float)
    held : Signal(bool)
        Whether the button that hides all overlays is held down.
    """

    visible_changed = Signal(str, bool)
    class_changed = Signal(str)
    scale_changed = Signal(str)
    opacity_changed = Signal(float)
    held = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.boxes = {role: self._box(role, text, tip) for role, text, tip in _BOXES}
        self.class_name = Combo()
        self.class_name.setAccessibleName("Score whose evidence or Grad-CAM is shown")
        self.legend = Label(wrap=True)
        self.legend.setIndent(22)  # below the text of its box
        self.legend.setAccessibleName("Colours of the score map")
        self.class_name.activated.connect(lambda _: self.class_changed.emit(self.class_name.currentData()))
        self.scale = Combo()
        self.scale.setAccessibleName("Scale of the attention map")
        self.scale.addItem("percentile", "percentile")
        self.scale.addItem("raw weight", "raw")
        self.scale.setToolTip(
            "Percentile: rank among the tiles of this slide. Raw: the weight itself, 1st to 99th percentile."
        )
        self.scale.activated.connect(lambda _: self.scale_changed.emit(self.scale.currentData()))
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setAccessibleName("Opacity of the overlays")
        self.opacity.setToolTip("Opacity of the maps")
        self.opacity.valueChanged.connect(lambda value: self.opacity_changed.emit(value / 100))
        self.hold = QPushButton("Hold to hide")
        self.hold.setToolTip("Hides all overlays while it is held down (space bar when it has the focus)")
        self.hold.pressed.connect(lambda: self.held.emit(True))
        self.hold.released.connect(lambda: self.held.emit(False))
        self._arrange()

    def set_choices(
        self,
        classes: Mapping[str, str],
        look: OverlayLook,
        shown: str,
        *,
        evidence: bool = True,
        by_tile: bool = False,
        attention: bool = True,
        confidence: bool = True,
        class_cam: bool = False,
    ) -> None:
        """Show the classes of a result and how it is drawn.

        Parameters
        ----------
        classes : mapping of str to str
            Each class, and how it is named.
        look : OverlayLook
        shown : str
            The class whose evidence or Grad-CAM is drawn.
        evidence : bool
            Whether the method can tell evidence; its controls are hidden where it cannot.
        by_tile : bool
            Whether the method scores each tile by itself: attention is then its weight in the score.
        attention : bool
            Whether the method has attention, by which tiles are ranked.
        confidence : bool
            Whether a method that scores tiles has learnt how far to trust each; Grad-CAM of a part of the
            slide is computed for such methods alone.
        class_cam : bool
            Whether Grad-CAM of each class over the whole slide belongs to the result.
        """
        for part in (self.boxes["score"], self.legend):
            part.setVisible(by_tile)
        self.legend.set_markup(_legend(tuple(classes.values())))
        self.boxes["confidence"].setVisible(by_tile and confidence)
        self.boxes["Grad-CAM"].setVisible(by_tile and confidence)
        self.boxes["class Grad-CAM"].setVisible(class_cam)
        for widget in (self.boxes["attention"], self.scale, self.boxes["top tiles"]):
            widget.setVisible(attention)
        self.boxes["attention"].setText("Weight in the score" if by_tile else "Attention")
        self.boxes["attention"].setToolTip(_WEIGHT_TIP if by_tile else _ATTENTION_TIP)
        self.boxes["top tiles"].setToolTip(
            f"Frames around the most {'weighted' if by_tile else 'attended'} tiles"
        )
        self.boxes["evidence"].setVisible(evidence)
        self.class_name.setVisible(evidence or class_cam)
        widgets = (self.class_name, self.scale, self.opacity)
        for widget in widgets:
            widget.blockSignals(True)
        self.class_name.clear()
        for name, named in classes.items():
            self.class_name.addItem(named, name)
        self.class_name.setCurrentIndex(self.class_name.findData(shown))
        self.scale.setCurrentIndex(self.scale.findData(look.attention_scale))
        self.opacity.setValue(round(100 * look.opacity))
        for widget in widgets:
            widget.blockSignals(False)

    def set_visible(self, visible: Mapping[OverlayRole, bool | None]) -> None:
        """Show which overlays are drawn; None where there is no such overlay."""
        for role, box in self.boxes.items():
            state = visible.get(role)
            box.blockSignals(True)
            box.setChecked(bool(state))
            box.setEnabled(state is not None)
            box.blockSignals(False)

    def _box(self, role: OverlayRole, text: str, tip: str) -> QCheckBox:
        box = QCheckBox(text)
        box.setToolTip(tip)
        box.toggled.connect(lambda checked: self.visible_changed.emit(role, checked))
        return box

    @staticmethod
    def _either(*boxes: QCheckBox) -> QWidget:
        """One place for boxes that are never there together."""
        place = QWidget()
        layout = QVBoxLayout(place)
        layout.setContentsMargins(0, 0, 0, 0)
        for box in boxes:
            layout.addWidget(box)
        return place

    def _arrange(self) -> None:
        grid = QGridLayout()
        grid.setHorizontalSpacing(8)
        grid.addWidget(self.boxes["score"], 0, 0, 1, 2)
        grid.addWidget(self.legend, 1, 0, 1, 2)
        for row, (left, right) in enumerate(
            (
                (self.boxes["confidence"], self.boxes["Grad-CAM"]),
                (self.boxes["attention"], self.scale),
                (self._either(self.boxes["evidence"], self.boxes["class Grad-CAM"]), self.class_name),
                (self.boxes["top tiles"], self.boxes["tissue"]),
            ),
            start=2,
        ):
            grid.addWidget(left, row, 0)
            grid.addWidget(right, row, 1)
        grid.setColumnStretch(1, 1)
        bottom = QHBoxLayout()
        bottom.addWidget(Label("Opacity"))
        bottom.addWidget(self.opacity, 1)
        bottom.addWidget(self.hold)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(grid)
        layout.addLayout(bottom)


def _legend(classes: Sequence[str]) -> Markup:
    """Colour and name of each class."""
    colours = score_hex(len(classes))
    entry = '<span style="color: {}; font-size: 13pt;">\u25a0</span>&nbsp;{}'
    entries = [markup(entry, colour, name) for colour, name in zip(colours, classes, strict=True)]
    return joined(entries, "&nbsp; ")
