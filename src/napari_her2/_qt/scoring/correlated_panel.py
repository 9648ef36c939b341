"""The correlated representation in the dock: shown or not, as what, how opaque; and its thread."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QSlider, QSpinBox, QVBoxLayout, QWidget

from napari_her2._napari.collecting import take_out
from napari_her2._napari.correlated import computing, preparing, representation_layer
from napari_her2._napari.lazy_pyramid import CorrelatedSource
from napari_her2._napari.tags import slide_tag
from napari_her2._qt.parts.jobs import Failure, Job
from napari_her2._qt.parts.subscriptions import Subscriptions
from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.parts.theme import Colours
from napari_her2.explain.correlated_colours import REPRESENTATION
from napari_her2.methods.catalogue import can_explain
from napari_her2.number_words import counted, size_in_words

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_her2._napari.correlated import Prepared, View
    from napari_her2._napari.session import Session
    from napari_her2._napari.settings import Settings
    from napari_her2.explain.correlated_colours import FieldColours
    from napari_her2.models.registry import ModelEntry
    from napari_her2.steps import Progress

_MS_BETWEEN_REFRESHES = 100
_VIEWS: tuple[tuple[str, View], ...] = (
    ("mean of all channels", "mean"),
    ("three components in colour", "PCA"),
    ("one channel", "channel"),
)


class CorrelatedPanel(QWidget):
    """Shows the correlated representation of one slide at a time.

    Fields are computed in a thread, for the view and at its level alone; the thread ends when nothing in
    view is missing. Taking the layer away, by the box or in napari, frees its memory, and closing the slide
    takes the layer along.

    Parameters
    ----------
    session : Session
    settings : Settings

    Attributes
    ----------
    failed : Signal(Failure)
    """

    failed = Signal(object)
    _arrived = Signal()
    _wanted = Signal()

    def __init__(self, session: Session, settings: Settings, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._settings = settings
        self._model = ""
        self._slide_id = ""
        self._prepared: Prepared | None = None
        self._source: CorrelatedSource | None = None
        self._layer: Image | None = None
        self.prepare_job, self.compute_job = Job(), Job()
        self.jobs = (self.prepare_job, self.compute_job)
        self._pause = QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.setInterval(_MS_BETWEEN_REFRESHES)
        self._make_widgets()
        self._connect()
        self._show_state()
        self.setVisible(False)

    @property
    def layer(self) -> Image | None:
        """The layer, None where nothing is shown."""
        return self._layer

    @property
    def source(self) -> CorrelatedSource | None:
        """What the layer shows; None where nothing is shown."""
        return self._source

    def set_model(self, entry: ModelEntry | None) -> None:
        """Take the chosen model; the controls are there only where it makes such a representation."""
        name = entry.name if entry is not None and can_explain(entry.card, "representation") else ""
        if name != self._model:
            self._model = name
            self.box.setChecked(False)
        self.setVisible(bool(name))
        self._show_state()

    def set_slide(self, slide_id: str) -> None:
        """Take the chosen slide."""
        if slide_id != self._slide_id:
            self._slide_id = slide_id
            self.box.setChecked(False)
        self._show_state()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.status.setStyleSheet(f"color: {colours.muted};")

    def shutdown(self) -> None:
        """Take the layer away, and wait for the threads."""
        self.box.setChecked(False)
        for job in self.jobs:
            job.shutdown()
        self._subscriptions.end()

    # -- what it looks like

    def _make_widgets(self) -> None:
        self.box = QCheckBox(REPRESENTATION.title)
        self.box.setToolTip(REPRESENTATION.means())
        self.view = Combo()
        self.view.setAccessibleName("What of the representation is shown")
        for words, view in _VIEWS:
            self.view.addItem(words, view)
        self.channel = QSpinBox()
        self.channel.setAccessibleName("Channel of the representation")
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setValue(round(100 * self._settings.default_opacity))
        self.opacity.setAccessibleName("Opacity of the representation")
        self.opacity.setToolTip("Left: the H&E alone. Right: the representation alone.")
        self.status = Label(wrap=True)
        top = QHBoxLayout()
        top.addWidget(self.view, 1)
        top.addWidget(self.channel)
        bottom = QHBoxLayout()
        bottom.addWidget(Label("H&E"))
        bottom.addWidget(self.opacity, 1)
        bottom.addWidget(Label("Representation"))
        self.choices = QWidget()
        choices = QVBoxLayout(self.choices)
        choices.setContentsMargins(0, 0, 0, 0)
        choices.addLayout(top)
        choices.addLayout(bottom)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 4)
        layout.setSpacing(4)
        for widget in (self.box, self.choices, self.status):
            layout.addWidget(widget)
        self.set_colours(Colours())

    def _connect(self) -> None:
        self.box.toggled.connect(self._on_toggled)
        self.view.currentIndexChanged.connect(self._recolour)
        self.channel.valueChanged.connect(self._recolour)
        self.opacity.valueChanged.connect(self._set_opacity)
        # Fields arrive in another thread, and many at a time: the picture is renewed once for all of them.
        queued = Qt.ConnectionType.QueuedConnection
        self._arrived.connect(self._refresh_soon, queued)
        self._wanted.connect(self._compute, queued)
        self._pause.timeout.connect(self._refresh)
        self.prepare_job.progressed.connect(self._on_preparing)
        self.prepare_job.returned.connect(self._on_prepared)
        self.prepare_job.failed.connect(self._on_failed)
        self.compute_job.failed.connect(self._on_compute_failed)
        self.compute_job.running_changed.connect(self._on_running)
        self._subscriptions = Subscriptions(self)
        self._subscriptions.add(self._session.slides_changed, self._check_layers)

    def _show_state(self) -> None:
        shown = self._source is not None
        self.box.setEnabled(bool(self._slide_id))
        self.choices.setVisible(shown)
        self.channel.setVisible(self.view.currentData() == "channel")
        self.status.setVisible(self.box.isChecked())
        if shown:
            self.status.setText(self._words())

    def _words(self) -> str:
        source, prepared, layer = self._source, self._prepared, self._layer
        if source is None or prepared is None or layer is None:
            return ""
        pending = source.pending
        words = [
            f"Computing {counted(pending, 'field')} on {prepared.device}"
            if pending and layer.visible
            else f"Computed on {prepared.device}; {size_in_words(source.nbytes)} kept"
        ]
        pixel_um = prepared.pyramid.pixel_um
        if layer.data_level:
            words.append(
                f"Seen at {pixel_um * 2**layer.data_level:.3g} µm/px, coarser than the {pixel_um:.3g} µm/px "
                "that the network was trained on: zoom in for what the model was given."
            )
        colours = source.colours
        if colours.explained is not None:
            words.append(
                f"The three components hold {100 * colours.explained:.0f} % of the variance; their colours "
                "are those of this slide alone."
            )
        if source.damaged:
            words.append(f"The file is damaged in {len(source.damaged)} fields: what is missing stays clear.")
        return "\n".join((*words, *prepared.warnings))

    # -- on and off

    def _on_toggled(self, wanted: bool) -> None:
        if not wanted:
            self._release()
            return
        slide = self._session.slide_of(self._slide_id)
        if slide is None or not self._model:
            self.box.setChecked(False)
            return
        self.status.setText("Loading the model …")
        self.prepare_job.start(partial(preparing, slide, self._model, self._settings))
        self._show_state()

    def _on_preparing(self, progress: Progress) -> None:
        count = f" {progress.done} of {progress.total}" if progress.total else ""
        self.status.setText(f"{progress.stage}{count} · {progress.note}".removesuffix(" · "))

    def _on_prepared(self, prepared: Prepared) -> None:
        viewer, slide_layer = self._session.viewer, self._session.layer_of(self._slide_id)
        tag = slide_tag(slide_layer) if slide_layer is not None else None
        stale = tag is None or tag.slide is not prepared.pyramid.slide
        if not self.box.isChecked() or viewer is None or slide_layer is None or stale:
            self.box.setChecked(False)
            return
        self.channel.blockSignals(True)
        self.channel.setRange(0, prepared.pyramid.channels - 1)
        self.channel.blockSignals(False)
        self._prepared = prepared
        source = self._source = CorrelatedSource(prepared.pyramid, self._colours(prepared))
        source.arrived.connect(self._notify_arrived)
        source.wanted.connect(self._notify_wanted)
        layer = self._layer = representation_layer(source, prepared, slide_layer)
        layer.opacity = self.opacity.value() / 100
        self._subscriptions.add(layer.events.visible, self._on_visible)
        viewer.layers.insert(viewer.layers.index(slide_layer) + 1, layer)
        self._show_state()
        self._compute()

    def _release(self) -> None:
        """Let go of everything; what a thread still computes is dropped."""
        layer, source = self._layer, self._source
        self._layer = self._source = self._prepared = None
        self._pause.stop()
        if source is not None:
            source.arrived.disconnect(self._notify_arrived, missing_ok=True)
            source.wanted.disconnect(self._notify_wanted, missing_ok=True)
            source.close()
        for job in self.jobs:
            job.cancel()
        viewer = self._session.viewer
        if layer is not None:
            self._subscriptions.end(layer.events.visible)
            if viewer is not None:
                take_out(viewer, layer)
        self._show_state()

    def _check_layers(self) -> None:
        """Notice that the layer, or its slide, was taken away or replaced."""
        viewer, layer, prepared = self._session.viewer, self._layer, self._prepared
        if layer is None or prepared is None:
            return
        slide = self._session.slide_of(self._slide_id)
        if viewer is None or layer not in viewer.layers or slide is not prepared.pyramid.slide:
            self.box.setChecked(False)

    def _on_failed(self, failure: Failure) -> None:
        self.box.setChecked(False)
        self.failed.emit(failure)

    def _on_compute_failed(self, failure: Failure) -> None:
        # Nobody is told of a field that nobody waits for any more.
        if self._source is not None:
            self._on_failed(failure)

    # -- computing and showing

    def _notify_arrived(self) -> None:
        self._arrived.emit()

    def _notify_wanted(self) -> None:
        self._wanted.emit()

    def _compute(self) -> None:
        source = self._source
        if source is not None and source.pending and not self.compute_job.running:
            self.compute_job.start(partial(computing, source))

    def _on_running(self, running: bool) -> None:
        # What was wanted while the last run was ending.
        if not running:
            self._compute()
        self._show_state()

    def _refresh_soon(self) -> None:
        if self._source is not None and not self._pause.isActive():
            self._pause.start()

    def _refresh(self) -> None:
        layer, source = self._layer, self._source
        if layer is None or source is None:
            return
        layer.refresh(extent=False, highlight=False)
        if not layer.visible or layer.data_level == len(source.levels) - 1:
            source.forget_requests()
        self._compute()
        self._show_state()

    def _on_visible(self) -> None:
        self._refresh_soon()

    def _set_opacity(self, percent: int) -> None:
        if self._layer is not None:
            self._layer.opacity = percent / 100

    def _recolour(self) -> None:
        prepared, source = self._prepared, self._source
        if prepared is not None and source is not None:
            source.set_colours(self._colours(prepared))
        self._show_state()

    def _colours(self, prepared: Prepared) -> FieldColours:
        return prepared.colours(self.view.currentData(), self.channel.value())
