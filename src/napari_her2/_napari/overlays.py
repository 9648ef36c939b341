"""The overlays of one scored slide as a set: shown, changed and removed together."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2._napari.collecting import take_out
from napari_her2._napari.layers import Over, OverlayLook, chosen_drawing, draw, drawn_from_below
from napari_her2._napari.overlay_layers import (
    active_kept,
    info_of,
    make_layer,
    overlays_of,
    redraw,
    remove_overlays,
)
from napari_her2._napari.tags import shows
from napari_her2._napari.turns import at_once
from napari_her2.explain.geometries import TILES, TOP_TILES
from napari_her2.explain.unfamiliar import UNFAMILIAR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_her2._napari.turns import Turns
    from napari_her2.explain.overlays import Drawing, OverlayInfo
    from napari_her2.inference.result import SlideResult


class OverlaySet:
    """Layers that show one result over its slide.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.
    slide_layer : Image
        The slide; the overlays take over its place, so that a slide moved aside keeps its maps.
    result : SlideResult
    look : OverlayLook
    leading : bool
        Whether it is the first slide of a case: what has the same limits on both needs one bar of colours.
    keep_requested : bool
        Whether what the user had computed over the slide before stays.
    turns : callable
        Puts the layers in, one a step.
    whole : callable, optional
        Told once all layers are there, if that is after the set was made.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        slide_layer: Image,
        result: SlideResult,
        look: OverlayLook,
        *,
        leading: bool = True,
        keep_requested: bool = False,
        turns: Turns = at_once,
        whole: Callable[[], None] | None = None,
    ) -> None:
        self._viewer = weakref.ref(viewer)
        self.slide_id = result.slide_id
        self.result = result
        self.overlays = {overlay.kind: overlay for overlay in result.overlays}
        self.look = look
        self._leading = leading
        self._fade = 1.0
        self._um_per_pixel = _um_per_pixel(viewer)
        self._asked_for: set[str] = set()
        self._hidden: list[Layer] = []
        before = overlays_of(viewer, self.slide_id)
        if keep_requested:
            before = [layer for layer in before if not ((info := info_of(layer)) and info.on_request)]
        self._replaced = self._whole = False
        self._tell_whole: Callable[[], None] | None = None
        turns(self._appear(slide_layer, before))
        if not self._whole:
            self._tell_whole = whole

    @property
    def whole(self) -> bool:
        """Whether no more layers are to be put in: all are there, or another set takes its place."""
        return self._whole or self._replaced

    def replaced(self) -> None:
        """Put no more layers in: another set takes the place of this one."""
        self._replaced = True

    def _appear(self, slide_layer: Image, before: list[Layer]) -> Iterator[None]:
        """Put the overlays over the slide, one a step, and only then take away those before.

        What is visible comes first. Those before are hidden meanwhile.

        Mesa's software OpenGL (22.3.6, under vispy 0.17) crashes in a drawing after the program of a Shapes
        layer was deleted, if the picture of the slide is then all that the canvas draws. It does so in napari
        alone: an image, a Shapes layer added and removed. Whatever else is drawn keeps it from that: a second
        slide, or the scale bar, which comes with a slide. A user who deletes all overlays of a slide that
        states no µm/px, or has switched the scale bar off, may still meet it.
        """
        for layer in before:
            if layer.visible:
                layer.visible = False
                yield
        from_below = [overlay.info for overlay in drawn_from_below(self.result)]
        made: dict[int, tuple[Layer, str]] = {}
        for number in sorted(range(len(from_below)), key=lambda at: not from_below[at].visible):
            overlay = self.overlays.get(from_below[number].kind)
            if not self._goes_on(slide_layer):
                return
            if overlay is None:
                continue  # the slide was judged anew in between, and has it no more
            data = draw(
                chosen_drawing(overlay, self.result, self.look), Over.slide_of(self.result), self.look
            )
            layer = make_layer(data, slide_layer, with_bar=False)
            yield
            below = sum(known < number for known in made)
            made[number] = (layer, data[1]["name"])
            yield from self._put_in(layer, slide_layer, below)
        yield from self._take_out_one_by_one(slide_layer, before)
        if not self._goes_on(slide_layer):
            return
        for layer, name in made.values():
            if layer.name != name:
                layer.name = name  # napari numbers a second layer of one name
        self._show_doubt_first()
        for layer in self.layers():
            self._show_colorbar(layer)
        self._follow_distance()
        self._whole = True
        if self._tell_whole is not None:
            self._tell_whole()

    def _goes_on(self, slide_layer: Image) -> bool:
        """Whether more is to be put over the slide."""
        viewer = self._viewer()
        return viewer is not None and not self._replaced and slide_layer in viewer.layers

    def _put_in(self, layer: Layer, slide_layer: Image, below: int) -> Iterator[None]:
        """Put a layer in hidden, then show it, then its bar of colours: each costs napari a turn of its own.

        Parameters
        ----------
        layer : Layer
        slide_layer : Image
        below : int
            How many layers of the set, above the slide, lie below it.
        """
        viewer = self._viewer()
        if viewer is None or not self._goes_on(slide_layer):
            return
        visible, layer.visible = layer.visible, False
        with active_kept(viewer, slide_layer):
            viewer.layers.insert(viewer.layers.index(slide_layer) + 1 + below, layer)
        info = info_of(layer)
        if info is not None and info.kind != TILES.kind:
            layer.opacity = self._opacity(info)  # its slide may have been faded since
        if visible:
            yield
            if layer in viewer.layers:
                layer.visible = True
        if info is not None and info.colour_bar:
            yield
            if layer in viewer.layers:
                self._show_colorbar(layer)
        yield

    def _take_out_one_by_one(self, slide_layer: Image, before: list[Layer]) -> Iterator[None]:
        """Take away the layers that were replaced."""
        for layer in before:
            viewer = self._viewer()
            if viewer is None or not self._goes_on(slide_layer):
                return
            with active_kept(viewer, slide_layer):
                take_out(viewer, layer)
            yield

    def _show_doubt_first(self) -> None:
        """Where tiles are strange, show that alone: what the model used of them comes after it."""
        unfamiliar = self.overlays.get(UNFAMILIAR.kind)
        if unfamiliar is None or not unfamiliar.info.visible:
            return
        self.show_only(UNFAMILIAR.kind)
        frames = self.layer(TOP_TILES.kind)
        if frames is not None and self.result.doubt.withheld:
            frames.visible = False

    def layers(self) -> list[Layer]:
        """Return the layers of the set that are still in the viewer, lowest first."""
        viewer = self._viewer()
        return [] if viewer is None else overlays_of(viewer, self.slide_id)

    def layer(self, kind: str) -> Layer | None:
        """Return the layer of an overlay, None where the user removed it or there was nothing to show."""
        return next((layer for layer in self.layers() if shows(layer, kind, self.slide_id)), None)

    def set_visible(self, kind: str, visible: bool) -> None:
        """Show or hide one overlay, as the user asks for it: then it is shown at every zoom."""
        layer = self.layer(kind)
        if layer is not None:
            if visible:
                self._asked_for.add(kind)
            layer.visible = visible
            self._follow_distance()

    def show_only(self, kind: str) -> None:
        """Hide all maps but one: two over each other cannot be read."""
        for layer in self.layers():
            info = info_of(layer)
            if info is not None and info.is_map:
                layer.visible = info.kind == kind

    def set_opacity(self, opacity: float) -> None:
        """Set the opacity of the maps, in [0, 1]."""
        self.look = replace(self.look, opacity=opacity)
        self._set_opacities()

    def set_fade(self, fade: float) -> None:
        """Show this much of all overlays, in [0, 1]: they fade with their slide."""
        self._fade = fade
        self._set_opacities()

    def follow_zoom(self) -> None:
        """Let what is for the view from afar step back when the camera comes near, and come again."""
        viewer = self._viewer()
        if viewer is None:
            return
        before, self._um_per_pixel = self._um_per_pixel, _um_per_pixel(viewer)
        low, high = sorted((before, self._um_per_pixel))
        if any(low < overlay.info.from_um <= high for overlay in self.overlays.values()):
            self._follow_distance()

    def _follow_distance(self) -> None:
        for layer in self.layers():
            info = info_of(layer)
            if info is not None and info.from_um:
                layer.opacity = self._opacity(info)
                self._show_colorbar(layer)

    def _steps_back(self, info: OverlayInfo) -> bool:
        return self._um_per_pixel < info.from_um and info.kind not in self._asked_for

    def _show_colorbar(self, layer: Layer) -> None:
        info = info_of(layer)
        if info is not None and info.colour_bar and hasattr(layer, "colorbar"):
            own = self._leading or isinstance(info.limits, str)
            layer.colorbar.visible = own and not self._steps_back(info)

    def _opacity(self, info: OverlayInfo) -> float:
        if self._steps_back(info):
            return 0.0
        return self._fade * (self.look.opacity if info.is_map else 1.0)

    def _set_opacities(self) -> None:
        for layer in self.layers():
            info = info_of(layer)
            if info is not None and info.kind != TILES.kind:  # which are clear always
                layer.opacity = self._opacity(info)

    def set_scale(self, kind: str, scale: str) -> None:
        """Show an overlay on another scale: attention as percentile ranks, or as raw weights."""
        self.look = replace(self.look, scales={**self.look.scales, kind: scale})
        self._update(kind)

    def set_class(self, kind: str, class_name: str) -> None:
        """Show an overlay for another score."""
        self.look = replace(self.look, class_names={**self.look.class_names, kind: class_name})
        self._asked_for.add(kind)  # whoever chooses wants to see it
        self._update(kind)
        self._follow_distance()

    def hide(self) -> None:
        """Hide all overlays for a moment, for a look at the bare tissue."""
        if not self._hidden:
            self._hidden = [layer for layer in self.layers() if layer.visible]
            for layer in self._hidden:
                layer.visible = False

    def show(self) -> None:
        """Show again what `hide` took away."""
        for layer in self._hidden:
            layer.visible = True
        self._hidden = []

    def remove(self) -> None:
        """Take all overlays of the slide out of the viewer."""
        viewer = self._viewer()
        if viewer is not None:
            remove_overlays(viewer, self.slide_id)

    def refresh(self, result: SlideResult, turns: Turns = at_once, *, drawing: bool = False) -> None:
        """Show the same slide judged anew: layers are changed in place, and none is made or removed.

        What the user chose stays: which layers are visible, how opaque, in which order.

        Parameters
        ----------
        result : SlideResult
            Of the same slide, with overlays of the same kinds.
        turns : callable
            Changes the layers, one a step, those that are visible first; a newer result ends it.
        drawing : bool
            Whether a newer result is about to come: then visible maps are changed alone, since frames and
            tables take napari a tenth of a second each.
        """
        self.result = result
        self.overlays = {overlay.kind: overlay for overlay in result.overlays}
        turns(self._refreshing(result, drawing=drawing))

    def _refreshing(self, result: SlideResult, *, drawing: bool) -> Iterator[None]:
        for layer in sorted(self.layers(), key=lambda of: not of.visible):
            if self.result is not result or self._replaced:
                return
            info = info_of(layer)
            overlay = None if info is None else self.overlays.get(info.kind)
            if overlay is None or overlay.info.on_request:
                continue
            if not drawing or (overlay.info.is_map and layer.visible):
                self._redraw(layer, chosen_drawing(overlay, result, self.look))
                yield

    def made_anew(self, viewer: ViewerModel, slide_layer: Image, result: SlideResult) -> OverlaySet:
        """Replace the set by one with other overlays; what stays, stays as visible as it is.

        Parameters
        ----------
        viewer : ViewerModel
        slide_layer : Image
        result : SlideResult
            Of the same slide.

        Returns
        -------
        OverlaySet
        """
        visible = {info.kind: layer.visible for layer in self.layers() if (info := info_of(layer))}
        # What was computed for a class goes with an answer that is withheld: it may be of that class.
        keep = not result.doubt.hidden
        anew = OverlaySet(viewer, slide_layer, result, self.look, leading=self._leading, keep_requested=keep)
        anew._asked_for, anew._fade = self._asked_for, self._fade
        for layer in anew.layers():
            info = info_of(layer)
            if info is not None and info.kind in visible:
                layer.visible = visible[info.kind]
        anew._set_opacities()
        return anew

    def _update(self, kind: str) -> None:
        layer = self.layer(kind)
        if layer is not None:
            self._redraw(layer, chosen_drawing(self.overlays[kind], self.result, self.look))

    def _redraw(self, layer: Layer, drawing: Drawing) -> None:
        redraw(layer, drawing, Over.slide_of(self.result), self.look)
        self._show_colorbar(layer)


def _um_per_pixel(viewer: ViewerModel) -> float:
    """Size of a screen pixel in the window, whose unit is µm."""
    return 1 / max(float(viewer.scene.camera.zoom), 1e-9)
