"""Work on a slide: kept as it changes, brought back when the slide is opened again."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_her2._napari.keeping import Keeping, keeping_of
from napari_her2._napari.kept_layers import own_region_layers, shapes_of
from napari_her2._napari.kept_work import finding, writing
from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.region_kinds import set_kind, set_name
from napari_her2._napari.regions import add_region_layer, drawn_regions
from napari_her2._napari.session import Session, session_of
from napari_her2.desk.kept_slide import GivenScale
from napari_her2.desk.own_score import ManualScore
from napari_her2.desk.store import Desk
from napari_her2.errors import JobFailed
from napari_her2.export.tables import write_result
from napari_her2.steps import finished
from scored import HandSlide, make_pair, make_result, make_slide

if TYPE_CHECKING:
    from pathlib import Path

    from napari.layers import Shapes

OWN = ManualScore("2+", "pending", "a note")
RING = np.array([[10.0, 20.0], [10.0, 80.5], [60.25, 80.0], [60.0, 20.0]])


class Desktop:
    """A viewer with its session and keeping; closed and opened anew to see what comes back."""

    def __init__(self) -> None:
        self.viewer = ViewerModel()
        self.session: Session = session_of(self.viewer)
        self.keeping: Keeping = keeping_of(self.session)
        self.keeping.driven = True

    def open(self, slide: HandSlide) -> str:
        data, options, _ = slide_layer(slide)
        self.viewer.add_image(data, **options)
        return slide.slide_id

    def seek(self) -> None:
        """What the thread and the timer of the dock do."""
        slides = self.keeping.unsought()
        for found in finished(finding(slides, slides)):
            for _ in self.keeping.bring_back(found):
                pass

    def keep(self) -> list[str]:
        parcels = self.keeping.take()
        self.keeping.set_sizes(finished(writing(parcels)))
        return [parcel.slide_id for parcel in parcels]

    def draw(self, slide_id: str) -> Shapes:
        layer = add_region_layer(self.viewer, self.session.layer_of(slide_id))
        layer.add_polygons(RING)
        layer.add_ellipses([[100.0, 100.0], [100.0, 160.0], [150.0, 160.0], [150.0, 100.0]])
        set_kind(layer, "dcis", chosen=[1])
        set_name(layer, "a <b>name</b>", [0])
        return layer


def reopened(slide: HandSlide) -> tuple[Desktop, str]:
    desktop = Desktop()
    slide_id = desktop.open(slide)
    desktop.seek()
    return desktop, slide_id


def files_of(result: object, folder: Path) -> dict[str, bytes]:
    written = write_result(result, folder)
    return {path.name: path.read_bytes() for path in sorted(written.iterdir()) if path.is_file()}


def test_closing_and_reopening_a_slide_brings_all_of_the_work_back(tmp_path: Path) -> None:
    desktop, slide_id = reopened(make_slide())
    assert desktop.keep() == []  # whoever only looks leaves nothing
    layer = desktop.draw(slide_id)
    result = replace(make_result(make_slide()), warnings=("a warning",))
    other = replace(make_result(make_slide()), model="another", score="3+")
    when = datetime.fromisoformat("2026-11-28T14:02:00+01:00")
    desktop.session.set_result(other, OverlayLook())
    desktop.session.set_result(result, OverlayLook(opacity=0.35), when=when)
    desktop.session.overlays(slide_id).set_visible("evidence", True)
    desktop.session.set_manual(slide_id, OWN)
    desktop.viewer.scene.camera.center = (0, 50.0, 70.0)
    desktop.viewer.scene.camera.zoom = 3.25
    assert desktop.keep() == [slide_id]
    assert desktop.keep() == []
    regions = drawn_regions(layer, desktop.session.layer_of(slide_id))
    desktop.viewer.layers.clear()
    assert desktop.session.results == []

    again, slide_id = reopened(make_slide())
    (back,) = own_region_layers(again.viewer, slide_id)
    assert list(back.shape_type) == ["polygon", "ellipse"]
    for one, two in zip(back.data, layer.data, strict=True):
        np.testing.assert_array_equal(one, two)
    drawn = drawn_regions(back, again.session.layer_of(slide_id))
    assert [(of.name, of.kind) for of in drawn] == [(of.name, of.kind) for of in regions]
    assert all(one.polygon.equals_exact(two.polygon) for one, two in zip(drawn, regions, strict=True))
    assert back.name == layer.name
    assert list(again.session.results_of(slide_id)) == ["another", "hand-model"]
    assert again.session.result(slide_id).model == "hand-model"
    assert again.session.scored_at(slide_id, "hand-model") == when
    assert files_of(again.session.result(slide_id), tmp_path / "b") == files_of(result, tmp_path / "a")
    overlays = again.session.overlays(slide_id)
    assert overlays.layer("evidence").visible
    assert overlays.look.opacity == 0.35
    assert again.session.manual(slide_id) == OWN
    assert again.viewer.scene.camera.center[-2:] == pytest.approx((50.0, 70.0))
    assert again.viewer.scene.camera.zoom == pytest.approx(3.25)
    assert again.keeping.note(slide_id).endswith("2 regions, results of 2 models, your own score.")
    assert again.keeping.problems(slide_id) == ()
    assert again.keep() == []  # nothing is written that was only brought back


def test_a_slide_that_comes_with_a_result_shows_that_one_and_not_what_was_chosen_last() -> None:
    """As a row of a day's list opens it, of another model than the one that was shown when it was closed."""
    desktop, slide_id = reopened(make_slide())
    row, other = make_result(make_slide()), replace(make_result(make_slide()), model="another", score="3+")
    desktop.session.set_result(row, OverlayLook())
    desktop.session.set_result(other, OverlayLook())
    desktop.keep()
    desktop.viewer.layers.clear()
    again = Desktop()
    slide_id = again.open(make_slide())
    again.session.set_result(row, OverlayLook())
    shown = again.session.result(slide_id)
    again.seek()
    assert again.session.result(slide_id) is shown
    assert set(again.session.results_of(slide_id)) == {"hand-model", "another"}


def test_micrometres_that_were_given_do_not_take_away_the_result_that_a_slide_came_with() -> None:
    desktop, slide_id = reopened(make_slide())
    desktop.session.set_manual(slide_id, OWN)
    desktop.keep()
    kept = Desk().read("fingerprint of case-1")
    Desk().keep(replace(kept, scale=GivenScale((0.3, 0.3), "measured", "2026-11-28T14:02:00+01:00")))
    again, slide = Desktop(), make_slide()
    slide.mpp_given = False  # its file states it
    slide_id = again.open(slide)
    again.session.set_result(make_result(slide), OverlayLook())
    again.seek()
    assert again.session.result(slide_id) is not None
    (problem,) = again.keeping.problems(slide_id)
    assert "other µm/px (0.3, measured" in problem


def test_a_moved_file_keeps_its_work_and_a_copy_shares_it() -> None:
    desktop, slide_id = reopened(make_slide())
    desktop.session.set_manual(slide_id, OWN)
    desktop.keep()
    moved = make_slide(name="moved and renamed")
    moved.identity.known = moved.fingerprint = "fingerprint of case-1"
    again, slide_id = reopened(moved)
    assert again.session.manual(slide_id) == OWN


def test_only_what_changed_is_written_and_what_another_window_kept_stays() -> None:
    one, slide_id = reopened(make_slide())
    other, _ = reopened(make_slide())
    one.draw(slide_id)
    assert one.keep() == [slide_id]
    other.session.set_manual(slide_id, OWN)
    assert other.keep() == [slide_id]
    again, _ = reopened(make_slide())
    assert again.session.manual(slide_id) == OWN
    assert len(own_region_layers(again.viewer, slide_id)) == 1


def test_work_that_was_begun_before_the_kept_one_came_back_is_added() -> None:
    desktop, slide_id = reopened(make_slide())
    desktop.draw(slide_id)
    desktop.session.set_manual(slide_id, OWN)
    desktop.keep()
    again = Desktop()
    again.open(make_slide())
    layer = add_region_layer(again.viewer, again.session.layer_of(slide_id))
    layer.add_rectangles([[1.0, 1.0], [1.0, 5.0], [5.0, 5.0], [5.0, 1.0]])
    again.session.set_manual(slide_id, ManualScore("3+"))
    assert again.keep() == []  # not before it is known what is there
    again.seek()
    assert len(shapes_of(again.viewer, again.session.layer_of(slide_id), slide_id)) == 3
    assert again.session.manual(slide_id) == ManualScore("3+")
    assert again.keep() == [slide_id]
    last, _ = reopened(make_slide())
    assert len(shapes_of(last.viewer, last.session.layer_of(slide_id), slide_id)) == 3
    assert last.session.manual(slide_id) == ManualScore("3+")


def test_a_slide_that_is_closed_before_its_work_came_back_loses_none() -> None:
    desktop, slide_id = reopened(make_slide())
    desktop.draw(slide_id)
    desktop.keep()
    again = Desktop()
    again.open(make_slide())
    layer = add_region_layer(again.viewer, again.session.layer_of(slide_id))
    layer.add_rectangles([[1.0, 1.0], [1.0, 5.0], [5.0, 5.0], [5.0, 1.0]])
    again.viewer.layers.clear()
    assert again.keep() == [slide_id]
    kept = Desk().read("fingerprint of case-1")
    assert len(kept.regions) == 3


def test_closing_everything_at_once_deletes_no_region_but_deleting_a_layer_does() -> None:
    desktop, slide_id = reopened(make_slide())
    layer = desktop.draw(slide_id)
    desktop.viewer.layers.remove(layer)  # first the regions, then the slide, within the same moment
    desktop.viewer.layers.clear()
    assert desktop.keep() == [slide_id]
    assert len(Desk().read("fingerprint of case-1").regions) == 2
    again, slide_id = reopened(make_slide())
    again.viewer.layers.remove(own_region_layers(again.viewer, slide_id)[0])
    assert again.keep() == [slide_id]
    again.viewer.layers.clear()
    assert Desk().read("fingerprint of case-1").regions == ()


def test_a_result_is_judged_by_what_is_demanded_now_and_dropped_for_good() -> None:
    desktop, slide_id = reopened(make_slide())
    desktop.session.set_result(make_result(make_slide()), OverlayLook())
    desktop.keep()
    desktop.session.drop_result(slide_id, "hand-model")
    assert desktop.keep() == [slide_id]
    assert Desk().read("fingerprint of case-1").results == {}
    assert list(Desk().place("fingerprint of case-1").glob("*.her2")) == []


def test_results_of_a_case_lie_over_both_slides_again() -> None:
    he, ihc = make_slide(), make_slide((500, 400), name="case-1-ihc")
    desktop = Desktop()
    for slide in (he, ihc):
        desktop.open(slide)
    desktop.seek()
    desktop.session.set_result(make_pair(he, ihc), OverlayLook())
    assert sorted(desktop.keep()) == sorted([he.slide_id, ihc.slide_id])
    again = Desktop()
    for name, shape in (("case-1", (400, 600)), ("case-1-ihc", (500, 400))):
        again.open(make_slide(shape, name=name))
    again.seek()
    for slide_id in (he.slide_id, ihc.slide_id):
        assert again.session.result(slide_id).slides[0].slide_id == slide_id
        assert again.session.overlays(slide_id) is not None
    assert again.keep() == []


def test_a_scale_comes_back_and_results_of_another_scale_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(path: Path, *, mpp: object = None, mpp_source: str = "") -> HandSlide:
        slide = make_slide(mpp=mpp)
        slide.mpp_source = mpp_source or "not stated"
        return slide

    monkeypatch.setattr("napari_her2.slide.reader.open_slide", opened)
    desktop, slide_id = reopened(make_slide(mpp=None))
    desktop.draw(slide_id)
    scale = GivenScale((0.5, 0.5), "measured on 3 erythrocytes of 7 µm", "2026-11-28T19:02:11+01:00")
    desktop.session.give_scale(slide_id, scale)
    desktop.session.set_result(make_result(desktop.session.slide_of(slide_id)), OverlayLook())
    desktop.keep()
    again, _ = reopened(make_slide(mpp=None))
    slide = again.session.slide_of(slide_id)
    assert slide.mpp == (0.5, 0.5)
    assert slide.mpp_source == "measured on 3 erythrocytes of 7 µm, 2026-11-28 19:02"
    assert again.session.result(slide_id) is not None
    before = shapes_of(again.viewer, again.session.layer_of(slide_id), slide_id)
    again.session.give_scale(slide_id, replace(scale, mpp=(0.25, 0.25)))
    assert again.session.result(slide_id) is None
    after = shapes_of(again.viewer, again.session.layer_of(slide_id), slide_id)
    for one, two in zip(before, after, strict=True):  # regions stay on the pixels that they were drawn on
        np.testing.assert_allclose(one.outline_px0, two.outline_px0, atol=1e-6)
    again.keep()
    kept = Desk().read("fingerprint of case-1")
    assert (kept.scale.mpp, dict(kept.results), len(kept.regions)) == ((0.25, 0.25), {}, 2)


def test_a_result_of_another_scale_is_said_and_not_shown() -> None:
    desktop, slide_id = reopened(make_slide())
    desktop.session.set_result(make_result(make_slide()), OverlayLook())
    desktop.keep()
    again, _ = reopened(make_slide(mpp=(0.25, 0.25)))
    assert again.session.result(slide_id) is None
    assert "other µm/px" in again.keeping.problems(slide_id)[0]


def test_what_cannot_be_read_is_said_and_the_slide_opens_all_the_same() -> None:
    desktop, slide_id = reopened(make_slide())
    desktop.draw(slide_id)
    desktop.session.set_result(make_result(make_slide()), OverlayLook())
    desktop.keep()
    place = Desk().place("fingerprint of case-1")
    (file,) = place.glob("*.her2")
    file.write_bytes(file.read_bytes()[:200])
    cut = file.read_bytes()
    again, _ = reopened(make_slide())
    assert again.session.result(slide_id) is None
    assert len(own_region_layers(again.viewer, slide_id)) == 1
    assert "result of hand-model cannot be brought back" in again.keeping.problems(slide_id)[0]
    again.session.set_manual(slide_id, OWN)
    again.keep()
    assert file.read_bytes() == cut
    values = json.loads((place / "slide.json").read_text())
    (place / "slide.json").write_text(json.dumps(values | {"format": 2}))
    last, _ = reopened(make_slide())
    assert "newer version" in last.keeping.problems(slide_id)[0]
    assert last.session.layer_of(slide_id) is not None


def test_what_could_not_be_written_is_tried_again_with_the_next_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desktop, slide_id = reopened(make_slide())
    desktop.draw(slide_id)
    desktop.session.set_result(make_result(make_slide()), OverlayLook())
    desktop.session.set_manual(slide_id, OWN)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    parcels = desktop.keeping.take()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(JobFailed, match="No space left"):
            finished(writing(parcels))
    desktop.keeping.give_back(parcels)
    desktop.session.set_manual(slide_id, ManualScore())  # what was given back is no older than this
    assert desktop.keep() == [slide_id]
    kept = Desk().read("fingerprint of case-1")
    assert (len(kept.regions), list(kept.results), kept.own_score) == (2, ["hand-model"], ManualScore())
    assert desktop.keep() == []


def test_forgetting_takes_the_work_away_here_and_there() -> None:
    desktop, slide_id = reopened(make_slide())
    desktop.draw(slide_id)
    desktop.session.set_result(make_result(make_slide()), OverlayLook())
    desktop.session.set_manual(slide_id, OWN)
    desktop.keep()
    words, size = desktop.keeping.work_on(slide_id)
    assert words == "2 regions, the result of hand-model, your own score"
    assert size == Desk().size("fingerprint of case-1") > 1000
    fingerprint = desktop.keeping.forget(slide_id)
    Desk().forget(fingerprint)
    assert len(desktop.viewer.layers) == 1
    assert desktop.keep() == []
    assert Desk().read(fingerprint) is None
    desktop.session.set_manual(slide_id, OWN)  # work that is done from now on is kept again
    assert desktop.keep() == [slide_id]


def test_keeping_holds_neither_viewer_nor_slide() -> None:
    desktop, slide_id = reopened(make_slide())
    slide = weakref.ref(desktop.session.slide_of(slide_id))
    desktop.viewer.layers.clear()
    gc.collect()
    assert slide() is None
    viewer = weakref.ref(desktop.viewer)
    del desktop
    gc.collect()
    assert viewer() is None
