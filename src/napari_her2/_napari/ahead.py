"""Loads ahead, in a thread, what napari's main thread would otherwise load while a person waits.

napari imports at the first picture, the first labels and the first shapes what it needs for them: SciPy,
pandas, scikit-image, Numba's compiler. Each time the window stands still for up to a second. Here all of it
is loaded before, from the moment that this plugin is first used; nothing of it when napari starts.

Nothing here makes a Qt object or knows a viewer: docks are imported and not made, layers are made and thrown
away.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING

from napari_her2._napari.settings import PLUGIN, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pint import UnitRegistry

# In the order in which napari comes to need them: with a picture, and with what lies over it.
_OF_PICTURES = (
    "scipy.ndimage",  # thumbnails
    "napari.components.histogram",
)
_OF_OVERLAYS = (
    "pandas",  # values of labels and shapes
    "skimage.color",  # colours of labels
    "numba.core.registry",  # outlines of shapes
    "napari_her2.methods.catalogue",
    "napari_her2._napari.overlays",
    "napari_her2._napari.regions",
)


@cache
def begin() -> threading.Thread:
    """Import ahead in a thread of its own; whoever asks again gets the same one.

    Returns
    -------
    threading.Thread
        Ends after the module that it is at when the main thread ends.
    """
    # Not a daemon: Python would take the ground from under a library that is being loaded.
    thread = threading.Thread(target=lambda: [None for _ in importing()], name="napari-her2 imports ahead")
    thread.start()
    return thread


def importing() -> Iterator[None]:
    """Import modules, and for docks where there is a window, one a step, until the main thread ends."""
    docks = [partial(_import, module, name) for module, name in _docks()]
    # A dock would wait for its settings: for those of one plugin napari reads the manifests of all anew.
    loads: list[Callable[[], object]] = [read_settings] if docks else []
    loads += [partial(import_module, module) for module in _OF_PICTURES]
    loads += docks  # before what takes seconds: one is often opened just after a slide
    loads += [partial(import_module, module) for module in _OF_OVERLAYS]
    for load in loads:
        if not threading.main_thread().is_alive():
            return
        with suppress(Exception):  # whoever needs it meets the fault again, and says so
            load()
        yield


def _import(module: str, name: str) -> None:
    """Import a module, and what it imports when it is asked for a name."""
    getattr(import_module(module), name)


def _docks() -> list[tuple[str, str]]:
    """Return module and name of each dock, as the manifest has them; none where nothing could show them."""
    if "qtpy.QtWidgets" not in sys.modules:
        return []
    from npe2 import PluginManager

    manager = PluginManager.instance()
    if PLUGIN not in manager:
        return []  # somebody reads slides without napari's plugins
    contributed = manager.get_manifest(PLUGIN).contributions
    docks = {widget.command for widget in contributed.widgets or ()}
    names = [command.python_name for command in contributed.commands or () if command.id in docks]
    return [(module, name) for module, _, name in (str(of).partition(":") for of in names)]


def made_units() -> UnitRegistry | None:
    """Read the definitions of all units, as napari would at the first layer: a third of a second.

    Returns
    -------
    UnitRegistry or None
        For `take_units`; None where they have been read.
    """
    import pint

    return pint.UnitRegistry(on_redefinition="raise") if _unread() else None


def take_units(units: UnitRegistry | None) -> None:
    """Give napari the units that were read, unless it has read them itself meanwhile; on the main thread.

    No other thread may do it: a layer that is being made would get units of two origins, which do not mix.
    """
    if units is not None and _unread():
        import pint

        pint.set_application_registry(units)


def _unread() -> bool:
    """Whether nobody has used a unit: Pint reads their definitions at the first use."""
    import pint
    from pint.registry import LazyRegistry

    return isinstance(pint.get_application_registry().get(), LazyRegistry)


def making_layers() -> Iterator[None]:
    """Make a small layer of each kind that comes over a slide, one a step, and let go of it.

    Only once units have been read (`take_units`): Pint cannot be used by two threads before.
    """
    import numpy as np
    from napari.layers import Image, Labels, Shapes

    if _unread():
        return
    corners = np.array([(0.0, 0.0), (0.0, 4.0), (4.0, 4.0), (4.0, 0.0)])
    made: tuple[Callable[[], object], ...] = (
        lambda: Image(np.zeros((4, 4), np.float32), contrast_limits=(0, 1)),
        lambda: Labels(np.zeros((4, 4), np.uint16)),
        lambda: Shapes(ndim=2),
        lambda: Shapes([corners], shape_type="polygon"),
    )
    for make in made:
        if not threading.main_thread().is_alive():
            return
        make()
        yield
