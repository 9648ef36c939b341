from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_her2._napari import reader, sample_data
from napari_her2._napari.layers import slide_layer
from napari_her2._napari.session import session_of
from napari_her2.desk.kept_slide import GivenScale, now
from scored import make_slide

if TYPE_CHECKING:
    from scored import HandSlide


def add(viewer: ViewerModel, slide: HandSlide) -> None:
    data, options, _ = slide_layer(slide)
    viewer.add_image(data, **options)


def is_shown(viewer: ViewerModel) -> bool:
    return bool(viewer.canvas.overlays.scale_bar.visible)


def test_the_scale_bar_comes_with_the_first_slide_that_states_its_size() -> None:
    viewer = ViewerModel()
    session_of(viewer)
    viewer.add_image(np.zeros((9, 9)))
    add(viewer, make_slide(mpp=None))
    assert not is_shown(viewer)
    add(viewer, make_slide(name="measured"))
    assert is_shown(viewer)
    assert [str(unit) for unit in viewer.layers[-1].units] == ["micrometer", "micrometer"]


def test_a_scale_bar_that_was_switched_off_stays_off() -> None:
    viewer = ViewerModel()
    add(viewer, make_slide())
    session_of(viewer)  # a dock that is opened later
    viewer.add_image(np.zeros((9, 9)))
    assert not is_shown(viewer)
    add(viewer, make_slide(name="second"))
    assert not is_shown(viewer)


def test_the_scale_bar_comes_with_a_size_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = ViewerModel()
    session = session_of(viewer)
    slide = make_slide(mpp=None)
    add(viewer, slide)
    monkeypatch.setattr(
        "napari_her2.slide.reader.open_slide", lambda path, mpp, mpp_source: make_slide(mpp=mpp)
    )
    session.give_scale(slide.slide_id, GivenScale((0.25, 0.25), "measured", now()))
    assert is_shown(viewer)


@pytest.mark.parametrize(("mpp", "shown"), [((0.5, 0.5), True), (None, False)])
def test_a_slide_that_napari_opens_without_a_dock_has_its_scale_bar(
    monkeypatch: pytest.MonkeyPatch, mpp: tuple[float, float] | None, shown: bool
) -> None:
    viewer = ViewerModel()
    monkeypatch.setattr("napari.current_viewer", lambda: viewer)
    monkeypatch.setattr("napari_her2.slide.reader.open_slide", lambda path: make_slide(mpp=mpp))
    reader.read_slide("case.svs")
    assert is_shown(viewer) is shown


def test_the_sample_has_its_scale_bar_and_none_is_forced_beside_other_slides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    viewer = ViewerModel()
    monkeypatch.setattr("napari.current_viewer", lambda: viewer)
    monkeypatch.setattr(sample_data, "phantom_layers", lambda case: [])
    add(viewer, make_slide())
    sample_data.phantom_pair()
    assert not is_shown(viewer)
    viewer.layers.clear()
    sample_data.phantom_pair()
    assert is_shown(viewer)


def test_reading_needs_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_her2.slide.reader.open_slide", lambda path: make_slide())
    monkeypatch.setattr("napari.current_viewer", lambda: None)
    assert len(reader.read_slide("case.svs")) == 1
    monkeypatch.setitem(sys.modules, "napari", SimpleNamespace())  # without a window system
    assert len(reader.read_slide("case.svs")) == 1
