"""Keys of the viewer that are ours for as long as they are of use, where nobody else has them."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari.components import ViewerModel


class ViewerKeys:
    """Binds keys to methods of a widget, and gives them back.

    A key that napari, its user or another plugin has bound stays as it is.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.
    wanted : mapping of str to bound method
        As napari writes keys: {"Shift-N": widget.previous}. The methods are held weakly.
    """

    def __init__(self, viewer: ViewerModel, wanted: Mapping[str, Callable[[], object]]) -> None:
        self._viewer = weakref.ref(viewer)
        self._wanted = {key: weakref.WeakMethod(method) for key, method in wanted.items()}
        self._held: dict[str, Callable[[ViewerModel], None]] = {}

    @property
    def held(self) -> tuple[str, ...]:
        """Keys that are bound, in the order in which they were wanted."""
        return tuple(self._held)

    def bind(self) -> None:
        """Bind those keys that are free."""
        from napari.utils.key_bindings import coerce_keybinding

        viewer = self._viewer()
        if viewer is None:
            return
        taken = _taken(viewer)
        for key, method in self._wanted.items():
            if key not in self._held and str(coerce_keybinding(key)) not in taken:
                self._held[key] = _calling(method)
                viewer.bind_key(key, self._held[key])

    def release(self) -> None:
        """Bind them no longer."""
        from napari.utils.key_bindings import coerce_keybinding

        viewer = self._viewer()
        for key, bound in self._held.items():
            if viewer is not None and viewer.keymap.get(coerce_keybinding(key)) is bound:
                viewer.bind_key(key, None)
        self._held = {}


def _calling(method: weakref.WeakMethod[Callable[[], object]]) -> Callable[[ViewerModel], None]:
    def on_key(_viewer: ViewerModel) -> None:
        called = method()
        if called is not None:
            called()

    return on_key


def _taken(viewer: ViewerModel) -> set[str]:
    """Keys that something is bound to: in napari's settings, on the viewer, and on its layers."""
    from napari.settings import get_settings

    found = {str(key) for keys in get_settings().shortcuts.shortcuts.values() for key in keys}
    for of in (viewer, *viewer.layers):
        found |= {str(key) for key in of.keymap}
        for kind in type(of).__mro__:
            found |= {str(key) for key in getattr(kind, "class_keymap", {})}
    return found
