"""The version of this package, for whoever must not import the package's front."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version  # takes longer than the rest of a listing

    try:
        return version("napari-her2")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
