"""Smooth panning: napari's own setting, where it can be found."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox

_WHAT = (
    "napari's experimental setting 'Render layers asynchronously': panning never waits for the file, and "
    "tiles appear as they are read. It is a setting of napari and stays on until it is taken off here or in "
    "Preferences."
)


class SmoothPanning(QCheckBox):
    """Takes napari's setting on and off."""

    def __init__(self) -> None:
        super().__init__("Smooth panning")
        self.setToolTip(_WHAT)
        self.setChecked(_is_on())
        self.toggled.connect(_set)


def _is_on() -> bool:
    from napari.settings import get_settings

    return bool(get_settings().experimental.async_)


def _set(wanted: bool) -> None:
    from napari.settings import get_settings

    get_settings().experimental.async_ = wanted
