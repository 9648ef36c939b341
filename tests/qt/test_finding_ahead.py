"""Once a slide can be scored, what can be known before is found in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from driving import give_mpp, score

from napari_her2._napari import work
from napari_her2._qt.scoring import finding_ahead as ahead
from napari_her2.steps import Progress
from scored import make_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image
    from pytestqt.qtbot import QtBot

    from scored import HandSlide


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str]]:
    """Names of slides, and preset, of each look."""
    looks: list[tuple[list[str], str]] = []

    def finding(slides: Sequence[HandSlide], preset: str, *_: object) -> Generator[Progress, None, None]:
        looks.append(([slide.name for slide in slides], preset))
        yield Progress("Finding tissue")

    monkeypatch.setattr(ahead, "finding_ahead", finding)
    return looks


def until_done(qtbot: QtBot, dock: object) -> None:
    qtbot.waitUntil(lambda: not dock.ahead.job.running)


def test_a_slide_is_looked_at_once_it_is_chosen_and_again_for_another_kind_of_tissue(
    qtbot: QtBot,
    make_dock: Callable[..., object],
    add_slide: Callable[..., Image],
    viewer: ViewerModel,
    looked_at: list[tuple[list[str], str]],
    asked: list[object],
) -> None:
    dock = make_dock()
    assert not looked_at
    layer = add_slide(make_slide())
    until_done(qtbot, dock)
    score(qtbot, dock)
    dock.case.changed.emit()
    until_done(qtbot, dock)
    assert looked_at == [(["case-1"], "auto")]
    dock.regions.tissue.setCurrentIndex(dock.regions.tissue.findData("biopsy"))
    until_done(qtbot, dock)
    assert looked_at[1:] == [(["case-1"], "biopsy")]
    add_slide(make_slide(name="case-2"))
    until_done(qtbot, dock)
    dock.slides.choose("id of case-2")
    until_done(qtbot, dock)
    assert looked_at[2:] == [(["case-2"], "biopsy")]
    viewer.layers.remove(layer)
    until_done(qtbot, dock)
    assert len(looked_at) == 3


def test_a_slide_that_cannot_be_scored_yet_is_not_looked_at(
    qtbot: QtBot,
    make_dock: Callable[..., object],
    add_slide: Callable[..., Image],
    monkeypatch: pytest.MonkeyPatch,
    looked_at: list[tuple[list[str], str]],
) -> None:
    dock = make_dock()
    add_slide(make_slide(mpp=None))
    assert not dock.ahead.job.running
    assert not looked_at
    monkeypatch.setattr("napari_her2.slide.reader.open_slide", lambda path, mpp, **_: make_slide(mpp=mpp))
    give_mpp(dock, 0.25)
    until_done(qtbot, dock)
    assert looked_at == [(["case-1"], "auto")]


def test_the_work_ends_with_the_slide(
    qtbot: QtBot,
    make_dock: Callable[..., object],
    add_slide: Callable[..., Image],
    viewer: ViewerModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[str] = []

    def finding(slides: Sequence[HandSlide], preset: str, *_: object) -> Generator[Progress, None, None]:
        try:
            while True:
                yield Progress("Finding tissue")
        finally:
            ended.append(preset)

    monkeypatch.setattr(ahead, "finding_ahead", finding)
    dock = make_dock()
    layer = add_slide(make_slide())
    assert dock.ahead.job.running
    viewer.layers.remove(layer)
    until_done(qtbot, dock)
    assert ended == ["auto"]


def test_what_fails_ahead_is_not_said(
    qtbot: QtBot,
    make_dock: Callable[..., object],
    add_slide: Callable[..., Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    class Torn(type(make_slide())):
        def tissue(self, preset: str) -> None:
            tried.append(preset)
            raise RuntimeError("nobody foresaw this")

    dock = make_dock()
    assert ahead.finding_ahead is work.finding_ahead
    failures: list[object] = []
    dock.ahead.job.failed.connect(failures.append)
    add_slide(Torn(make_slide().image))
    until_done(qtbot, dock)
    assert tried == ["auto"]
    assert not failures
    assert not dock.message.isVisibleTo(dock)
