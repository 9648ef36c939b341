"""Loads tiffslide without Zarr, with which it reads pixels and we do not."""

from __future__ import annotations

import builtins
import sys
from functools import partial
from importlib import import_module
from importlib.machinery import PathFinder
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

_PACKAGE = "tiffslide"
_LATER = ("zarr", "tiffslide._zarr")
"""Imported by tiffslide's modules, and only used when they read pixels."""
_lock = RLock()


def load_tiffslide() -> ModuleType:
    """Import tiffslide; Zarr, which takes as long as all else in opening a slide, comes when it is needed.

    What imports Zarr itself, in this thread or another one, gets it as always: what tiffslide's own modules
    ask for at their heads is looked up at its first use instead.
    """
    with _lock:
        if _PACKAGE in sys.modules or _LATER[0] in sys.modules:
            return import_module(_PACKAGE)
        finder = _Finder()
        sys.meta_path.insert(0, finder)
        try:
            return import_module(_PACKAGE)
        finally:
            sys.meta_path.remove(finder)


class _Finder:
    """Finds the modules of tiffslide as Python does, and gives them an import statement of their own."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(f"{_PACKAGE}.") or name in _LATER:
            return None
        spec = PathFinder.find_spec(name, path, target)
        loader = None if spec is None else spec.loader
        if loader is not None:
            run = loader.exec_module

            def patient(module: ModuleType) -> None:
                vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import}
                run(module)

            loader.exec_module = patient  # type: ignore[method-assign]  # of this one loader, for one module
        return spec


def _import(
    name: str,
    globals: dict[str, Any] | None = None,
    locals: dict[str, Any] | None = None,
    fromlist: Sequence[str] = (),
    level: int = 0,
) -> ModuleType:
    """Import as Python does, but for what can wait."""
    if name in _LATER and level == 0:
        return _Later(name)
    return builtins.__import__(name, globals, locals, fromlist, level)


class _Later(ModuleType):
    """Stands for a module: its functions import it when they are called, and what is in it too."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any part of a module
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == _LATER[0]:
            return getattr(import_module(self.__name__), name)
        return partial(_call, self.__name__, name)  # which `from` asks for at once


def _call(module: str, name: str, *values: Any, **named: Any) -> Any:  # noqa: ANN401 - of any function
    return getattr(import_module(module), name)(*values, **named)
