from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from qtpy.QtGui import QColor

from napari_her2._qt.parts.theme import Colours
from napari_her2._qt.training.curve_plot import CurvePlot, Line, value_range
from napari_her2._qt.training.curves_view import CurvesView, in_words
from napari_her2.training_runs.log import Curve, StageCurves

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot


@pytest.mark.parametrize(
    ("values", "of_one", "expected"),
    [
        ([0.5, 0.9], True, (0, 1)),
        ([-0.3, 0.9], True, (-0.4, 1)),
        ([0.5, 0.9], False, (0.5, 0.9)),
        ([1.31, 1.47], False, (1.3, 1.48)),
        ([0.7, 23], False, (0, 25)),
        ([2.0], False, (1.9, 2.1)),
        ([0.0, 0.0], False, (0, 0.0006)),
        ([], False, (0, 1)),
    ],
)
def test_the_ends_of_the_scale_are_round_and_hold_all(
    values: list[float], of_one: bool, expected: tuple[float, float]
) -> None:
    low, high = value_range(values, of_one=of_one)
    assert (low, high) == pytest.approx(expected)
    assert all(low <= value <= high for value in values)


def test_curves_are_drawn_where_their_values_are(qtbot: QtBot) -> None:
    plot = CurvePlot("Loss", of_one=True)
    qtbot.addWidget(plot)
    plot.resize(400, 150)
    plot.set_lines([Line("validation", ((1, 0.25), (3, 0.75)), 1)])
    place = plot.place()
    assert plot.position(1, 0.0) == place.bottomLeft()
    assert plot.position(3, 1.0) == place.topRight()
    picture = plot.grab().toImage()
    for epoch, value, colour in ((2, 0.5, Colours().top_bar), (2, 0.2, Colours().track)):
        at = plot.position(epoch, value)
        found = picture.pixelColor(round(at.x()), round(at.y()))
        wanted = QColor(colour)
        assert abs(found.red() - wanted.red()) + abs(found.blue() - wanted.blue()) < 60, (epoch, value)


def test_values_of_an_epoch_are_told_under_the_mouse(qtbot: QtBot) -> None:
    plot = CurvePlot("Loss")
    qtbot.addWidget(plot)
    plot.resize(400, 150)
    plot.set_lines(
        [Line("training", ((1, 3.0), (2, 2.0), (3, 1.5)), 0), Line("", ((2, 9.0),), 1, faint=True)]
    )
    assert plot.values_at(plot.position(2, 2.0).x() + 3) == "Epoch 2: training 2"
    assert "training 1.500" in plot.accessibleName()


def stage(title: str, *names: str, of: str = "") -> StageCurves:
    return StageCurves(of or title, title, tuple(Curve(name, ((1, 0.5), (2, 0.25))) for name in names))


def test_the_latest_stage_is_followed_unless_another_was_chosen(qtbot: QtBot) -> None:
    view = CurvesView()
    qtbot.addWidget(view)
    assert view.waiting.isVisibleTo(view)
    folds = [
        stage(f"Training, fold {n} of 3", "train_loss", "validation_f1", of="Training") for n in (1, 2, 3)
    ]
    view.set_stages(folds[:1])
    assert not view.combo.isVisibleTo(view)
    view.set_stages(folds[:2])
    assert view.combo.currentIndex() == 1
    assert [line.faint for line in view.loss._lines] == [True, False]  # fold 1 behind fold 2
    view.combo.setCurrentIndex(0)
    view.set_stages(folds)
    assert view.combo.currentIndex() == 0
    view.set_stages([stage("Learning patches", "patch_loss"), *folds[:1]])
    view.combo.setCurrentIndex(0)
    assert [line.label for line in view.loss._lines] == ["patch loss"]
    assert not view.measures.isVisibleTo(view)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train_loss", "training"),
        ("validation_loss", "validation"),
        ("validation_macro_auc", "macro AUC"),
        ("patch_accuracy", "patch accuracy"),
    ],
)
def test_measures_are_named_in_words(name: str, words: str) -> None:
    assert in_words(name) == words
