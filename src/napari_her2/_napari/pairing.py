"""The two slides of a case on the screen: side by side or stacked, aligned, faded into one another."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from psygnal import Signal

from napari_her2._napari.placement import bounds, companions, place_of
from napari_her2._napari.tags import slide_tag
from napari_her2.errors import Her2Error, JobFailed
from napari_her2.registration.affine import Alignment
from napari_her2.registration.kept import keep_alignment, kept_alignment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.components import ViewerModel
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from napari_her2.slide.reader import Slide

Arrangement = Literal["side by side", "stacked"]

GAP = 0.05  # of the width of the fixed slide


class Pairing:
    """Arrangement of two open slides.

    The H&E slide stays where it is; the IHC slide moves. Its alignment is the affine of its layer, its
    place beside the H&E slide the translate: napari applies the affine last, so that an aligned slide
    keeps its alignment when it is put aside.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.
    he, ihc : Image
        Layers of the slides, held weakly.
    ids : tuple of 2 str
        `Slide.slide_id` of the slides, in that order.

    Attributes
    ----------
    changed : Signal()
        Arrangement, alignment or fade changed.
    marking : bool
        Whether clicks in the window mark points to align by, and nothing else.
    curtained : bool
        Whether a curtain shows the IHC slide.
    recalled : bool
        Whether the alignment of the last time was looked for. It is kept by the fingerprints of the slides,
        which take time to find where the files are large: find them in a thread, then call `recall`.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel, he: Image, ihc: Image, ids: tuple[str, str]) -> None:
        self._viewer = weakref.ref(viewer)
        self._he, self._ihc = weakref.ref(he), weakref.ref(ihc)
        self.ids = ids
        self.arrangement: Arrangement = "side by side"
        self.fade = 0.5
        self.curtained = False
        self.marking = False
        self._own_move = False
        self.alignment = self._saved = Alignment.identity()
        self._before: Alignment | None = None
        self.recalled = False
        self._recall()
        ihc.events.affine.connect(self._on_affine)
        self._arrange()

    @property
    def layers(self) -> tuple[Image, Image] | None:
        """Layers of the H&E and of the IHC slide; None once one was closed."""
        viewer, he, ihc = self._viewer(), self._he(), self._ihc()
        if viewer is None or he is None or ihc is None or he not in viewer.layers or ihc not in viewer.layers:
            return None
        return he, ihc

    @property
    def shown(self) -> float:
        """How much of the IHC slide is seen, in [0, 1]; all of it side by side."""
        return self.fade if self.arrangement == "stacked" else 1.0

    @property
    def maps_shown(self) -> float:
        """How much of the overlays of the IHC slide is seen: behind a curtain they are cut, and not faded."""
        return 1.0 if self.curtained else self.shown

    @property
    def front(self) -> tuple[str, str]:
        """Ids of the slides, the one that is seen better first: a click is meant for it."""
        he, ihc = self.ids
        return (he, ihc) if self.shown < 0.5 else (ihc, he)

    def set_arrangement(self, arrangement: Arrangement) -> None:
        """Put the slides side by side, or the IHC slide on the H&E slide."""
        self.arrangement = arrangement
        self._arrange()
        self.changed.emit()

    def set_fade(self, fade: float) -> None:
        """Show this much of the IHC slide where it lies on the H&E slide, in [0, 1]."""
        self.fade = min(max(float(fade), 0.0), 1.0)
        self.changed.emit()

    def set_curtain(self, drawn: bool) -> None:
        """Say whether a curtain shows the IHC slide, which is faded out meanwhile."""
        self.curtained = drawn
        self.changed.emit()

    def set_alignment(self, alignment: Alignment) -> None:
        """Move the IHC slide, and all that lies over it, to where it belongs; a proposal is settled by it."""
        self._before = None
        self.alignment = alignment
        self._arrange()
        self.changed.emit()

    @property
    def proposed(self) -> bool:
        """Whether the alignment is a proposal: shown, and kept only once it is accepted."""
        return self._before is not None

    def propose(self, alignment: Alignment) -> None:
        """Show an alignment that the user may accept or reject."""
        before = self.alignment if self._before is None else self._before
        self.alignment, self._before = alignment, before
        self._arrange()
        self.changed.emit()

    def accept(self) -> None:
        """Take the proposal."""
        self.set_alignment(self.alignment)

    def reject(self) -> None:
        """Lay the slides as they were before the proposal."""
        if self._before is not None:
            self.set_alignment(self._before)

    @property
    def slides(self) -> tuple[Slide, ...]:
        """Both slides; none once one was closed."""
        layers = self.layers or ()
        return tuple(tag.slide for layer in layers if (tag := slide_tag(layer)) is not None)

    def recall(self) -> None:
        """Align the slides as the last time, now that their fingerprints are known.

        What the user aligned meanwhile goes before, and is kept.

        Raises
        ------
        JobFailed
            If it cannot be written.
        """
        if self.alignment is not self._saved:
            self.keep()
        elif self._recall():
            self._arrange()
            self.changed.emit()

    def keep(self) -> None:
        """Keep the alignment for the case, where it changed and the fingerprints of the slides are known.

        Raises
        ------
        JobFailed
            If it cannot be written.
        """
        changed = self.alignment is not self._saved and not self.proposed
        known = self._fingerprints() if changed else None
        if known is not None:
            keep_alignment(*known, self.alignment)
            self._saved = self.alignment
            self.recalled = True

    def release(self) -> None:
        """Leave the slides where they are, and fully seen."""
        ihc = self._ihc()
        if ihc is not None:
            ihc.events.affine.disconnect(self._on_affine)
            ihc.opacity = 1.0

    def _fingerprints(self) -> tuple[str, str] | None:
        """Fingerprints of the slides, None where finding them would hold the window up."""
        try:
            known = [slide.identity.known for slide in self.slides]
        except Her2Error:  # a file was changed or is gone: nothing is known of it
            return None
        if len(known) != 2 or known[0] is None or known[1] is None:
            return None
        return known[0], known[1]

    def _recall(self) -> bool:
        """Take the alignment that was kept; tell whether there was one."""
        known = self._fingerprints()
        self.recalled = known is not None
        kept = None if known is None else kept_alignment(*known)
        if kept is not None:
            self.alignment = self._saved = kept
        return kept is not None

    def _arrange(self) -> None:
        layers, viewer = self.layers, self._viewer()
        if layers is None or viewer is None:
            return
        he, ihc = layers
        fixed = place_of(he)
        place = fixed @ self.alignment.matrix
        shift = np.zeros(2)
        if self.arrangement == "side by side":
            left, right = bounds(he, fixed), bounds(ihc, place)
            gap = GAP * (left[1, 1] - left[0, 1])
            wanted = np.array([left[0, 0], left[1, 1] + gap])
            # The affine comes after the translate, and would turn it.
            shift = np.linalg.solve(place[:2, :2], wanted - right[0])
        with self._moving():
            # napari takes a layer anew for each of the two, even where it stays where it is.
            if not np.array_equal(_matrix(ihc), place):
                ihc.affine = place
            if not np.array_equal(ihc.translate[-2:], shift):
                ihc.translate = shift
        if self.arrangement == "stacked":
            _raise(viewer, ihc, self.ids[1], above=he, above_id=self.ids[0])

    @contextmanager
    def _moving(self) -> Iterator[None]:
        self._own_move = True
        try:
            yield
        finally:
            self._own_move = False

    def _on_affine(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        """Take an alignment that napari's own transform tool made."""
        layers = self.layers
        if self._own_move or layers is None:
            return
        he, ihc = layers
        matrix: NDArray[np.float64] = np.linalg.solve(place_of(he), _matrix(ihc)).astype(np.float64)
        matrix[2] = (0.0, 0.0, 1.0)
        try:
            self.alignment, self._before = Alignment(matrix), None
        except JobFailed:
            self._arrange()  # stretched out of all proportion: back to where it was
            return
        self.changed.emit()


def _matrix(layer: Image) -> NDArray[np.float64]:
    affine = np.asarray(layer.affine.affine_matrix)
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = affine[-3:-1, -3:-1], affine[-3:-1, -1]
    return matrix


def _raise(viewer: ViewerModel, layer: Layer, layer_id: str, *, above: Layer, above_id: str) -> None:
    """Bring a slide and what lies over it above another and what lies over that."""
    group = [layer, *companions(viewer, layer_id)]
    lower = [above, *companions(viewer, above_id)]
    places = [viewer.layers.index(item) for item in group]
    top = max(viewer.layers.index(item) for item in lower)
    if min(places) < top:
        viewer.layers.move_multiple(sorted(places), top + 1)
