from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_alignments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the alignments of the person who runs it."""
    monkeypatch.setenv("NAPARI_HER2_ALIGNMENTS", str(tmp_path / "alignments"))
