"""The version of this package, for whoever must not import the package's front."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("napari-her2")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
