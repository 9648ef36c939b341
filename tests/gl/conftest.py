from __future__ import annotations

import gc
import os
import shutil
from functools import cache
from typing import TYPE_CHECKING

import pytest

from napari_her2._napari.sample_data import PhantomCase, ensure_phantom, phantom_folder
from napari_her2._napari.torch_import import load_torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CASE = PhantomCase("small", "3+", seed=5, size_px=1536, mpp=0.5)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/gl" in str(item.path):
            item.add_marker(pytest.mark.gl)
            if not os.environ.get("DISPLAY"):
                item.add_marker(pytest.mark.skip(reason="there is no display: run under xvfb-run"))


@pytest.fixture(autouse=True)
def _what_was_before_is_not_searched() -> None:
    """Collections look at what the test made: napari has one for each layer that goes, and at its end."""
    gc.freeze()


@pytest.fixture(scope="session")
def phantom_of_session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small phantom case, made once."""
    folder = tmp_path_factory.mktemp("phantom")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_HER2_CACHE", str(folder))
        ensure_phantom(CASE)
    return folder / "phantom"


@pytest.fixture
def phantom(phantom_of_session: Path) -> None:
    """The small phantom case lies in the cache of the test."""
    shutil.copytree(phantom_of_session, phantom_folder(), dirs_exist_ok=True)


@pytest.fixture(scope="session")
def random_model_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Gives the file of a model with random weights; PyTorch is loaded when it is first asked for."""
    folder = tmp_path_factory.mktemp("model")

    @cache
    def file() -> Path:
        return _save_random_model(folder)

    return file


@pytest.fixture
def random_model(random_model_file: Callable[[], Path]) -> str:
    """Name of an installed model with random weights."""
    path = random_model_file()
    from napari_her2.models.registry import add_model

    return add_model(path).name


def _save_random_model(folder: Path) -> Path:
    load_torch()
    from dataclasses import replace

    import torch

    from napari_her2.models.attention_mil import AttentionMIL
    from napari_her2.models.bundle import save_bundle
    from napari_her2.models.card import ModelCard
    from napari_her2.models.encoders import build_encoder

    torch.manual_seed(0)
    encoder, head = build_encoder("alexnet"), AttentionMIL()
    card = ModelCard(
        name="random-attention-mil",
        version="0",
        method="attention-mil",
        architecture="AttentionMIL",
        arguments={"features": 1024, "hidden": 256, "classes": 4},
        encoder=replace(encoder.spec, weights="bundled"),
        stain="H&E",
        tile_px=96,
        mpp=0.5,
        classes=("0", "1+", "2+", "3+"),
        task="H&E-based prediction of the HER2 IHC score",
        training_data="none: random weights",
        licence="BSD-3-Clause",
        intended_use="tests",
        guideline="ASCO/CAP 2018",
    )
    path = folder / "random-attention-mil.safetensors"
    save_bundle(path, card, encoder, head)
    return path


@pytest.fixture(autouse=True)
def _own_alignments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the alignments of the person who runs it."""
    monkeypatch.setenv("NAPARI_HER2_ALIGNMENTS", str(tmp_path / "alignments"))


@pytest.fixture
def random_pair_model(tmp_path: Path, random_model: str) -> str:
    """Name of an installed model of both slides, with random weights."""
    from dataclasses import replace

    import torch

    from napari_her2.models.bundle import save_bundle
    from napari_her2.models.registry import add_model, load_model
    from napari_her2.models.wsmcl import WSMCL

    single = load_model(random_model)
    arguments = {"he_features": 1024, "ihc_features": 1024, "width": 16, "heads": 2, "landmarks": 8}
    arguments |= {"classes": 4, "k": 20}
    torch.manual_seed(5)
    card = replace(
        single.card,
        name="random-wsmcl",
        method="wsmcl",
        architecture="WSMCL",
        arguments=arguments,
        stain="H&E+IHC",
        task="HER2 score from the H&E and IHC slides of a case",
    )
    path = tmp_path / "random-wsmcl.safetensors"
    save_bundle(path, card, single.encoder, WSMCL(**arguments))
    return add_model(path).name
