from __future__ import annotations

import gc
import inspect
import json
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils._proxies import PublicOnlyProxy

from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.overlay_layers import overlays_of
from napari_her2._napari.regions import ellipse_outline
from napari_her2._napari.session import session_of
from napari_her2._napari.tile import TileLookup, read_tile
from napari_her2.desk.own_score import ManualScore, write_manual
from napari_her2.errors import JobFailed
from scored import HandSlide, make_image_result, make_result, make_slide

if TYPE_CHECKING:
    from pathlib import Path


def add(viewer: ViewerModel, slide: HandSlide) -> object:
    data, options, _ = slide_layer(slide)
    return viewer.add_image(data, **options)


def test_all_docks_of_a_viewer_share_one_session() -> None:
    viewer = ViewerModel()
    assert session_of(viewer) is session_of(PublicOnlyProxy(viewer))
    assert session_of(viewer) is not session_of(ViewerModel())


def test_a_session_goes_with_its_viewer() -> None:
    viewer = ViewerModel()
    session = session_of(viewer)
    slide = make_slide()
    add(viewer, slide)
    session.set_result(make_result(slide), OverlayLook())
    seen = weakref.ref(viewer), weakref.ref(slide)
    del viewer, slide
    gc.collect()
    assert session.viewer is None
    assert [ref() for ref in seen] == [None, None]


def test_two_slides_keep_their_results_apart() -> None:
    viewer = ViewerModel()
    session = session_of(viewer)
    he, ihc = make_slide(), make_slide(name="case-2")
    first, second = add(viewer, he), add(viewer, ihc)
    second.translate = (0.0, 400.0)
    for slide in (he, ihc):
        session.set_result(make_result(slide), OverlayLook())
    moved = session.overlays(ihc.slide_id).layer("attention")
    # A slide that was moved aside has its maps over itself.
    np.testing.assert_allclose(
        moved.data_to_world((-0.5, -0.5)), second.data_to_world((-0.5, -0.5)), atol=1e-9
    )
    viewer.layers.remove(first)
    assert session.result(he.slide_id) is None
    assert session.result(ihc.slide_id) is not None
    assert not [layer for layer in viewer.layers if layer.name.endswith("case-1")]
    assert [layer for layer in viewer.layers if layer.name.endswith("· case-2")]


def test_a_result_that_comes_after_its_slide_was_closed_is_dropped() -> None:
    viewer = ViewerModel()
    slide = make_slide()
    session_of(viewer).set_result(make_result(slide), OverlayLook())
    assert len(viewer.layers) == 0
    assert session_of(viewer).result(slide.slide_id) is None


def test_closing_a_slide_with_many_overlays_takes_no_call_inside_another_for_each() -> None:
    viewer = ViewerModel()
    slide = make_slide()
    layer = add(viewer, slide)
    session = session_of(viewer)
    session.set_result(make_result(slide), OverlayLook())
    depths, heard = [], []
    viewer.layers.events.removed.connect(lambda event: depths.append(len(inspect.stack(0))))
    session.slides_changed.connect(lambda: heard.append(len(viewer.layers)))
    viewer.layers.remove(layer)
    assert not viewer.layers
    assert len(depths) > 3
    assert max(depths[:-1]) - min(depths[:-1]) < 5, (
        "each was taken out within the taking out of the one before"
    )
    assert heard == [0]


def test_an_overlay_that_the_user_deleted_stays_away() -> None:
    viewer = ViewerModel()
    slide = make_slide()
    add(viewer, slide)
    session = session_of(viewer)
    session.set_result(make_result(slide), OverlayLook())
    overlays = session.overlays(slide.slide_id)
    viewer.layers.remove(overlays.layer("attention"))
    overlays.set_scale("attention", "raw")
    overlays.set_opacity(0.2)
    assert overlays.layer("attention") is None
    assert overlays.layer("evidence").opacity == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("score", "ish", "category"),
    [
        ("3+", "", "HER2-positive"),
        ("2+", "", "equivocal: ISH required"),
        ("2+", "pending", "equivocal: ISH required"),
        ("2+", "positive", "HER2-positive (2+, ISH positive)"),
        ("2+", "negative", "HER2-low (2+, ISH negative)"),
        ("1+", "", "HER2-low"),
        ("0, with membrane staining", "", "HER2-ultralow"),
        ("0, no staining", "", "HER2-null"),
        ("", "positive", ""),
        ("1+", "negative", "HER2-low"),
        (
            "1+",
            "positive",
            "HER2-low. ISH positive does not agree with a score of 1+: look at IHC and ISH again.",
        ),
        (
            "0, no staining",
            "positive",
            "HER2-null. ISH positive does not agree with a score of 0: look at IHC and ISH again.",
        ),
        ("0, no staining", "pending", "HER2-null"),
    ],
)
def test_the_category_follows_from_the_pathologists_entries(score: str, ish: str, category: str) -> None:
    assert ManualScore(score, ish).category() == category


def test_the_pathologists_score_is_written_beside_a_result(tmp_path: Path) -> None:
    path = write_manual(tmp_path, ManualScore("2+", "negative", "twice"))
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["score"] == "2+"
    assert written["category"].startswith("HER2-low")
    write_manual(tmp_path, ManualScore(ish="negative"), make_image_result())
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["category"] == ""
    assert written["ish_beside_prediction"] == "With ISH negative: 1+ or 2+ would be HER2-low."
    assert write_manual(tmp_path, ManualScore()) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="choose a folder"):
        write_manual(tmp_path / "absent", ManualScore("3+"))


def test_an_ellipse_has_its_area() -> None:
    outline = ellipse_outline(np.array([[0, 0], [0, 20], [10, 20], [10, 0]], float))
    y, x = outline.T
    area = abs(np.dot(y, np.roll(x, 1)) - np.dot(x, np.roll(y, 1))) / 2
    assert area == pytest.approx(np.pi * 5 * 10, rel=0.01)


def test_a_tile_is_found_by_any_of_its_pixels() -> None:
    result = make_result(corrupt=2)
    lookup = TileLookup(result)
    assert lookup.at((25.0, 125.0)) == 0
    assert lookup.at((25.0, 25.0)) is None  # damaged
    assert lookup.at((-1.0, 25.0)) is None
    assert lookup.at((25.0, 601.0)) is None
    assert lookup.first == len(result.table) - 1
    assert lookup.neighbour(lookup.first, 1) == lookup.first - 1
    assert lookup.neighbour(lookup.first, -1) == lookup.first


def test_a_tile_is_read_with_its_surroundings() -> None:
    slide = make_slide(mpp=(0.25, 0.25))
    slide.image[100:200, 200:300] = 7
    result = make_result(slide)  # 25 µm are 100 px
    tile = TileLookup(result).at((150.0, 250.0))
    view = read_tile(slide, result, tile)
    assert view.pixels.shape == (200, 200, 3)
    assert (view.pixels[50:150, 50:150] == 7).all()
    assert not (view.pixels[:50] == 7).any()


def test_a_slide_that_was_active_is_let_go_with_its_layer() -> None:
    viewer = ViewerModel()
    session_of(viewer)
    slide = make_slide()
    layer = add(viewer, slide)
    assert viewer.layers.selection.active is layer
    seen = weakref.ref(slide)
    viewer.layers.remove(layer)
    del slide, layer
    gc.collect()
    assert seen() is None


def test_new_overlays_are_there_before_the_old_ones_go() -> None:
    """Else the canvas is drawn in between without the layer that it drew last, which crashes vispy."""
    viewer, slide = ViewerModel(), make_slide()
    add(viewer, slide)
    session = session_of(viewer)
    session.set_result(make_result(slide), OverlayLook())
    before = overlays_of(viewer, slide.slide_id)
    names, left = [layer.name for layer in before], []
    viewer.layers.events.removed.connect(
        lambda event: left.append(set(overlays_of(viewer, slide.slide_id)) - set(before))
    )
    session.set_result(make_result(slide), OverlayLook())
    assert [len(new) for new in left] == [len(before)] * len(before)
    assert [layer.name for layer in overlays_of(viewer, slide.slide_id)] == names
