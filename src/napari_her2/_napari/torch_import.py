"""Loads PyTorch into a process that draws with OpenGL, without the crash that this can bring."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import PathFinder
from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_TRITON, _COMPILER = "triton", "torch._dynamo"
_lock = RLock()


def load_torch() -> None:
    """Import PyTorch, so that Triton stays out of sight while its compiler is imported, now or later.

    The compiler, which comes with torchvision, timm and optimisers, looks for Triton, whose library holds
    an LLVM of its own. Mesa's OpenGL (llvmpipe, AMD) holds another one, and when it was loaded first,
    loading Triton ends the process with a segmentation fault. Nothing here needs Triton, and scoring needs
    no compiler, which takes as long to import as all the rest of PyTorch: it is imported by whoever wants
    it. Triton is hidden only meanwhile, so that whoever compiles models in the same napari still finds it.
    """
    with _lock, _without_triton():
        import_module("torch")
    if _COMPILER not in sys.modules and not any(isinstance(one, _CompilerFinder) for one in sys.meta_path):
        sys.meta_path.insert(0, _CompilerFinder())


class _CompilerFinder:
    """Finds PyTorch's compiler as Python does, and hides Triton while it is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _COMPILER:
            return None
        spec = PathFinder.find_spec(name, path, target)
        loader = None if spec is None else spec.loader
        if loader is not None:
            run = loader.exec_module

            def hidden(module: ModuleType) -> None:
                with _lock, _without_triton():
                    run(module)

            loader.exec_module = hidden  # type: ignore[method-assign]  # of this one loader, for one module
        return spec


@contextmanager
def _without_triton() -> Iterator[None]:
    """Hide Triton, unless it is loaded already; afterwards PyTorch looks for it again."""
    if _TRITON in sys.modules:
        yield
        return
    sys.modules[_TRITON] = None  # type: ignore[assignment]  # Python's own way to say "not there"
    try:
        yield
    finally:
        del sys.modules[_TRITON]
        _look_again_later()


def _look_again_later() -> None:
    """Make PyTorch forget that it did not find Triton."""
    private = sys.modules.get("torch.utils._triton")
    forget = getattr(getattr(private, "has_triton_package", None), "cache_clear", None)
    if forget is not None:
        forget()
