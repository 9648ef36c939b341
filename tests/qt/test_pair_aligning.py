"""One slide of a case laid over the other: by hand, by points, and by what is found automatically."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pairs import models_of_pairs, open_case

from napari_her2._napari.session import session_of
from napari_her2._qt.pair import automatic
from napari_her2.registration.affine import Alignment
from napari_her2.registration.automatic import ErrorMap, Registration
from napari_her2.registration.kept import kept_alignment
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2._napari.work import Equipment
    from napari_her2._qt.pair.automatic import AutomaticAlignment
    from napari_her2.models.card import ModelCard


@pytest.fixture
def equipment(card: ModelCard) -> Equipment:
    return models_of_pairs(card)


def drag(viewer: ViewerModel, places: list[tuple[float, float]], modifiers: tuple[str, ...] = ()) -> None:
    """What napari's canvas does with the callbacks of a drag."""
    event = SimpleNamespace(type="mouse_press", position=places[0], modifiers=modifiers, button=1)
    running = [gen for call in list(viewer.mouse_drag_callbacks) if (gen := call(viewer, event)) is not None]
    for generator in running:
        next(generator, None)
    steps = [("mouse_move", place) for place in places[1:]] + [("mouse_release", places[-1])]
    for event.type, event.position in steps:
        for generator in running:
            next(generator, None)


def test_the_mouse_moves_and_turns_the_ihc_slide_and_the_case_remembers(
    make_dock: object, viewer: ViewerModel, add_slide: object
) -> None:
    dock = make_dock()
    _he, _ihc = open_case(add_slide)
    view, pairing = dock.case.view, session_of(viewer).pairing
    view.move.click()
    assert pairing.arrangement == "stacked"
    assert not viewer.scene.camera.mouse_pan
    drag(viewer, [(10.0, 10.0), (15.0, 10.0), (40.0, -20.0)])
    np.testing.assert_allclose(pairing.alignment.matrix[:2, 2], (30, -30))
    viewer.scene.camera.center = (0.0, 0.0, 0.0)
    drag(viewer, [(10.0, 0.0), (7.0, 7.0), (0.0, 10.0)], ("Shift",))
    np.testing.assert_allclose(pairing.alignment.apply([(0, 0)]), [(30, 30)], atol=1e-9)
    assert "Drag moves the IHC slide" in view.state.text()
    view.move.click()
    assert viewer.scene.camera.mouse_pan
    assert "turned by 90.0°, size × 1.000" in view.state.text()
    fingerprints = [slide.fingerprint for slide in pairing.slides]
    np.testing.assert_allclose(kept_alignment(*fingerprints).matrix, pairing.alignment.matrix)
    view.reset.click()
    assert pairing.alignment.is_identity
    assert kept_alignment(*fingerprints) is None


def test_three_clicks_on_each_slide_align_them(
    make_dock: object, viewer: ViewerModel, add_slide: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    dock = make_dock()
    he, ihc = open_case(add_slide)
    view, pairing = dock.case.view, session_of(viewer).pairing
    wanted = Alignment.identity().turned(10, (80, 80)).shifted((12, 5))
    on_ihc = np.array([(20.0, 40.0), (30.0, 120.0), (130.0, 60.0)])
    view.points.click()
    assert "H&E: 0 of 3, IHC: 0 of 3" in view.state.text()
    for point in on_ihc:
        drag(viewer, [tuple(he.data_to_world(wanted.apply([point])[0] / 0.5))])
        drag(viewer, [tuple(ihc.data_to_world(point / 0.5))])
    assert not view.points.isChecked()
    assert view.stacked.isChecked()
    np.testing.assert_allclose(pairing.alignment.matrix, wanted.matrix, atol=1e-9)
    assert [layer.name for layer in viewer.layers] == ["case_1_HE", "case_1_HER2"]
    view.points.click()
    for at in (20, 60, 100):  # on a line
        drag(viewer, [tuple(he.data_to_world((at, at)))])
        drag(viewer, [tuple(ihc.data_to_world((at, at)))])
    assert "almost on one line" in dock.message.text.text()
    assert "H&E: 0 of 3" in view.state.text()
    np.testing.assert_allclose(pairing.alignment.matrix, wanted.matrix, atol=1e-9)


def stated(alignment: Alignment, reason: str = "") -> Registration:
    error = ErrorMap(np.array([[3.0, np.nan], [5.0, 7.0]], np.float32), (10.0, 20.0), (30.0, 30.0), 50.0)
    return Registration(alignment, 0.8, None if reason else error, reason)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[Registration]:
    """What the next automatic alignment finds; the last one is found again."""
    found: list[Registration] = []

    def aligning(slides: object) -> Generator[Progress, None, Registration]:
        assert [slide.name for slide in slides] == ["case_1_HE", "case_1_HER2"]
        yield Progress("Aligning", 1, 2)
        return found[-1]

    monkeypatch.setattr(automatic, "aligning", aligning)
    return found


MOVED = Alignment.identity().turned(20, (50, 60)).shifted((30, -12))


def align(qtbot: QtBot, dock: object) -> AutomaticAlignment:
    widget = dock.case.view.automatic
    with qtbot.waitSignal(widget.job.running_changed, check_params_cb=lambda running: not running):
        widget.start.click()
    return widget


def error_maps(viewer: ViewerModel) -> list[object]:
    return [layer for layer in viewer.layers if "error of the alignment" in layer.name]


def test_an_automatic_alignment_is_proposed_with_its_error_and_kept_only_if_accepted(
    qtbot: QtBot, make_dock: object, add_slide: object, registered: list[Registration], viewer: ViewerModel
) -> None:
    dock = make_dock()
    he, _ = open_case(add_slide)
    pairing = dock.session.pairing
    registered.append(stated(MOVED))
    viewer.scene.camera.center = (0, 5e4, 5e4)
    widget = align(qtbot, dock)
    assert max(viewer.scene.camera.center) < 1e4  # laid otherwise, the slides are shown whole
    assert pairing.proposed
    np.testing.assert_allclose(pairing.alignment.matrix, MOVED.matrix)
    assert pairing.arrangement == "stacked"
    assert "5.0 µm" in widget.words.text()  # the median of what is known
    assert widget.accept.isVisibleTo(dock)
    (layer,) = error_maps(viewer)
    np.testing.assert_allclose(layer.data_to_world((1, 0)), np.add(he.data_to_world((0, 0)), (40, 20)))
    dock.case.view._on_keep()
    ids = [slide.fingerprint for slide in pairing.slides]
    assert kept_alignment(*ids) is None
    widget.accept.click()
    assert error_maps(viewer) == []
    assert not widget.accept.isVisibleTo(dock)
    np.testing.assert_allclose(kept_alignment(*ids).matrix, MOVED.matrix)


def test_a_rejected_alignment_brings_back_what_was_before(
    qtbot: QtBot, make_dock: object, add_slide: object, registered: list[Registration], viewer: ViewerModel
) -> None:
    dock = make_dock()
    open_case(add_slide)
    before = Alignment.identity().shifted((5, 6))
    dock.session.pairing.set_alignment(before)
    registered.append(stated(MOVED))
    widget = align(qtbot, dock)
    align(qtbot, dock)  # once more, before the first is answered
    widget.reject.click()
    np.testing.assert_allclose(dock.session.pairing.alignment.matrix, before.matrix)
    assert error_maps(viewer) == []
    align(qtbot, dock)
    dock.session.pairing.set_alignment(before)  # moved by hand instead
    assert not widget.accept.isVisibleTo(dock)
    assert error_maps(viewer) == []


def test_slides_that_cannot_be_aligned_are_said_and_not_shown(
    qtbot: QtBot, make_dock: object, add_slide: object, registered: list[Registration], viewer: ViewerModel
) -> None:
    dock = make_dock()
    open_case(add_slide)
    registered.append(stated(Alignment.identity(), "The slides are of different cases: look at them."))
    widget = align(qtbot, dock)
    assert dock.message.text.text() == "The slides are of different cases: look at them."
    assert not dock.session.pairing.proposed
    assert dock.session.pairing.alignment.is_identity
    assert error_maps(viewer) == []
    assert not widget.accept.isVisibleTo(dock)
    assert widget.start.isVisibleTo(dock)


def test_closing_a_slide_drops_a_proposal(
    qtbot: QtBot, make_dock: object, add_slide: object, registered: list[Registration], viewer: ViewerModel
) -> None:
    dock = make_dock()
    _, ihc = open_case(add_slide)
    registered.append(stated(MOVED))
    align(qtbot, dock)
    viewer.layers.remove(ihc)
    assert error_maps(viewer) == []
    assert not dock.case.view.automatic.accept.isVisibleTo(dock)
