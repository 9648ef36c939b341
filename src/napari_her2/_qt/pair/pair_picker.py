"""The IHC slide of the case, for models that take both slides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.parts.theme import Colours
from napari_her2.slide.case_names import looks_ihc, partner_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2.slide.reader import Slide

ALONE = "none (score this slide alone)"
_ALONE_HINT = "The answer then comes from the head of this one slide; its stain is told from its colours."
_PAIR_HINT = "The slide chosen above is taken for the H&E slide."


class PairPicker(QWidget):
    """Combo of the other open slides.

    Attributes
    ----------
    changed : Signal(str)
        Id of the IHC slide; empty where the slide is scored alone.
    open_wanted : Signal()
        The user wants to open a file.
    swap_wanted : Signal()
        The two slides are the other way round.
    """

    changed = Signal(str)
    open_wanted = Signal()
    swap_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.combo = Combo()
        self.combo.setAccessibleName("IHC slide of the case")
        self.combo.setToolTip("The IHC slide that is scored together with the slide above")
        self.open = QPushButton("Open…")
        self.open.setToolTip("Open the IHC slide from a file")
        self.open.setAccessibleName("Open the IHC slide from a file")
        self.swap = QPushButton("Swap")
        self.swap.setToolTip("Take the slide above for the IHC slide, and this one for the H&E slide")
        self.hint = Label(_ALONE_HINT, wrap=True)
        row = QHBoxLayout()
        row.addWidget(self.combo, 1)
        row.addWidget(self.swap)
        row.addWidget(self.open)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(row)
        layout.addWidget(self.hint)
        self._slides: list[tuple[str, str, Slide]] = []
        self._of = self._own_name = ""
        # What the user said of a slide is stronger than its name.
        self._chosen_for: dict[str, str] = {}
        self.combo.activated.connect(self._on_activated)
        self.open.clicked.connect(self.open_wanted)
        self.swap.clicked.connect(self.swap_wanted)
        self.set_colours(Colours())
        self.set_slides([], "")

    @property
    def slide_id(self) -> str:
        """Id of the IHC slide; empty where the slide is scored alone."""
        return str(self.combo.currentData() or "")

    @property
    def slide(self) -> Slide | None:
        """The IHC slide, None where the slide is scored alone."""
        return next((slide for key, _, slide in self._slides if key == self.slide_id), None)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.hint.setStyleSheet(f"color: {colours.muted};")

    def set_slides(self, slides: Sequence[tuple[str, str, Slide]], of: str) -> None:
        """Show the slides that may be the partner of another one.

        Parameters
        ----------
        slides : sequence of (id, name, Slide)
            All that are open.
        of : str
            Id of the slide to be scored. Its partner is what the user chose for it before; else the slide
            whose name says that it is of the same case.
        """
        self._of = of
        self._slides = [item for item in slides if item[0] != of]
        self._own_name = next((name for key, name, _ in slides if key == of), "")
        guessed = partner_of(self._own_name, [(key, name) for key, name, _ in self._slides])
        self.combo.clear()
        self.combo.addItem(ALONE, "")
        for key, name, _ in self._slides:
            self.combo.addItem(name, key)
        at = self.combo.findData(self._chosen_for.get(of, guessed))
        self.combo.setCurrentIndex(max(at, 0))
        self._show_hint()

    def choose(self, slide_id: str, of: str = "") -> None:
        """Choose the partner of a slide, as the user would; by default of the slide to be scored."""
        self._chosen_for[of or self._of] = slide_id
        if not of or of == self._of:
            self.combo.setCurrentIndex(max(self.combo.findData(slide_id), 0))
            self._show_hint()
            self.changed.emit(self.slide_id)

    def _on_activated(self) -> None:
        self.choose(self.slide_id)

    def _show_hint(self) -> None:
        self.swap.setVisible(bool(self.slide_id))
        other = next((name for key, name, _ in self._slides if key == self.slide_id), "")
        if looks_ihc(self._own_name) and other and not looks_ihc(other):
            self.hint.setText(f"By their names {self._own_name} is the IHC slide: press Swap.")
        else:
            self.hint.setText(_PAIR_HINT if other else _ALONE_HINT)
