"""The door to the training package, which the plugin never imports: it hands over to it by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed
from napari_her2.training_runs.processes import PACKAGE, missing_extra

if TYPE_CHECKING:
    from types import ModuleType


def training(module: str = "") -> ModuleType | Any:  # noqa: ANN401 - the package that the plugin hands over to
    """Return the training package, or the module of it with that name.

    Raises
    ------
    JobFailed
        If it cannot be used here, with what to install.
    """
    # Looked for before anything is imported: lightning takes seconds, and `train --list` needs none of it.
    missing = missing_extra()
    if missing:
        raise JobFailed(missing)
    return importlib.import_module(f"{PACKAGE}.{module}" if module else PACKAGE)
