"""Which overlays are shown, on which scale, how opaque."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal, SignalInstance
from qtpy.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QPushButton, QSlider, QVBoxLayout, QWidget

from napari_her2._napari.colormaps import category_hex
from napari_her2._qt.parts.text import Combo, Label, joined, markup, tip

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from napari_her2._napari.layers import OverlayLook
    from napari_her2.explain.overlays import Overlay

_COLUMNS = 2


class OverlayControls(QWidget):
    """Controls of the overlays of one result, made from their descriptions.

    Attributes
    ----------
    boxes : dict of str to QCheckBox
        Kind of an overlay to its box.
    classes, scales : dict of str to Combo
        Kind of an overlay to the choice of its class, or of its scale, where there is one.
    legends : dict of str to Label
        Kind of an overlay to the colours of its categories.
    visible_changed : Signal(str, bool)
        Kind of an overlay, and whether it is wanted.
    class_changed, scale_changed : Signal(str, str)
        Kind of an overlay, and what was chosen.
    opacity_changed : Signal(float)
    held : Signal(bool)
        Whether the button that hides all overlays is held down.
    """

    visible_changed = Signal(str, bool)
    class_changed = Signal(str, str)
    scale_changed = Signal(str, str)
    opacity_changed = Signal(float)
    held = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.boxes: dict[str, QCheckBox] = {}
        self.classes: dict[str, Combo] = {}
        self.scales: dict[str, Combo] = {}
        self.legends: dict[str, Label] = {}
        self._made_of: Hashable = None
        self._rows = QWidget()
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setAccessibleName("Opacity of the overlays")
        self.opacity.setToolTip("Opacity of the maps")
        self.opacity.valueChanged.connect(lambda value: self.opacity_changed.emit(value / 100))
        self.hold = QPushButton("Hold to hide")
        self.hold.setToolTip("Hides all overlays while it is held down (space bar when it has the focus)")
        self.hold.pressed.connect(lambda: self.held.emit(True))
        self.hold.released.connect(lambda: self.held.emit(False))
        bottom = QHBoxLayout()
        bottom.addWidget(Label("Opacity"))
        bottom.addWidget(self.opacity, 1)
        bottom.addWidget(self.hold)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.addWidget(self._rows)
        self._layout.addLayout(bottom)

    def set_overlays(
        self, overlays: Sequence[Overlay], look: OverlayLook, score: str, named: Callable[[str], str]
    ) -> None:
        """Show the overlays of a result and how they are drawn.

        Parameters
        ----------
        overlays : sequence of Overlay
            Those with a checkbox get one, in their order.
        look : OverlayLook
        score : str
            The class that is shown where none was chosen.
        named : callable
            How a class is called.
        """
        listed = [overlay for overlay in overlays if overlay.info.listed]
        made_of = tuple((of.info, tuple(of.scales.values()), tuple(map(named, of.classes))) for of in listed)
        if made_of != self._made_of:
            self._made_of = made_of
            self._make_rows(listed, named)
        for overlay in listed:
            if (combo := self.classes.get(overlay.kind)) is not None:
                # What is drawn of it: there may be no map of the score.
                wanted = look.class_names.get(overlay.kind, score)
                _choose(combo, overlay.chosen(wanted, look.scales.get(overlay.kind)).class_name)
        for kind, combo in self.scales.items():
            _choose(combo, look.scales.get(kind, combo.itemData(0)))
        self.opacity.blockSignals(True)
        self.opacity.setValue(round(100 * look.opacity))
        self.opacity.blockSignals(False)

    def set_visible(self, visible: Mapping[str, bool | None]) -> None:
        """Show which overlays are drawn; None where there is no layer of it."""
        for kind, box in self.boxes.items():
            state = visible.get(kind)
            box.blockSignals(True)
            box.setChecked(bool(state))
            box.setEnabled(state is not None)
            box.blockSignals(False)

    def _make_rows(self, overlays: Sequence[Overlay], named: Callable[[str], str]) -> None:
        """Make the controls: choices and legends in rows of their own, other boxes side by side."""
        self.boxes, self.classes, self.scales, self.legends = {}, {}, {}, {}
        rows = QWidget()
        grid = QGridLayout(rows)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setColumnStretch(_COLUMNS - 1, 1)
        row, column = 0, 0
        for overlay in overlays:
            beside = self._choices(overlay, named)
            if (beside is not None or overlay.info.categories) and column:
                row, column = row + 1, 0
            box = self.boxes[overlay.kind] = self._box(overlay)
            grid.addWidget(box, row, column)
            column += 1
            if beside is not None:
                grid.addWidget(beside, row, column)
                column += 1
            if overlay.info.categories:
                row += 1
                legend = self.legends[overlay.kind] = _legend(overlay, named)
                grid.addWidget(legend, row, 0, 1, _COLUMNS)
                column = _COLUMNS
            if column == _COLUMNS:
                row, column = row + 1, 0
        self._layout.replaceWidget(self._rows, rows)
        self._rows.deleteLater()
        self._rows = rows

    def _box(self, overlay: Overlay) -> QCheckBox:
        kind = overlay.kind
        box = QCheckBox(overlay.info.title)
        box.setToolTip(tip(overlay.info.means()))
        box.toggled.connect(lambda checked: self.visible_changed.emit(kind, checked))
        return box

    def _choices(self, overlay: Overlay, named: Callable[[str], str]) -> QWidget | None:
        """Choices of class and of scale; None where there is nothing to choose."""
        made = []
        if len(overlay.classes) > 1:
            combo = self.classes[overlay.kind] = Combo(f"Score that is shown: {overlay.info.title}")
            for name in overlay.classes:
                combo.addItem(named(name), name)
            made.append(_chooser(combo, overlay.kind, self.class_changed))
        if len(overlay.scales) > 1:
            combo = self.scales[overlay.kind] = Combo(f"Scale that is shown: {overlay.info.title}")
            for scale, info in overlay.scales.items():
                combo.addItem(info.unit, scale)
            combo.setToolTip("\n".join(f"{info.unit}: {info.means()}" for info in overlay.scales.values()))
            made.append(_chooser(combo, overlay.kind, self.scale_changed))
        if len(made) < 2:
            return made[0] if made else None
        both = QWidget()
        layout = QHBoxLayout(both)
        layout.setContentsMargins(0, 0, 0, 0)
        for combo in made:
            layout.addWidget(combo, 1)
        return both


def _chooser(combo: Combo, kind: str, changed: SignalInstance) -> Combo:
    combo.activated.connect(lambda _: changed.emit(kind, combo.currentData()))
    return combo


def _choose(combo: Combo, data: str | None) -> None:
    combo.blockSignals(True)
    combo.setCurrentIndex(combo.findData(data))
    combo.blockSignals(False)


def _legend(overlay: Overlay, named: Callable[[str], str]) -> Label:
    """Colour and name of each category, below the text of its box."""
    legend = Label(wrap=True)
    legend.setIndent(22)
    legend.setAccessibleName(f"Colours: {overlay.info.title}")
    names = overlay.info.categories
    entry = '<span style="color: {}; font-size: 13pt;">\u25a0</span>&nbsp;{}'
    entries = [
        markup(entry, colour, named(name))
        for colour, name in zip(category_hex(overlay.info), names, strict=True)
    ]
    legend.set_markup(joined(entries, "&nbsp; "))
    return legend
