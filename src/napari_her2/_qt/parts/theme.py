"""Colours of napari's theme for the widgets that paint themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.components import ViewerModel


@dataclass(frozen=True, slots=True)
class Colours:
    """Colours as "#rrggbb".

    Parameters
    ----------
    text, muted : str
        For what matters, and for what is beside it.
    ground, track, bar : str
        Behind everything, behind a bar, of a bar.
    top_bar : str
        Of the bar of the most probable class.
    warning, error : str
    """

    text: str = "#f0f1f2"
    muted: str = "#9aa0a8"
    ground: str = "#262930"
    track: str = "#414851"
    bar: str = "#6f7f95"
    top_bar: str = "#3fa7d6"
    warning: str = "#e3b617"
    error: str = "#e06c75"


_LIGHT = Colours(
    text="#3b3a39",
    muted="#6b6a69",
    ground="#efebe9",
    track="#d6d0ce",
    bar="#8d99a8",
    top_bar="#1b6fa8",
    warning="#8a6400",
    error="#b3261e",
)


def colours_of(viewer: ViewerModel | None) -> Colours:
    """Return the colours that fit the viewer's theme."""
    from napari.utils.theme import get_theme

    if viewer is None:
        return Colours()
    theme = get_theme(viewer.theme)
    own = _LIGHT if theme.type == "light" else Colours()
    return Colours(
        text=theme.text.as_hex(format="long"),
        muted=own.muted,
        ground=theme.background.as_hex(format="long"),
        track=theme.foreground.as_hex(format="long"),
        bar=own.bar,
        top_bar=own.top_bar,
        warning=own.warning,
        error=own.error,
    )
