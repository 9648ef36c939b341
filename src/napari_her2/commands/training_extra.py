"""The door to the training package, which the plugin never imports: it hands over to it by name."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from types import ModuleType

PACKAGE = "napari_her2_training"
NEEDED = (PACKAGE, "lightning", "sklearn", "torchmetrics", "kornia", "matplotlib", "jinja2")


def training(module: str = "") -> ModuleType | Any:  # noqa: ANN401 - the package that the plugin hands over to
    """Return the training package, or the module of it with that name.

    Raises
    ------
    JobFailed
        If it cannot be used here, with what to install.
    """
    # Looked for before anything is imported: lightning takes seconds, and `train --list` needs none of it.
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise JobFailed(
                f"Training needs the package {name}: install napari-her2 with its training extra "
                f'(pip install "napari-her2[training]").'
            )
    return importlib.import_module(f"{PACKAGE}.{module}" if module else PACKAGE)
