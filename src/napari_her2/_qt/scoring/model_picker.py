"""Which model scores, and its card: what it is, what it was trained on, how good it was."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QToolButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.parts.theme import Colours
from napari_her2.inference.class_words import class_names
from napari_her2.methods.catalogue import METHODS, method_of
from napari_her2.models.card_doubt import answer_sets_words, familiarity_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2.models.card import ModelCard
    from napari_her2.models.registry import ModelEntry

_SHORT = 110  # characters: two lines in the dock; the card has it all


class ModelPicker(QWidget):
    """Combo of the models with the card of the chosen one.

    Attributes
    ----------
    changed : Signal(str)
        Name of the chosen model; empty where there is none.
    add_wanted : Signal()
        The user wants to add a model file.
    import_wanted : Signal()
        The user wants to import a checkpoint of published code.
    """

    changed = Signal(str)
    add_wanted = Signal()
    import_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.combo = Combo()
        self.combo.setAccessibleName("Model")
        self.add = QPushButton("Add…")
        self.add.setToolTip("Add a model file (.safetensors) from this computer; nothing is downloaded")
        self.add.setAccessibleName("Add model file")
        self.importing = QPushButton("Import a model…")
        self.importing.setToolTip(
            "Make a model of a checkpoint of published code (CLAM, TransMIL and others): only its tensors "
            "are read, and you say what it does not"
        )
        self.importing.setAccessibleName("Import a checkpoint as a model")
        self.summary = Label(wrap=True)
        self.more = QToolButton()
        self.more.setText("Model card")
        self.more.setCheckable(True)
        self.more.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.more.setArrowType(Qt.ArrowType.RightArrow)
        self.card = Label(wrap=True, selectable=True)
        self.card.setVisible(False)
        row = QHBoxLayout()
        row.addWidget(self.combo, 1)
        row.addWidget(self.add)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(row)
        below = QHBoxLayout()
        below.addWidget(self.more)
        below.addStretch()
        below.addWidget(self.importing)
        layout.addWidget(self.summary)
        layout.addLayout(below)
        layout.addWidget(self.card)
        self._entries: list[ModelEntry] = []
        self.combo.currentIndexChanged.connect(self._on_choice)
        self.add.clicked.connect(self.add_wanted)
        self.importing.clicked.connect(self.import_wanted)
        self.more.toggled.connect(self._show_card)
        self.set_colours(Colours())
        self.set_loading()

    @property
    def name(self) -> str:
        """Name of the chosen model; empty where there is none."""
        entry = self.entry
        return "" if entry is None else entry.name

    @property
    def entry(self) -> ModelEntry | None:
        """The chosen model."""
        at = self.combo.currentIndex()
        return self._entries[at] if 0 <= at < len(self._entries) else None

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """The models to choose from."""
        return tuple(self._entries)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.summary.setStyleSheet(f"color: {colours.muted};")
        self.card.setStyleSheet(f"color: {colours.muted};")

    def set_loading(self) -> None:
        """Show that the models are being looked for."""
        self.combo.setEnabled(False)
        self.more.setVisible(False)
        self.summary.setText("Looking for models …")

    def set_models(self, entries: Sequence[ModelEntry], chosen: str = "") -> None:
        """Show the models there are.

        Parameters
        ----------
        entries : sequence of ModelEntry
        chosen : str
            Name of the one to choose; by default the choice stays.
        """
        wanted = chosen or self.name
        self._entries = list(entries)
        self.combo.blockSignals(True)
        self.combo.clear()
        self.combo.addItems([_shown(entry) for entry in entries])
        names = [entry.name for entry in entries]
        self.combo.setCurrentIndex(names.index(wanted) if wanted in names else _usual(entries))
        self.combo.blockSignals(False)
        self.combo.setEnabled(bool(entries))
        self._on_choice()

    def _on_choice(self) -> None:
        entry = self.entry
        self.more.setVisible(entry is not None)
        self.card.setVisible(entry is not None and self.more.isChecked())
        if entry is None:
            self.summary.setText("No model is installed. Add a model file to score with.")
        else:
            self.summary.setText(summary_of(entry.card))
            self.card.setText(card_text(entry.card))
        self.changed.emit(self.name)

    def _show_card(self, shown: bool) -> None:
        self.more.setArrowType(Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow)
        self.card.setVisible(shown and self.entry is not None)


def _needs_no_weights(entry: ModelEntry) -> bool:
    method = METHODS.get(entry.card.method)
    return method is not None and not method.needs_weights


def _shown(entry: ModelEntry) -> str:
    """Return what an entry is called: a model by its name, a method that needs none by its title."""
    return method_of(entry.card).title if _needs_no_weights(entry) else entry.name


def _usual(entries: Sequence[ModelEntry]) -> int:
    """Which entry is chosen before a person chooses: the first model, -1 where there is nothing."""
    models = [at for at, entry in enumerate(entries) if not _needs_no_weights(entry)]
    return models[0] if models else min(len(entries), 1) - 1


def summary_of(card: ModelCard) -> str:
    """Return what is always shown: task, on what it works, and what it was trained on."""
    method, known = method_of(card), shorten(card.training_data, _SHORT, placeholder=" …")
    trained = f"Trained on: {known}" if method.needs_weights else f"Training data: {known}"
    return f"{card.task} · {card.stain}, {method.sees(card)}\n{trained}"


def card_text(card: ModelCard) -> str:
    """Return the card in words, a paragraph for each fact."""
    method = method_of(card)
    scores = ", ".join(class_names(card.classes, card.class_scores).values())
    lines = [
        f"Method: {method.title} ({method.name}; {method.paper}), version {card.version}"
        + (f", encoder {card.encoder.name}" if card.encoder is not None else ""),
        f"Scores: {scores} ({card.guideline})",
        f"Training data: {card.training_data}",
    ]
    if card.metrics:
        measured = "; ".join(f"{name} {value:.3g}" for name, value in card.metrics.items())
        lines.append(f"Measured: {measured}")
    if method.needs_weights:
        lines += [
            f"Familiarity: {familiarity_words(card.familiarity)}",
            f"Sets with a promise: {answer_sets_words(card.answer_sets)}",
        ]
    lines += [f"Intended use: {card.intended_use}", f"Licence: {card.licence}", card.notice]
    return "\n".join(lines)
