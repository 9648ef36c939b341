"""A small phantom case and a small model with random weights, made once."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from every_method import NAMES, asked_of
from napari_her2 import score_slide
from napari_her2.cells import quality
from napari_her2.models.bundle import load_bundle
from napari_her2.phantom import make_pair
from small_files import make_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from every_method import Asked
    from napari_her2.inference.result import SlideResult


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, then trainings: no process is left alone with them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, item.path.parent.name != "training"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def tiny_bundle(tiny_model):
    return load_bundle(tiny_model)


@pytest.fixture(scope="session")
def small_pair(tmp_path_factory):
    """H&E and IHC slide of 1,536 px at 0.5 µm/px: 256 tiles of 96 px."""
    return make_pair(tmp_path_factory.mktemp("case"), "case", score="3+", seed=5, size_px=1536, mpp=0.5)


@pytest.fixture(scope="session")
def he_slide(small_pair) -> Path:
    return small_pair.he


@pytest.fixture(scope="session")
def scored(he_slide, tiny_model):
    """The H&E slide scored on the CPU."""
    return score_slide(he_slide, tiny_model, device="cpu", cache=False)


@pytest.fixture(scope="session")
def asked(small_pair, tiny_model, tmp_path_factory) -> dict[str, Asked]:
    """What is asked of a model of every method, by the names of `every_method.NAMES`."""
    folder = tmp_path_factory.mktemp("models")
    return {name: asked_of(name, small_pair, tiny_model, folder) for name in NAMES}


@pytest.fixture(scope="session")
def results(asked, kept) -> dict[str, SlideResult]:
    """What comes of it; features are embedded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_HER2_CACHE", str(kept))
        patch.setattr(quality, "MOST_BLUR_UM", 1.0)  # a phantom at 0.5 µm/px is softer than a scan
        return {name: score_slide(**of.arguments(), device="cpu") for name, of in asked.items()}


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache of all tests that ask for `features_are_kept`."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def features_are_kept(_own_folders: None, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep features from test to test, for tests that do not ask where they come from."""
    monkeypatch.setenv("NAPARI_HER2_CACHE", str(kept))


@pytest.fixture
def damaged_slide(he_slide, tmp_path) -> Path:
    """The H&E slide with one compressed tile in the middle of level 0 overwritten."""
    path = tmp_path / "damaged.svs"
    shutil.copy(he_slide, path)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        across = -(-page.imagewidth // page.tilewidth)
        at = page.dataoffsets[len(page.dataoffsets) // 2 + across // 2]
        length = page.databytecounts[len(page.dataoffsets) // 2 + across // 2]
    with path.open("r+b") as file:
        file.seek(at)
        file.write(np.random.default_rng(1).bytes(length))
    return path
