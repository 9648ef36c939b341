"""Loads what napari keeps the numbers of layers in, before the main thread would have to wait for it."""

from __future__ import annotations

from importlib import import_module


def load_tables() -> None:
    """Import pandas, in the thread of whoever is about to add layers with features.

    napari imports it at the first layer with numbers: for a second the window would stand still.
    """
    import_module("pandas")
