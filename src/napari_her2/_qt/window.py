"""A window of napari with slides and the dock that scores them; this module loads Qt only to open it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2.slide.reader import Slide


def need_display(command: str) -> None:
    """Refuse before Qt aborts the whole process.

    Parameters
    ----------
    command : str
        What the user could run under a virtual display instead.

    Raises
    ------
    JobFailed
        If there is no display.
    """
    if not sys.platform.startswith("linux") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return
    raise JobFailed(
        "There is no display to open napari on. Run this where there is one, or under Xvfb: "
        f'xvfb-run -a -s "-screen 0 1920x1080x24 +extension GLX" napari-her2 {command}'
    )


def open_window(slides: Sequence[Slide]) -> None:
    """Open napari with slides side by side and the scoring dock, until the user closes it.

    Parameters
    ----------
    slides : sequence of Slide
        Closed with their layers.
    """
    import napari
    from napari_her2._napari.opening import add_slides

    viewer = napari.Viewer(title="napari-her2", show=True)
    # The dock is there first: it takes its share of the window, and shows the slides as they come.
    viewer.window.add_plugin_dock_widget("napari-her2", "HER2 Scoring")
    add_slides(viewer, slides)
    del slides  # the layers own them
    napari.run()
