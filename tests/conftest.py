"""Fixtures that every tier of the suite shares."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from patience import PatientBot
from seen_once import once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytestqt.qtbot import QtBot

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def qtbot(qapp: object, request: pytest.FixtureRequest) -> QtBot:
    """The bot of pytest-qt, with patience."""
    return PatientBot(request)


# Read once, when napari is imported: no test reads or writes the Preferences of the person who runs it.
_NAPARI = tempfile.TemporaryDirectory(prefix="napari-her2-tests-")
os.environ["NAPARI_CONFIG"] = str(Path(_NAPARI.name) / "settings.yaml")

if sys.dont_write_bytecode:
    # Else every process of every run compiles napari and PyTorch anew, most of what it costs. Kept with what
    # pytest keeps from one run to the next, so that nothing is left beside the sources.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(ROOT / ".pytest_cache" / "bytecode")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real slides; the test is skipped where it is absent."""
    folder = Path(os.environ.get("NAPARI_HER2_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "slides").is_dir():
        pytest.skip("real slides are absent: set NAPARI_HER2_TEST_DATA to their folder")
    return folder


@pytest.fixture(params=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both precisions of features, one after the other, whatever the processor would take by itself."""
    monkeypatch.setenv("NAPARI_HER2_PRECISION", request.param)
    return request.param


@pytest.fixture(scope="session", autouse=True)
def _tissue_is_found_once() -> Iterator[None]:
    """Tissue and stain of a picture are found once: most of what scoring a small slide costs.

    Tests of how they are found call these functions themselves, by the names that they import.
    """
    from napari_her2.inference import fit
    from napari_her2.slide import tissue

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tissue, "tissue_mask", once(tissue.tissue_mask))
        for name in ("guess_stain", "colourless"):
            patch.setattr(fit, name, once(getattr(fit, name)))
        yield


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the cache, models, trainings, calibrations and desk of whoever runs it."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("NAPARI_HER2_CACHE", str(home / "cache"))
    monkeypatch.setenv("NAPARI_HER2_MODELS", str(home / "models"))
    monkeypatch.setenv("NAPARI_HER2_TRAININGS", str(home / "trainings.json"))
    monkeypatch.setenv("NAPARI_HER2_CALIBRATIONS", str(home / "calibrations"))
    monkeypatch.setenv("NAPARI_HER2_DESK", str(home / "desk"))
