"""Models in use, loaded once for each device: scoring and explaining share what one of them has loaded."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from napari_her2.models.registry import load_model, model_file

if TYPE_CHECKING:
    from napari_her2.inference.device import Device
    from napari_her2.models.bundle import ModelBundle

_Key = tuple[Path, int, int, int, str]
_loading = threading.Lock()
_in_use: WeakValueDictionary[_Key, ModelBundle] = WeakValueDictionary()
# The last one outlives its use: who scored a slide asks next for what explains it.
_last: deque[ModelBundle] = deque(maxlen=1)


def loaded_bundle(model: Path | str, device: Device) -> ModelBundle:
    """Load a model for a device, or return it where it is loaded for that device already.

    Its modules belong to all who use it: they stay on the device that they were first put on, in evaluation
    mode.

    Parameters
    ----------
    model : Path or str
        Name or file.
    device : Device

    Returns
    -------
    ModelBundle

    Raises
    ------
    ModelError
        If it cannot be loaded.
    """
    with _loading:
        key = _key(model_file(model), device)
        bundle = None if key is None else _in_use.get(key)
        if bundle is None:
            bundle = load_model(model)
            if key is not None:
                _in_use[key] = bundle
        if bundle not in _last:
            _last.append(bundle)
        return bundle


def _key(path: Path, device: Device) -> _Key | None:
    """Tell a file from one written over it; None where there is none, which loading reports."""
    try:
        found = path.stat()
    except OSError:
        return None
    return path.absolute(), found.st_size, found.st_mtime_ns, found.st_ino, str(device.torch_device)
