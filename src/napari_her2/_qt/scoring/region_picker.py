"""Whether the whole slide is scored, or only inside regions that the pathologist drew; and what these are."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.scoring.region_editor import RegionEditor
from napari_her2._qt.scoring.region_tools import RegionTools
from napari_her2._qt.scoring.side_answers import SideAnswers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2._qt.parts.theme import Colours
    from napari_her2.slide.tissue import Preset

WHOLE_SLIDE = "Whole slide"
_DELETED = " (deleted)"
_PRESETS = (
    ("automatic", "auto"),
    ("resection: large pieces", "resection"),
    ("biopsy: small and thin pieces", "biopsy"),
)


class RegionPicker(QWidget):
    """Combo of the shapes layers of the chosen slide, and how tissue is looked for.

    Attributes
    ----------
    changed : Signal()
        Another layer is chosen, or none.
    add_wanted, load_wanted, save_wanted : Signal()
        The user wants a layer to draw regions in, regions of a file, or a file of the regions.
    tools : RegionTools
        What regions are drawn with.
    editor : RegionEditor
        Of the regions of the chosen layer.
    sides : SideAnswers
        The answer inside them beside that of the rest.
    """

    changed = Signal()
    add_wanted = Signal()
    load_wanted = Signal()
    save_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.combo = Combo()
        self.combo.setAccessibleName("Region to score")
        self.combo.setToolTip("Score the whole slide, or only inside the regions of a layer")
        self.add = QPushButton("Add region")
        self.add.setToolTip("Adds a layer over the slide and starts drawing; double-click ends a region")
        self.add.clicked.connect(self.add_wanted)
        self.load = QPushButton("Load…")
        self.load.setAccessibleName("Load regions")
        self.load.setToolTip(
            "Regions of a file of QuPath (GeoJSON), ImageScope (.xml) or NDP.view (.ndpa), with their names "
            "and kinds; or drop the file here"
        )
        self.load.clicked.connect(self.load_wanted)
        self.save = QPushButton("Save…")
        self.save.setAccessibleName("Save regions")
        self.save.setToolTip("Writes the regions of this layer as GeoJSON, which QuPath opens")
        self.save.clicked.connect(self.save_wanted)
        self.tools = RegionTools()
        self.editor = RegionEditor()
        self.sides = SideAnswers()
        self.tissue = Combo()
        self.tissue.setAccessibleName("Kind of tissue")
        self.tissue.setToolTip("How tissue is told from glass; try another where the outline is wrong")
        for text, preset in _PRESETS:
            self.tissue.addItem(text, preset)
        label = Label("Tissue")
        label.setBuddy(self.tissue)
        where, how = QHBoxLayout(), QHBoxLayout()
        for button in (self.add, self.load, self.save):
            where.addWidget(button, 1)
        how.addWidget(label)
        how.addWidget(self.tissue, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.combo)
        layout.addLayout(where)
        layout.addWidget(self.tools)
        layout.addWidget(self.editor)
        layout.addWidget(self.sides)
        layout.addLayout(how)
        self._of = ""
        self._chosen_for: dict[str, str] = {}  # what was chosen for each slide
        self.combo.currentIndexChanged.connect(self._on_choice)
        self.set_layers([])

    @property
    def layer_name(self) -> str:
        """Name of the chosen layer, which may have been deleted since; empty for the whole slide."""
        return str(self.combo.currentData() or "")

    @property
    def preset(self) -> Preset:
        """Preset of the tissue mask: "auto", "resection" or "biopsy"."""
        return cast("Preset", str(self.tissue.currentData()))

    def set_layers(self, names: Sequence[str], chosen: str = "", *, of: str = "") -> None:
        """Show the layers that hold regions; what was chosen stays chosen, also where it was deleted.

        Parameters
        ----------
        names : sequence of str
        chosen : str
            The one to choose; by default the choice for the slide stays. A layer that is gone is no reason
            to take the whole slide instead: that is for the reader to say.
        of : str
            Id of the slide.
        """
        wanted = chosen or self._chosen_for.get(of, "")
        self._of = of
        self.combo.blockSignals(True)
        self.combo.clear()
        self.combo.addItem(WHOLE_SLIDE, "")
        for name in names:
            self.combo.addItem(name, name)
        if wanted and wanted not in names:
            self.combo.addItem(wanted + _DELETED, wanted)
        self.combo.setCurrentIndex(max(self.combo.findData(wanted), 0))
        self.combo.blockSignals(False)
        self._on_choice()

    @property
    def shown_as_gone(self) -> bool:
        """Whether the layer that is chosen is shown as one that was deleted."""
        return bool(self.layer_name) and self.combo.currentText() == self.layer_name + _DELETED

    def keep_only(self, slide_ids: Sequence[str]) -> None:
        """Forget what was chosen for slides that are closed."""
        self._chosen_for = {key: name for key, name in self._chosen_for.items() if key in slide_ids}

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.editor.set_colours(colours)
        self.sides.set_colours(colours)

    def shutdown(self) -> None:
        """Let go of the layers."""
        self.editor.shutdown()
        self.tools.shutdown()

    def _on_choice(self) -> None:
        self._chosen_for[self._of] = self.layer_name
        self.save.setVisible(bool(self.layer_name))
        self.changed.emit()

    def set_ready(self, ready: bool) -> None:
        """Whether there is a slide to draw on."""
        self.combo.setEnabled(ready)
        self.add.setEnabled(ready)
        self.load.setEnabled(ready)
