"""``python -m napari_her2``."""

from __future__ import annotations

from napari_her2.cli import main

if __name__ == "__main__":
    main()
