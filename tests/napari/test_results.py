"""A slide keeps the results of all models, and shows one of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_her2._napari import results as results_module
from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.overlay_layers import overlays_of
from napari_her2._napari.results import MOST_RESULTS
from napari_her2._napari.session import Session, session_of
from scored import HandSlide, make_pair, make_result, make_slide

if TYPE_CHECKING:
    from napari_her2.inference.result import SlideResult

AT = datetime(2026, 11, 28, 19, 2, tzinfo=UTC)


class Desk:
    """Two open slides of one session, and what the session says of them."""

    def __init__(self) -> None:
        self.viewer = ViewerModel()
        self.session: Session = session_of(self.viewer)
        self.he, self.ihc = make_slide(), make_slide((500, 400), name="case-1-ihc")
        for slide in (self.he, self.ihc):
            data, options, _ = slide_layer(slide)
            self.viewer.add_image(data, **options)
        self.shown: list[str] = []
        self.kept: list[str] = []
        self.session.result_changed.connect(self.shown.append)
        self.session.results_changed.connect(self.kept.append)

    def result(self, model: str, slide: HandSlide | None = None) -> SlideResult:
        return replace(make_result(slide or self.he), model=model)

    def pair(self, model: str) -> SlideResult:
        return replace(make_pair(self.he, self.ihc), model=model)

    def score(self, *results: SlideResult) -> None:
        for result in results:
            self.session.set_result(result, OverlayLook())
        self.shown.clear()
        self.kept.clear()

    def models(self, slide: HandSlide) -> list[str]:
        return list(self.session.results_of(slide.slide_id))

    def model_shown(self, slide: HandSlide) -> str | None:
        kept, seen = self.session.result(slide.slide_id), self.session.shown(slide.slide_id)
        assert (kept is None) == (seen is None)
        assert kept is None or kept.model == seen.model
        return None if kept is None else kept.model


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_another_model_leaves_the_results_before_it(desk: Desk) -> None:
    desk.score(desk.result("first"), desk.result("second"))
    assert desk.models(desk.he) == ["first", "second"]
    assert desk.model_shown(desk.he) == "second"
    assert desk.models(desk.ihc) == []


def test_the_same_model_again_replaces_its_result(desk: Desk) -> None:
    again = desk.result("first")
    desk.score(desk.result("first"), desk.result("second"), again)
    assert desk.models(desk.he) == ["second", "first"]
    assert desk.session.results_of(desk.he.slide_id)["first"].slides == again.slides
    assert desk.model_shown(desk.he) == "first"


def test_a_chosen_result_lies_over_the_slide(desk: Desk) -> None:
    first, second = desk.result("first"), desk.result("second")
    (weights,) = [own for own in first.maps if own.kind == "attention" and own.info.scale == "raw"]
    changed = replace(weights, values=np.full_like(weights.values, 0.25))
    maps = tuple(changed if own is weights else own for own in first.maps)
    first = replace(first, slides=(replace(first.slides[0], maps=maps),))
    desk.score(first, second)
    desk.session.overlays(desk.he.slide_id).set_scale("attention", "raw")
    before = {layer.name for layer in overlays_of(desk.viewer, desk.he.slide_id)}
    desk.session.choose_result(desk.he.slide_id, "first")
    assert desk.model_shown(desk.he) == "first"
    layer = desk.session.overlays(desk.he.slide_id).layer("attention")
    assert np.nanmax(layer.data) == 0.25  # on the scale that was chosen before
    assert {layer.name for layer in overlays_of(desk.viewer, desk.he.slide_id)} == before
    assert (desk.shown, desk.kept) == ([desk.he.slide_id], [desk.he.slide_id])


@pytest.mark.parametrize("model", ["second", "nobody"])
def test_choosing_what_is_shown_or_not_there_changes_nothing(desk: Desk, model: str) -> None:
    desk.score(desk.result("first"), desk.result("second"))
    layers = overlays_of(desk.viewer, desk.he.slide_id)
    desk.session.choose_result(desk.he.slide_id, model)
    assert overlays_of(desk.viewer, desk.he.slide_id) == layers
    assert desk.shown == []


def test_a_result_of_two_slides_is_chosen_for_both(desk: Desk) -> None:
    desk.score(desk.pair("both"), desk.result("alone"), desk.result("alone too", desk.ihc))
    assert [desk.model_shown(slide) for slide in (desk.he, desk.ihc)] == ["alone", "alone too"]
    desk.session.choose_result(desk.ihc.slide_id, "both")
    assert [desk.model_shown(slide) for slide in (desk.he, desk.ihc)] == ["both", "both"]
    assert len(desk.session.overlay_sets(desk.session.shown(desk.ihc.slide_id))) == 2
    assert sorted(desk.shown) == sorted([desk.he.slide_id, desk.ihc.slide_id])


def test_a_dropped_result_gives_place_to_the_latest_other_one(desk: Desk) -> None:
    desk.score(desk.result("first"), desk.result("second"), desk.result("third"))
    desk.session.drop_result(desk.he.slide_id, "first")
    assert (desk.models(desk.he), desk.shown) == (["second", "third"], [])
    desk.session.drop_result(desk.he.slide_id, "third")
    assert desk.model_shown(desk.he) == "second"
    desk.session.drop_result(desk.he.slide_id, "second")
    assert desk.model_shown(desk.he) is None
    assert overlays_of(desk.viewer, desk.he.slide_id) == []
    assert desk.session.results == []


def test_a_dropped_case_is_dropped_from_both_slides(desk: Desk) -> None:
    desk.score(desk.result("alone"), desk.pair("both"))
    desk.session.drop_result(desk.ihc.slide_id, "both")
    assert [desk.model_shown(slide) for slide in (desk.he, desk.ihc)] == ["alone", None]
    assert overlays_of(desk.viewer, desk.ihc.slide_id) == []


def test_every_kept_result_is_judged_anew_and_only_what_is_shown_is_redrawn(desk: Desk) -> None:
    desk.score(desk.pair("both"), desk.result("alone"))
    assert sorted(result.model for result in desk.session.results) == ["alone", "both"]
    layers = overlays_of(desk.viewer, desk.he.slide_id)
    desk.session.refresh_result(replace(desk.pair("both"), label="judged anew"))
    he, ihc = desk.he.slide_id, desk.ihc.slide_id
    assert desk.session.results_of(he)["both"].label == "judged anew"
    assert desk.session.shown(ihc).label == "judged anew"
    assert desk.model_shown(desk.he) == "alone"
    assert overlays_of(desk.viewer, he) == layers
    assert (desk.shown, sorted(desk.kept)) == ([ihc], sorted([he, ihc]))


def test_a_slide_scored_alone_since_is_not_judged_with_its_case(desk: Desk) -> None:
    desk.score(desk.pair("model"), desk.result("model"))
    desk.session.refresh_result(replace(desk.pair("model"), label="judged anew"))
    assert desk.session.results_of(desk.he.slide_id)["model"].label != "judged anew"
    assert desk.session.results_of(desk.ihc.slide_id)["model"].label == "judged anew"
    assert len(desk.session.results) == 2


def test_a_result_that_is_added_waits_until_it_is_chosen(desk: Desk) -> None:
    desk.session.add_result(desk.result("kept"), when=AT)
    assert desk.model_shown(desk.he) is None
    assert desk.session.scored_at(desk.he.slide_id, "kept") == AT
    desk.session.choose_result(desk.he.slide_id, "kept")
    assert desk.model_shown(desk.he) == "kept"
    desk.session.add_result(replace(desk.result("kept"), label="newer"))
    assert desk.session.shown(desk.he.slide_id).label == "newer"
    desk.session.add_result(desk.result("kept", make_slide(name="closed")))
    assert [result.slide for result in desk.session.results] == ["case-1"]


def test_closing_a_slide_forgets_its_results_and_no_others(desk: Desk) -> None:
    desk.score(desk.pair("both"), desk.result("alone"))
    desk.viewer.layers.remove(desk.session.layer_of(desk.he.slide_id))
    assert desk.models(desk.he) == []
    assert desk.model_shown(desk.ihc) == "both"
    desk.session.choose_result(desk.ihc.slide_id, "both")
    desk.session.drop_result(desk.ihc.slide_id, "both")
    assert desk.models(desk.ihc) == []


def test_a_slide_keeps_so_many_results_and_never_loses_what_is_shown(desk: Desk) -> None:
    desk.score(*(desk.result(f"model {number}") for number in range(MOST_RESULTS)))
    desk.session.choose_result(desk.he.slide_id, "model 0")
    for number in range(3):
        desk.session.add_result(desk.result(f"later {number}"))
    assert len(desk.models(desk.he)) == MOST_RESULTS
    assert desk.models(desk.he)[:2] == ["model 0", "model 4"]
    assert desk.model_shown(desk.he) == "model 0"


def test_results_that_are_not_shown_give_way_where_memory_is_short(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = sum(array.nbytes for array in results_module._arrays(desk.result("any"), set()))
    assert one > 0
    monkeypatch.setattr(results_module, "MOST_BYTES", 2 * one)
    desk.score(*(desk.result(f"model {number}") for number in range(5)))
    assert desk.models(desk.he) == ["model 2", "model 3", "model 4"]  # two, and what is shown
    desk.score(desk.pair("both"))
    assert desk.model_shown(desk.ihc) == "both"
    desk.score(*(desk.result(f"other {number}") for number in range(3)))
    assert desk.model_shown(desk.ihc) == "both"  # hidden on the one slide, shown on the other
    assert "both" in desk.models(desk.he)
