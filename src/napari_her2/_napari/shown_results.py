"""Results of the models on the screen: what is kept of every slide, and the overlays of what is shown."""

from __future__ import annotations

import weakref
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from napari_her2._napari.cell_hover import cell_words
from napari_her2._napari.hover import show_values
from napari_her2._napari.layers import OverlayLook
from napari_her2._napari.overlay_layers import active_kept, overlaid_slides, remove_overlays
from napari_her2._napari.overlays import OverlaySet
from napari_her2._napari.placement import layer_of
from napari_her2._napari.quality import quality_words
from napari_her2._napari.results import Results
from napari_her2._napari.smooth_hover import smooth_words
from napari_her2._napari.turns import at_once
from napari_her2.explain.geometries import TILES
from napari_her2.inference.withheld import without_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_her2._napari.turns import Turns
    from napari_her2.inference.result import SlideResult


class Changed(NamedTuple):
    """Ids of slides of which another result is shown now, and of all those whose results changed."""

    shown: tuple[str, ...]
    kept: tuple[str, ...]


class ShownResults:
    """Results of the slides of a viewer, and one set of overlays a slide.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.

    Attributes
    ----------
    kept : Results
        To be read; the methods here change it.
    turns : callable
        Puts layers in: all at once, or one a turn of an event loop.
    whole : callable
        Told the id of a slide whose overlays are all there, where that took several turns.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self.kept = Results()
        self.turns: Turns = at_once
        self.whole: Callable[[str], None] = lambda slide_id: None
        self._sets: dict[str, OverlaySet] = {}

    def overlays(self, slide_id: str) -> OverlaySet | None:
        """Return the overlays of a slide; None where nothing of it is shown."""
        return self._sets.get(slide_id)

    def result(self, slide_id: str) -> SlideResult | None:
        """Return what is seen of a slide; see `without_answer`."""
        shown = self._sets.get(slide_id)
        return None if shown is None else shown.result

    def add(
        self, result: SlideResult, look: OverlayLook | None = None, *, when: datetime | None = None
    ) -> Changed:
        """Keep a result for each of its slides that is open.

        It is shown if a look is given, and where it takes the place of one that is shown.
        """
        layers = self._layers_of(result)
        lost = self.kept.add(result, layers, when=when, chosen=look is not None)
        changed = tuple(dict.fromkeys((*layers, *lost)))
        if look is not None:
            self._show(result, layers, look)
            return Changed(tuple(layers), changed)
        replaced = [slide_id for slide_id in layers if self.kept.is_chosen(slide_id, result.model)]
        return Changed(self._show_chosen(replaced).shown, changed)

    def choose(self, slide_id: str, model: str) -> Changed:
        """Show the result of another model over a slide, and over the other slide that it was made of."""
        if self.kept.is_chosen(slide_id, model) and slide_id in self._sets:
            return Changed((), ())
        return self._show_chosen(self.kept.choose(slide_id, model))

    def drop(self, slide_id: str, model: str) -> Changed:
        """Forget a result, for all slides that it was made of; where it was shown another one is."""
        shown = self.kept.is_chosen(slide_id, model)
        dropped = self.kept.drop(slide_id, model)
        return self._show_chosen(dropped) if shown else Changed((), tuple(dropped))

    def refresh(self, result: SlideResult) -> Changed:
        """Keep a result that was judged anew, and change its overlays in place where it is shown.

        Where an answer is withheld now, or shown anyway, there are fewer or more overlays than before: then
        they are made anew, and what was visible of them stays so.
        """
        refreshed, seen, viewer = self.kept.refresh(result), without_answer(result), self._viewer()
        changed = []
        for slide_id, layer in self._layers_of(result).items():
            shown, own = self._sets.get(slide_id), seen.seen_from(slide_id)
            if viewer is None or shown is None or slide_id not in refreshed:
                continue
            if not self.kept.is_chosen(slide_id, result.model):
                continue
            changed.append(slide_id)
            if shown.overlays.keys() == {overlay.kind for overlay in own.overlays}:
                shown.refresh(own)
                continue
            with active_kept(viewer, layer):
                self._sets[slide_id] = shown.made_anew(viewer, layer, own)
        return Changed(tuple(changed), tuple(refreshed))

    def follow(self, result: SlideResult, *, drawing: bool) -> Changed:
        """Keep a result that follows regions, and change its overlays one a turn.

        While they are being drawn visible maps are changed alone, where it has the same overlays as before;
        all is shown once drawing rests.
        """
        refreshed, seen = self.kept.refresh(result), without_answer(result)
        changed = []
        for slide_id in self._layers_of(result):
            shown, own = self._sets.get(slide_id), seen.seen_from(slide_id)
            if shown is None or slide_id not in refreshed or not self.kept.is_chosen(slide_id, result.model):
                continue
            if shown.overlays.keys() == {overlay.kind for overlay in own.overlays}:
                shown.refresh(own, self.turns, drawing=drawing)
            elif drawing:
                continue
            else:
                return self.refresh(result)
            changed.append(slide_id)
        return Changed(tuple(changed), tuple(refreshed))

    def close_all_but(self, open_ids: set[str]) -> None:
        """Forget all of slides that are open no more."""
        for slide_id in [known for known in self.kept.slide_ids if known not in open_ids]:
            # Before its layers go: whoever hears of that finds nothing left to do.
            self.kept.close(slide_id)
            self._remove(slide_id)
        viewer = self._viewer()
        # Grad-CAM may lie over a slide that was never scored.
        for slide_id in () if viewer is None else overlaid_slides(viewer) - open_ids:
            self._remove(slide_id)

    def sets_of(self, result: SlideResult) -> list[OverlaySet]:
        """Overlays of all slides of a result, as it is shown, over which no other result lies."""
        sets = [self._sets.get(slide.slide_id) for slide in result.slides]
        return [shown for shown in sets if shown is not None and shown.result.slides[0] in result.slides]

    def set_fade(self, slide_id: str, fade: float) -> None:
        """Show this much of the overlays of a slide, in [0, 1]."""
        shown = self._sets.get(slide_id)
        if shown is not None:
            shown.set_fade(fade)

    def follow_zoom(self) -> None:
        """Let what is for the view from afar step back when the camera comes near, and come again."""
        for shown in self._sets.values():
            shown.follow_zoom()

    def show_status(self) -> None:
        """Add what is under the cursor to the status bar: the tile or the cell of a scored slide."""
        viewer = self._viewer()
        if viewer is None or not self._sets:
            return

        def words(slide_id: str) -> str:
            return cell_words(viewer, self._sets[slide_id], layer_of(viewer, slide_id))

        tiles = {slide_id: shown.layer(TILES.kind) for slide_id, shown in self._sets.items()}

        def further(slide_id: str) -> list[str]:
            shown = self._sets[slide_id]
            poor = quality_words(viewer, slide_id, shown.result.slides[0].quality)
            smooth = smooth_words(shown, viewer.cursor.position)
            return [found for found in (smooth, poor) if found]

        show_values(viewer, tiles, words, further)

    def _layers_of(self, result: SlideResult) -> dict[str, Image]:
        """Layers of the slides of a result that are open."""
        layers = {slide.slide_id: layer_of(self._viewer(), slide.slide_id) for slide in result.slides}
        return {slide_id: layer for slide_id, layer in layers.items() if layer is not None}

    def _show(self, result: SlideResult, layers: Mapping[str, Image], look: OverlayLook) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        seen, first = without_answer(result), result.slides[0].slide_id
        with active_kept(viewer, next(iter(layers.values()), None)):
            for slide_id, layer in layers.items():
                own, leading = seen.seen_from(slide_id), slide_id == first
                if (before := self._sets.get(slide_id)) is not None:
                    before.replaced()
                self._sets[slide_id] = OverlaySet(
                    viewer,
                    layer,
                    own,
                    look,
                    leading=leading,
                    turns=self.turns,
                    whole=partial(self.whole, slide_id),
                )

    def _show_chosen(self, slide_ids: Iterable[str]) -> Changed:
        """Show what is chosen of some slides now, a result of two slides over both at once."""
        slide_ids = tuple(slide_ids)
        left = dict.fromkeys(slide_ids)
        while left:
            slide_id = next(iter(left))
            result = self.kept.chosen(slide_id)
            layers = {} if result is None else self._layers_of(result)
            if result is None:
                self._remove(slide_id)
            else:
                layers = {known: layers[known] for known in layers if self.kept.shows(known, result)}
                before = self._sets.get(slide_id)
                look = OverlayLook() if before is None else replace(before.look, class_names={})
                self._show(result, {known: layers[known] for known in layers if known in left}, look)
            for known in (slide_id, *layers):
                left.pop(known, None)
        return Changed(slide_ids, slide_ids)

    def _remove(self, slide_id: str) -> None:
        if (before := self._sets.pop(slide_id, None)) is not None:
            before.replaced()
        viewer = self._viewer()
        if viewer is not None:
            remove_overlays(viewer, slide_id)
