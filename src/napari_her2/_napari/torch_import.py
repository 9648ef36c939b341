"""Loads PyTorch into a process that draws with OpenGL, without the crash that this can bring."""

from __future__ import annotations

import sys
from importlib import import_module
from threading import Lock

_TRITON = "triton"
_lock = Lock()


def load_torch() -> None:
    """Import PyTorch and torchvision with Triton out of sight.

    torchvision makes PyTorch look for Triton, whose library holds an LLVM of its own. Mesa's OpenGL
    (llvmpipe, AMD) holds another one, and when it was loaded first, loading Triton ends the process
    with a segmentation fault. Nothing here needs Triton. It is hidden only while the libraries are
    imported, so that whoever compiles models in the same napari still finds it.
    """
    with _lock:
        if _TRITON in sys.modules:
            import_module("torchvision")
            return
        sys.modules[_TRITON] = None  # type: ignore[assignment]  # Python's own way to say "not there"
        try:
            import_module("torchvision")
        finally:
            del sys.modules[_TRITON]
        _look_again_later()


def _look_again_later() -> None:
    """Make PyTorch forget that it did not find Triton."""
    private = sys.modules.get("torch.utils._triton")
    forget = getattr(getattr(private, "has_triton_package", None), "cache_clear", None)
    if forget is not None:
        forget()
