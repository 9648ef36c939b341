from __future__ import annotations

import gc
import sys
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from driving import with_tissue
from napari.components import ViewerModel
from training_docks import METHODS, SCRIPT, end_all

from napari_her2._napari import work
from napari_her2._napari.layers import slide_layer
from napari_her2._napari.turns import at_once
from napari_her2._napari.work import Equipment
from napari_her2._qt.parts import dock as dock_parts
from napari_her2._qt.scoring import dock as scoring_dock
from napari_her2._qt.scoring import model_shelf
from napari_her2._qt.training import dock as training_dock
from napari_her2.models.card import EncoderSpec, ModelCard
from napari_her2.steps import Progress
from napari_her2.training_runs import processes as training_runs
from scored import CLASSES, HandSlide, make_result

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from napari_her2._qt.training.dock import TrainingDock
    from napari_her2.inference.result import SlideResult
    from napari_her2.training_runs.work import MethodChoice


@pytest.fixture(autouse=True)
def _overlays_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlays are there when a result is; test_turns.py is about those that come one a turn."""
    monkeypatch.setattr(scoring_dock, "one_a_turn", at_once)


@pytest.fixture(autouse=True)
def _nothing_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """No dock loads ahead what its test may not need; test_ahead.py is about that."""
    monkeypatch.setattr(dock_parts, "load_ahead", lambda: None)


@pytest.fixture(scope="session", autouse=True)
def _imported_is_not_searched() -> Iterator[None]:
    """Collections look at what the tests made, not at all of napari and Qt again after each test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def card() -> ModelCard:
    return ModelCard(
        name="hand-model",
        version="1",
        method="attention-mil",
        architecture="AttentionMIL",
        arguments={},
        encoder=EncoderSpec("alexnet", 96, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 1024),
        stain="H&E",
        tile_px=96,
        mpp=0.5,
        classes=CLASSES,
        task="H&E-based prediction of the HER2 IHC score",
        training_data="60 synthetic cases",
        licence="BSD-3-Clause",
        intended_use="Demonstration only",
        guideline="ASCO/CAP 2018",
        metrics={"macro AUC": 0.97},
    )


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def equipment(card: ModelCard) -> Equipment:
    entry = SimpleNamespace(name="hand-model", path=None, card=card, origin="bundled")
    return Equipment((entry,), (), "cpu (no CUDA or MPS device found)")


@pytest.fixture
def make_dock(
    qtbot: object, viewer: ViewerModel, equipment: Equipment, monkeypatch: pytest.MonkeyPatch
) -> Iterator[object]:
    """Docks whose models are made by hand, so that no test here loads PyTorch."""
    made = []

    def finding_equipment(settings: object) -> object:
        yield work.Progress("Looking for models")
        return equipment

    monkeypatch.setattr(model_shelf, "finding_equipment", finding_equipment)

    def make() -> scoring_dock.ScoringDock:
        dock = scoring_dock.ScoringDock(viewer)
        qtbot.addWidget(dock)
        made.append(weakref.ref(dock))
        qtbot.waitUntil(lambda: not dock.look_job.running)
        return dock

    yield make
    for ref in made:
        dock = ref()
        if dock is not None:
            dock.shutdown()
    del dock
    gc.collect()


@pytest.fixture
def add_slide(viewer: ViewerModel) -> object:
    def add(slide: HandSlide) -> object:
        data, options, _ = slide_layer(slide)
        return viewer.add_image(data, **options)

    return add


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Scoring answers at once with a result by hand; what was asked for is kept."""
    asked: list[dict[str, object]] = []

    def scoring(slide: object, model: str, **options: object) -> Generator[Progress, None, SlideResult]:
        asked.append({"slide": slide, "model": model, **options})
        yield Progress("Embedding tiles", 10, 96, "tiles")
        return with_tissue(make_result(slide))

    monkeypatch.setattr(scoring_dock, "scoring", scoring)
    return asked


@pytest.fixture(autouse=True)
def _own_alignments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the alignments of the person who runs it."""
    monkeypatch.setenv("NAPARI_HER2_ALIGNMENTS", str(tmp_path / "alignments"))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.csv"
    path.write_text("case_id,he,ihc,score\nc1,a.svs,,0\n")
    return path


@pytest.fixture
def make_training_dock(
    qtbot: QtBot, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], TrainingDock]]:
    """Docks whose trainings are processes that train nothing; none of them is left behind."""
    made: list[weakref.ref[TrainingDock]] = []

    def train_command(request: object, *more: str) -> list[str]:
        return [sys.executable, str(SCRIPT), request.method, request.out, *more]

    def listing() -> Generator[Progress, None, tuple[MethodChoice, ...]]:
        yield Progress("Looking for the methods")
        return METHODS

    monkeypatch.setattr(training_runs, "train_command", train_command)
    monkeypatch.setattr(training_dock, "listing_methods", listing)

    def make() -> TrainingDock:
        dock = training_dock.TrainingDock(viewer)
        qtbot.addWidget(dock)
        made.append(weakref.ref(dock))
        qtbot.waitUntil(lambda: not dock.list_job.running)
        return dock

    yield make
    for ref in made:
        dock = ref()
        if dock is not None:
            dock.shutdown()
    end_all()
    del dock
    gc.collect()
