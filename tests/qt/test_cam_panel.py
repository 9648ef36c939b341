"""Grad-CAM in the dock: computed for what is in view, cancelled, shown, and checked."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from field_bundles import make_field_bundle
from napari_her2 import open_slide
from napari_her2._napari.cam_layers import cam_of, viewed_px0
from napari_her2._napari.gradcam import CamModel, Checked, Explained
from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.work import Equipment
from napari_her2._qt.parts.theme import Colours
from napari_her2._qt.scoring import cam_panel
from napari_her2._qt.scoring.faithfulness_plot import FaithfulnessPlot, FaithfulnessView
from napari_her2.explain.faithfulness import Faithfulness, FaithfulnessCurve, MaskedProbability
from napari_her2.explain.region_cam import CamMap, region_cam_steps
from napari_her2.models.bundle import load_bundle
from napari_her2.phantom import make_pair
from napari_her2.steps import Progress
from scored import make_field_result, make_slide

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2._qt.scoring.dock import ScoringDock

SLOW_MS = 600_000


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_field_bundle(tmp_path_factory.mktemp("cam") / "fields.safetensors")


@pytest.fixture(scope="module")
def he_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("case")
    return make_pair(folder, "case", score="3+", seed=5, size_px=1024, mpp=0.5).he


@pytest.fixture
def equipment(bundle_path: Path) -> Equipment:
    card = load_bundle(bundle_path).card
    entry = SimpleNamespace(name=str(bundle_path), path=bundle_path, card=card, origin="bundled")
    return Equipment((entry,), (), "cpu (no CUDA or MPS device found)")


@pytest.fixture
def faithfulness() -> Faithfulness:
    shares = np.linspace(0, 1, 5)
    control = np.stack([np.linspace(0.8, 0.2, 5), np.linspace(0.8, 0.2, 5) ** 1.2])
    masked = MaskedProbability(0.8, 0.7, np.array([0.4, 0.2]), kept=True, control_kept=0.5)
    return Faithfulness(
        class_index=3,
        baseline="blurred",
        deletion=FaithfulnessCurve(shares, np.array([0.8, 0.3, 0.2, 0.2, 0.2]), control),
        insertion=FaithfulnessCurve(shares, np.array([0.2, 0.7, 0.8, 0.8, 0.8]), control[:, ::-1]),
        soft=masked,
        half=replace(masked, kept=False),
    )


def hand_map(class_name: str = "3+", damaged: int = 0) -> CamMap:
    values = np.full((4, 6), 0.5, np.float32)
    lost = np.zeros((damaged, 2), np.int64)
    return CamMap(values, (0.0, 0.0), (100.0, 100.0), class_name, "backbone.bn2", lost)


def ready_by_hand(slide: object, dock: ScoringDock) -> CamModel:
    return CamModel(slide, dock.models.name, None, None, None, dock.models.entry.card, "cpu", 1, ("Odd.",))


def test_the_viewed_field_is_explained_through_the_dock(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, he_path: Path, bundle_path: Path
) -> None:
    data, options, _ = slide_layer(open_slide(he_path))
    layer = viewer.add_image(data, **options)
    slide = layer.metadata["napari_her2"].slide
    del data, options
    dock = make_dock()
    assert dock.cam.isVisibleTo(dock)
    assert [dock.cam.class_name.itemText(at) for at in range(4)] == ["0", "1+", "2+", "3+"]
    dock.cam.class_name.setCurrentText("2+")
    # In view: 300 px to each side of the middle of the tissue.
    mask = slide.tissue()
    middle = np.argwhere(mask.mask).mean(axis=0) * mask.downsample
    viewer.canvas.size = (600, 600)
    viewer.scene.camera.zoom = 1 / slide.mpp[0]
    viewer.scene.camera.center = (0, *layer.data_to_world(middle - 0.5))
    region = viewed_px0(viewer, layer)
    with qtbot.waitSignal(dock.cam.cam_job.returned, timeout=SLOW_MS) as told:
        dock.cam.progress.start.click()
        assert dock.cam.progress.cancel.isVisibleTo(dock)
    shown = cam_of(viewer, slide.slide_id)
    assert shown is not None
    assert "Grad-CAM 2+ (" in shown.name
    # The same, straight from the core.
    ready = told.args[0].ready
    steps = region_cam_steps(
        slide,
        load_bundle(bundle_path).head,
        ready.preparation,
        region,
        0.5,
        2,
        classes=ready.card.classes,
        tissue=mask,
        threads=1,
    )
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            cam = stop.value
            break
    np.testing.assert_allclose(shown.data, cam.values, atol=1e-5)
    top_left = np.array(layer.world_to_data(shown.data_to_world((-0.5, -0.5)))) + 0.5
    np.testing.assert_allclose(top_left, cam.origin_px0, atol=1e-6)
    assert (top_left <= np.array(region[:2]) + 1e-6).all()
    viewer.layers.remove(layer)
    assert not viewer.layers
    assert dock.cam._ready is None  # or the closed slide would stay open


def test_cancel_closes_the_work_and_shows_nothing(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, add_slide: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    def explaining(*asked: object, **options: object) -> Generator[Progress, None, Explained]:
        try:
            while True:
                yield Progress("Grad-CAM", 1, 100_000, "fields")
        finally:
            closed.append(True)

    monkeypatch.setattr(cam_panel, "explaining", explaining)
    slide = make_slide()
    add_slide(slide)
    dock = make_dock()
    dock.cam.part.setCurrentIndex(dock.cam.part.findData("slide"))
    with qtbot.waitSignal(dock.cam.cam_job.progressed, timeout=SLOW_MS):
        dock.cam.compute()
    with qtbot.waitSignal(dock.cam.cam_job.cancelled, timeout=SLOW_MS):
        dock.cam.progress.cancel.click()
    assert closed == [True]
    assert cam_of(viewer, slide.slide_id) is None
    assert dock.cam.progress.start.isVisibleTo(dock)


def test_a_map_is_shown_in_place_of_the_others_and_damage_is_told(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, add_slide: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = make_slide()
    add_slide(slide)
    dock = make_dock()
    asked = []

    def explaining(
        slide: object, model: str, settings: object, class_name: str, region: object, **options: object
    ) -> Generator[Progress, None, Explained]:
        asked.append((class_name, region, options["ready"]))
        yield Progress("Grad-CAM", 1, 2, "fields")
        return Explained(ready_by_hand(slide, dock), hand_map(class_name, damaged=2))

    monkeypatch.setattr(cam_panel, "explaining", explaining)
    dock.session.set_result(replace(make_field_result(slide), model=dock.models.name), OverlayLook())
    assert dock.cam.class_name.currentText() == "2+"  # the predicted one
    dock.cam.part.setCurrentIndex(dock.cam.part.findData("slide"))
    for class_name in ("3+", "0"):
        dock.cam.class_name.setCurrentText(class_name)
        with qtbot.waitSignal(dock.cam.cam_job.returned):
            dock.cam.compute()
    assert [(name, region) for name, region, _ in asked] == [("3+", None), ("0", None)]
    assert asked[0][2] is None
    assert asked[1][2] is not None  # the model is not loaded again
    maps = [layer for layer in viewer.layers if "Grad-CAM" in layer.name]
    assert [layer.name.split(" · ")[0] for layer in maps] == [
        "Grad-CAM 0 (backbone.bn2): regions the model used"
    ]
    controls = dock.result.overlays
    assert not controls.boxes["score"].isChecked()
    assert controls.boxes["region Grad-CAM"].isChecked()
    controls.boxes["region Grad-CAM"].setChecked(False)
    assert not maps[0].visible
    assert "damaged in 2 fields" in dock.cam.cautions.text()
    assert "Odd." in dock.cam.cautions.text()


def test_a_region_has_to_be_there(qtbot: QtBot, make_dock: object, add_slide: object) -> None:
    add_slide(make_slide())
    dock = make_dock()
    dock.cam.part.setCurrentIndex(dock.cam.part.findData("region"))
    with qtbot.waitSignal(dock.cam.failed) as told:
        dock.cam.compute()
    assert "under Region" in told.args[0].message
    assert not dock.cam.cam_job.running


def test_models_without_fields_offer_no_gradcam(make_dock: object, add_slide: object, card: object) -> None:
    add_slide(make_slide())
    dock = make_dock()
    dock.cam.set_model(SimpleNamespace(name="hand-model", card=card))
    assert not dock.cam.isVisibleTo(dock)


def test_the_enlarged_tile_is_checked(
    qtbot: QtBot,
    make_dock: object,
    add_slide: object,
    monkeypatch: pytest.MonkeyPatch,
    faithfulness: Faithfulness,
) -> None:
    slide = make_slide()
    add_slide(slide)
    dock = make_dock()
    with qtbot.waitSignal(dock.cam.failed) as told:
        dock.cam.check()
    assert "Click a scored tile" in told.args[0].message

    def checking(
        slide: object, model: str, settings: object, class_name: str, result: object, tile: int, **_: object
    ) -> Generator[Progress, None, Checked]:
        yield Progress("Deleting and inserting", 1, 2, "images")
        return Checked(ready_by_hand(slide, dock), class_name, tile, faithfulness)

    monkeypatch.setattr(cam_panel, "checking", checking)
    assert not dock.cam.check_progress.isVisibleTo(dock)
    dock.session.set_result(replace(make_field_result(slide), model=dock.models.name), OverlayLook())
    assert dock.cam.check_progress.isVisibleTo(dock)
    dock.result.tiles.inspect(5)
    with qtbot.waitSignal(dock.cam.check_job.returned):
        dock.cam.check()
    assert dock.cam.faithfulness.isVisibleTo(dock)
    dock.cam.set_slide("another")
    assert not dock.cam.faithfulness.isVisibleTo(dock)


def test_each_figure_stands_beside_its_control(qtbot: QtBot, faithfulness: Faithfulness) -> None:
    view = FaithfulnessView()
    qtbot.addWidget(view)
    view.show_found(faithfulness, "3+")
    words = view.words.text()
    area = faithfulness.deletion.area
    assert f"Area under deletion {area:.2f}, control {faithfulness.deletion.control_mean:.2f} ±" in words
    assert "Multiplied by the map: probability -10 points, its class stays; control -50 ± 14 points" in words
    assert "its class changes" in words


def test_the_curve_is_painted_where_its_values_are(qtbot: QtBot, faithfulness: Faithfulness) -> None:
    plot = FaithfulnessPlot()
    qtbot.addWidget(plot)
    plot.set_colours(Colours(track="#000000", bar="#0000ff", top_bar="#ff0000", text="#ffffff"))
    plot.set_curves(faithfulness.deletion, faithfulness.insertion)
    plot.resize(400, plot.sizeHint().height())
    image = plot.grab().toImage()
    scale = image.width() / 400
    for place, curve in zip(plot.plots(), (faithfulness.deletion, faithfulness.insertion), strict=True):
        for at in (1, 2, 3):
            x = place.left() + curve.shares[at] * place.width()
            y = place.bottom() - curve.probabilities[at] * place.height()
            near = [image.pixelColor(round(x * scale), round((y + dy) * scale)) for dy in (-1, 0, 1)]
            assert max(colour.red() for colour in near) > 200
        inside_band = place.bottom() - curve.control[:, 2].mean() * place.height()
        colour = image.pixelColor(
            round((place.left() + 0.5 * place.width()) * scale), round(inside_band * scale)
        )
        assert colour.blue() > 100
