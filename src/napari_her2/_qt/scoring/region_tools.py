"""What regions are drawn with: polygon, rectangle, freehand, a wand on the tissue; and what takes it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QPushButton, QWidget

from napari_her2._napari.region_history import RegionHistory
from napari_her2._qt.parts.subscriptions import Subscriptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.layers import Shapes
    from qtpy.QtWidgets import QAbstractButton

WAND = "wand"
_TOOLS = (
    ("add_polygon", "Polygon", "Click the corners; double-click or Esc ends the region"),
    ("add_rectangle", "Rectangle", "Drag from corner to corner"),
    ("add_polygon_lasso", "Freehand", "Hold the button down and draw around the region"),
    (WAND, "Wand", "Click on tissue: the whole piece of tissue there becomes a region, its holes left out"),
)
_STILL_PX = 4
"""A button that is pressed and moves farther drags the view."""
_UNDO, _REDO = "Control-Z", "Control-Shift-Z"


class RegionTools(QWidget):
    """Buttons of the tools, and of undo and redo, for one layer of regions.

    Attributes
    ----------
    wand_used : Signal(float, float)
        The user clicked with the wand, at (y, x) of the world.
    """

    wand_used = Signal(float, float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layer: ref[Shapes] | None = None
        self._histories: dict[int, RegionHistory] = {}
        self._subscriptions = Subscriptions(self)
        self.buttons: dict[str, QPushButton] = {}
        group = QButtonGroup(self)
        group.setExclusive(False)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        for mode, title, tip in _TOOLS:
            button = QPushButton(title)
            button.setCheckable(True)
            button.setToolTip(tip)
            button.setAccessibleName(f"Draw regions: {title}")
            group.addButton(button)
            row.addWidget(button, 1)
            self.buttons[mode] = button
        # A method, which PyQt holds weakly: tools that held themselves would be freed while Qt destroys them.
        group.buttonClicked.connect(self._on_tool)
        self.undo, self.redo = QPushButton("↶"), QPushButton("↷")
        for button, name, key in ((self.undo, "Undo", "Ctrl+Z"), (self.redo, "Redo", "Ctrl+Shift+Z")):
            button.setAccessibleName(f"{name} the last change of the regions")
            button.setToolTip(f"{name} the last change of the regions ({key} while their layer is active)")
            button.setFixedWidth(24)
            row.addWidget(button)
        self.undo.clicked.connect(self.take_back)
        self.redo.clicked.connect(self.bring_again)
        self.set_layer(None)

    @property
    def layer(self) -> Shapes | None:
        """The layer that is drawn in; None where there is none, or it is gone."""
        return None if self._layer is None else self._layer()

    @property
    def history(self) -> RegionHistory | None:
        """What was done to the layer."""
        layer = self.layer
        return None if layer is None else self._histories.get(id(layer))

    def set_layer(self, layer: Shapes | None) -> None:
        """Draw in another layer; None for none."""
        if layer is None or layer is not self.layer:
            self._put_wand_away()
            self._subscriptions.end()
            self._layer = None if layer is None else ref(layer)
            if layer is not None:
                self._subscriptions.add(layer.events.mode, self._show)
                self._subscriptions.add(self._history_of(layer).changed, self._show)
        self.setVisible(layer is not None)
        self._show()

    def shutdown(self) -> None:
        """Let go of all layers."""
        self._put_wand_away()
        self._subscriptions.end()
        for history in self._histories.values():
            history.release()
        self._histories.clear()
        self._layer = None

    def take_back(self) -> None:
        """Undo the last change."""
        if self.history is not None:
            self.history.undo()

    def bring_again(self) -> None:
        """Redo what was undone last."""
        if self.history is not None:
            self.history.redo()

    def _history_of(self, layer: Shapes) -> RegionHistory:
        known = self._histories.get(id(layer))
        if known is None or not known.is_of(layer):
            known = self._histories[id(layer)] = RegionHistory(layer)
            layer.bind_key(_UNDO, _calling(known.undo), overwrite=True)
            layer.bind_key(_REDO, _calling(known.redo), overwrite=True)
        return known

    def _on_tool(self, button: QAbstractButton) -> None:
        self._use(next(mode for mode, of in self.buttons.items() if of is button), button.isChecked())

    def _use(self, mode: str, checked: bool = True) -> None:
        layer = self.layer
        if layer is None:
            return
        self._put_wand_away()
        layer.mode = mode if checked and mode != WAND else "pan_zoom"
        if mode == WAND and checked:
            layer.selected_data = set()
            layer.mouse_drag_callbacks.append(self._on_click)
        self._show()

    @property
    def wand_in_hand(self) -> bool:
        """Whether a click takes a piece of tissue."""
        layer = self.layer
        return layer is not None and self._on_click in layer.mouse_drag_callbacks

    def _put_wand_away(self) -> None:
        layer = self.layer
        if layer is not None and self._on_click in layer.mouse_drag_callbacks:
            layer.mouse_drag_callbacks.remove(self._on_click)

    def _on_click(self, layer: Shapes, event: Any) -> Iterator[None]:  # noqa: ANN401 - a napari event
        """Take the piece of tissue where the button is pressed and let go again; a drag moves the view."""
        pressed = tuple(event.pos)
        yield
        while event.type == "mouse_move":
            if max(abs(now - then) for now, then in zip(event.pos, pressed, strict=True)) > _STILL_PX:
                return
            yield
        y, x = (float(of) for of in tuple(event.position)[-2:])
        self.wand_used.emit(y, x)

    def _show(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        layer, history = self.layer, self.history
        mode = "" if layer is None else str(layer.mode)
        if mode not in ("", "pan_zoom"):
            self._put_wand_away()
        for name, button in self.buttons.items():
            button.setChecked(self.wand_in_hand if name == WAND else name == mode)
        self.undo.setEnabled(history is not None and history.can_undo)
        self.redo.setEnabled(history is not None and history.can_redo)


def _calling(method: Callable[[], None]) -> Callable[[Shapes], None]:
    def call(layer: Shapes) -> None:
        method()

    return call
