"""What the regions of the chosen layer are: tumour, or something that is left out; and their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget

from napari_her2._napari.region_kinds import (
    CHOICES,
    PROPOSED,
    choice_words,
    drawn_next,
    give_kinds,
    has_kinds,
    kinds_of,
    names_of,
    set_kind,
    set_name,
    summary,
)
from napari_her2._qt.parts.subscriptions import Subscriptions
from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.parts.theme import Colours
from napari_her2.explain.proposal import WORDS
from napari_her2.inference.region_kinds import LONGEST_NAME

if TYPE_CHECKING:
    from napari.layers import Shapes

_PROPOSED_HINT = f"{WORDS[0].upper()}{WORDS[1:]}, change them, then accept them."
_CHANGING = ("pan_zoom", "select", "direct", "transform", "vertex_insert", "vertex_remove")
"""Modes in which a selection is meant; in the others the next region is being drawn."""


class RegionEditor(QWidget):
    """Kind and name of the selected regions, or kind of the next one.

    Attributes
    ----------
    changed : Signal()
        Regions were drawn, changed or taken away.
    accept_wanted, discard_wanted : Signal()
        What is only proposed is to count, or to go.
    """

    changed = Signal()
    accept_wanted = Signal()
    discard_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layer: ref[Shapes] | None = None
        self._subscriptions = Subscriptions(self)
        self.subject = Label()
        self.kind = Combo("Kind of the region")
        for kind, name in CHOICES:
            self.kind.addItem(choice_words(kind, name), (kind, name))
        self.kind.setToolTip("Tumour is read; everything else inside it is left out of the score")
        self.name = QLineEdit()
        self.name.setMaxLength(LONGEST_NAME)
        self.name.setAccessibleName("Name of the region")
        self.summary = Label(wrap=True)
        self.hint = Label(_PROPOSED_HINT, wrap=True)
        self.accept = QPushButton("Accept as tumour")
        self.accept.setToolTip("The proposed regions count as tumour from now on")
        self.discard = QPushButton("Discard")
        self.discard.setToolTip("Takes the proposed regions away")
        self._arrange()
        self.kind.activated.connect(self._on_kind)
        self.name.editingFinished.connect(self._on_name)
        self.accept.clicked.connect(self.accept_wanted)
        self.discard.clicked.connect(self.discard_wanted)
        self.set_colours(Colours())
        self.set_layer(None)

    def _arrange(self) -> None:
        grid = QGridLayout()
        grid.setHorizontalSpacing(4)
        grid.addWidget(self.subject, 0, 0)
        grid.addWidget(self.kind, 0, 1)
        grid.addWidget(self.name, 0, 2)
        grid.setColumnStretch(1, 3)
        grid.setColumnStretch(2, 2)
        self.proposal = QWidget()
        buttons = QHBoxLayout()
        buttons.addWidget(self.accept, 1)
        buttons.addWidget(self.discard)
        proposal = QVBoxLayout(self.proposal)
        proposal.setContentsMargins(0, 0, 0, 0)
        proposal.setSpacing(4)
        proposal.addWidget(self.hint)
        proposal.addLayout(buttons)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(grid)
        layout.addWidget(self.summary)
        layout.addWidget(self.proposal)

    @property
    def layer(self) -> Shapes | None:
        """The layer whose regions are edited; None where there is none, or it is gone."""
        return None if self._layer is None else self._layer()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.summary.setStyleSheet(f"color: {colours.muted};")
        self.hint.setStyleSheet(f"color: {colours.warning};")

    def set_layer(self, layer: Shapes | None) -> None:
        """Edit the regions of another layer; None for none."""
        if layer is not self.layer or layer is None:
            self._subscriptions.end()
            self._layer = None if layer is None else ref(layer)
            if layer is not None:
                if has_kinds(layer):
                    give_kinds(layer)  # a copy that napari made of a layer of ours has no colours that follow
                for signal in (
                    layer.events.data,
                    layer.events.features,
                    layer.events.feature_defaults,
                    layer.events.mode,
                    layer.selected_data.events.items_changed,
                ):
                    self._subscriptions.add(signal, self._on_layer)
        self.setVisible(layer is not None)
        self.show_layer()

    def shutdown(self) -> None:
        """Let go of the layer."""
        self._subscriptions.end()
        self._layer = None

    def _selected(self) -> list[int]:
        layer = self.layer
        if layer is None or str(layer.mode) not in _CHANGING:
            return []
        return sorted(int(number) for number in layer.selected_data if number < layer.nshapes)

    def show_layer(self) -> None:
        """Show what is selected, or what the next region will be, and what the layer holds."""
        layer = self.layer
        if layer is None:
            return
        selected, kinds = self._selected(), kinds_of(layer)
        self.subject.setText(_subject(len(selected)))
        names = names_of(layer)
        shown = {(kinds[number], names[number]) for number in selected} or {drawn_next(layer)}
        self.kind.setCurrentIndex(_place(shown))
        self.name.setEnabled(bool(selected))
        self.name.setPlaceholderText("one name for all" if len(selected) > 1 else "name")
        if not self.name.hasFocus():
            self.name.setText(names[selected[0]] if len(selected) == 1 else "")
        self.summary.setText(summary(layer))
        self.proposal.setVisible(PROPOSED in kinds)

    def _on_layer(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        self.show_layer()
        if getattr(event, "type", "") in ("data", "features"):
            self.changed.emit()

    def _on_kind(self) -> None:
        layer = self.layer
        if layer is not None:
            kind, name = self.kind.currentData()
            set_kind(layer, kind, name, self._selected())
            self.show_layer()

    def _on_name(self) -> None:
        layer, selected = self.layer, self._selected()
        text = self.name.text().strip()
        known = names_of(layer) if layer is not None else []
        if layer is None or not selected or (len(selected) > 1 and not text):
            return
        if any(known[number] != text for number in selected):
            set_name(layer, text, selected)
            self.name.setText(names_of(layer)[selected[0]] if len(selected) == 1 else text)


def _subject(selected: int) -> str:
    if selected < 2:
        return "Selected" if selected else "Next"
    return f"{selected} selected"


def _place(shown: set[tuple[str, str]]) -> int:
    """Return the number of the choice that all of them are; -1 where they differ, or none is one."""
    places = {
        next(
            (at for at, (of, called) in enumerate(CHOICES) if of == kind and called in ("", name)),
            -1,
        )
        for kind, name in shown
    }
    return places.pop() if len(places) == 1 else -1
