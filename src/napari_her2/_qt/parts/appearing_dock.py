"""A dock whose parts come one a turn: all of them at once would keep a window waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from napari_her2._qt.parts.dock import Dock
from napari_her2._qt.parts.turns import Stepwise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.components import ViewerModel

    from napari_her2._napari.turns import Turns

    class _Closes(Protocol):
        def shutdown(self) -> None: ...


class AppearingDock(Dock):
    """A dock whose parts come one a turn, in a moment; who asks for one of them before has them all.

    Parameters
    ----------
    napari_viewer : ViewerModel
        Or the proxy that napari hands to plugins.
    turns : callable
        Carries the steps out.

    Attributes
    ----------
    whole : bool
        Whether all parts are there; the last step says so.
    holding : list
        What has to let go with the dock, the last one first.
    """

    PARTS: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes that come so."""

    def __init__(self, napari_viewer: ViewerModel, turns: Turns) -> None:
        super().__init__(napari_viewer)
        self.whole = False
        self.holding: list[_Closes] = []
        self._appearing = Stepwise(self, turns)

    def begin(self, steps: Iterator[None]) -> None:
        """Make the parts."""
        self._appearing.begin(steps)

    def shutdown(self) -> None:
        """Stop all work, and make no more parts."""
        super().shutdown()
        self._appearing.end()

    def let_go(self) -> None:
        """Let the parts that there are let go of the viewer and its slides."""
        for part in reversed(self.holding):
            part.shutdown()

    if not TYPE_CHECKING:  # which would take any name for a part

        def __getattr__(self, name: str) -> object:
            """Give a part that is not there yet: a script need not wait for the event loop."""
            if name not in self.PARTS or not self._appearing.running:
                raise AttributeError(f"The dock has no {name}.")
            self._appearing.finish()
            return getattr(self, name)
