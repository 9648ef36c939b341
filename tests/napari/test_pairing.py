from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel
from placed import with_tissue

from napari_her2._napari.landmarks import Landmarks
from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.placement import companions, place_of
from napari_her2._napari.regions import add_region_layer, drawn_regions
from napari_her2._napari.session import Session, session_of
from napari_her2.errors import JobFailed
from napari_her2.registration.affine import Alignment
from scored import HandSlide, make_pair, make_slide

if TYPE_CHECKING:
    from napari.layers import Image

CORNERS = [(-0.5, -0.5), (399.5, 599.5), (10.0, 20.0)]


class Case:
    """An H&E and an IHC slide that are open in a viewer."""

    def __init__(self) -> None:
        self.viewer = ViewerModel()
        self.session: Session = session_of(self.viewer)
        self.he_slide, self.ihc_slide = make_slide(), make_slide((500, 400), name="case-1-ihc")
        self.he, self.ihc = self.add(self.he_slide), self.add(self.ihc_slide)
        self.ids = (self.he_slide.slide_id, self.ihc_slide.slide_id)
        self.result = with_tissue(make_pair(self.he_slide, self.ihc_slide))

    def add(self, slide: HandSlide) -> Image:
        data, options, _ = slide_layer(slide)
        return self.viewer.add_image(data, **options)

    def overlay(self, at: int, role: str) -> object:
        return self.session.overlays(self.ids[at]).layer(role)


@pytest.fixture
def case() -> Case:
    return Case()


def aligned() -> Alignment:
    return Alignment.identity().turned(20, (50, 60)).shifted((30, -12))


def test_a_result_of_two_slides_is_shown_on_each(case: Case) -> None:
    case.session.set_result(case.result, OverlayLook())
    for slide_id, name in zip(case.ids, ("case-1", "case-1-ihc"), strict=True):
        own = case.session.result(slide_id)
        assert own.slide == name
        assert own.head == "fusion"
        assert case.session.overlays(slide_id).layer("attention").name.endswith(f" · {name}")
        assert case.session.overlays(slide_id).layer("evidence") is None
        assert case.session.overlays(slide_id).layer("tissue") is not None
        assert len(case.session.overlay_sets(own)) == 2
    assert case.viewer.layers.selection.active is case.ihc  # as before


@pytest.mark.parametrize("closed", [0, 1])
def test_closing_one_slide_leaves_the_other_usable(case: Case, closed: int) -> None:
    case.session.set_result(case.result, OverlayLook())
    case.session.pair(*case.ids)
    case.session.pairing.set_arrangement("stacked")
    case.session.pairing.set_fade(0.2)
    case.viewer.layers.remove((case.he, case.ihc)[closed])
    gone, left = case.ids[closed], case.ids[1 - closed]
    assert case.session.result(gone) is None
    assert companions(case.viewer, gone) == []
    assert case.session.pairing is None
    (overlays,) = case.session.overlay_sets(case.session.result(left))
    overlays.set_scale("attention", "raw")
    assert overlays.layer("attention").opacity == pytest.approx(0.6)
    assert (case.he, case.ihc)[1 - closed].opacity == 1.0


def test_a_slide_scored_anew_alone_is_no_longer_part_of_the_case(case: Case) -> None:
    case.session.set_result(case.result, OverlayLook())
    alone = replace(case.result, slides=(replace(case.result.slides[0]),), head="H&E")
    case.session.set_result(alone, OverlayLook())
    (left,) = case.session.overlay_sets(case.session.result(case.ids[1]))
    assert left.slide_id == case.ids[1]


def test_all_that_lies_over_a_slide_moves_with_it(case: Case) -> None:
    case.session.set_result(case.result, OverlayLook())
    regions = add_region_layer(case.viewer, case.ihc)
    regions.mode = "pan_zoom"
    regions.add(np.array([[10, 20], [10, 119], [59, 119], [59, 20]]), shape_type="polygon")
    (before,) = drawn_regions(regions, case.ihc)
    pairing = case.session.pair(*case.ids)
    still = case.overlay(0, "attention").affine.affine_matrix.copy()
    for change in (
        lambda: pairing.set_alignment(aligned()),
        lambda: pairing.set_arrangement("stacked"),
        lambda: setattr(case.ihc, "translate", (7.0, 8.0)),  # by hand
        lambda: setattr(case.ihc, "rotate", 15.0),
    ):
        change()
        attention = case.overlay(1, "attention")
        tile_px = 50
        for row, col in ((0, 0), (3, 5)):
            tile_corner = attention.data_to_world((row - 0.5, col - 0.5))
            slide_corner = case.ihc.data_to_world((row * tile_px - 0.5, col * tile_px - 0.5))
            np.testing.assert_allclose(tile_corner, slide_corner, atol=1e-6)
        (region,) = drawn_regions(regions, case.ihc)
        np.testing.assert_allclose(region.area.exterior.coords, before.area.exterior.coords, atol=1e-6)
    np.testing.assert_allclose(case.overlay(0, "attention").affine.affine_matrix, still)


def test_an_aligned_slide_lies_where_the_alignment_says(case: Case) -> None:
    case.he.translate = (40.0, 90.0)
    pairing = case.session.pair(*case.ids)
    pairing.set_alignment(aligned())
    pairing.set_arrangement("stacked")
    for y, x in CORNERS:
        on_he_um = aligned().apply([(0.5 * y, 0.5 * x)])[0]
        np.testing.assert_allclose(case.ihc.data_to_world((y, x)), np.add(on_he_um, (40, 90)), atol=1e-6)


@pytest.mark.parametrize("degrees", [0, 35, 180])
def test_side_by_side_slides_never_overlap(case: Case, degrees: float) -> None:
    pairing = case.session.pair(*case.ids)
    pairing.set_alignment(Alignment.identity().turned(degrees, (0, 0)).shifted((500, 900)))
    box = [(-0.5, -0.5), (-0.5, 399.5), (499.5, 399.5), (499.5, -0.5)]
    left = min(case.ihc.data_to_world(corner)[1] for corner in box)
    top = min(case.ihc.data_to_world(corner)[0] for corner in box)
    assert left == pytest.approx(case.he.data_to_world((0, 599.5))[1] + 0.05 * 300)
    assert top == pytest.approx(case.he.data_to_world((-0.5, 0))[0])


def test_the_alignment_comes_back_with_the_case(case: Case) -> None:
    pairing = case.session.pair(*case.ids)
    pairing.set_alignment(aligned())
    pairing.keep()
    again = Case()
    again.session.pair(*again.ids).set_arrangement("stacked")
    np.testing.assert_allclose(again.session.pairing.alignment.matrix, aligned().matrix)
    np.testing.assert_allclose(place_of(again.ihc), aligned().matrix, atol=1e-9)


def test_naparis_own_transform_tool_is_an_alignment_too(case: Case) -> None:
    pairing = case.session.pair(*case.ids)
    pairing.set_arrangement("stacked")
    case.ihc.affine = aligned().matrix
    np.testing.assert_allclose(pairing.alignment.matrix, aligned().matrix, atol=1e-9)
    case.ihc.affine = np.diag((40.0, 40.0, 1.0))  # no section is 40 times as large as the other
    np.testing.assert_allclose(place_of(case.ihc), aligned().matrix, atol=1e-9)
    pairing.set_alignment(Alignment.identity())
    np.testing.assert_allclose(place_of(case.ihc), np.eye(3), atol=1e-9)


def test_the_slider_fades_the_upper_slide_with_its_overlays(case: Case) -> None:
    case.viewer.layers.move(0, 2)  # opened in the other order
    case.session.set_result(case.result, OverlayLook(opacity=0.5))
    pairing = case.session.pair(*case.ids)
    assert case.ihc.opacity == 1.0
    pairing.set_arrangement("stacked")
    layers = list(case.viewer.layers)
    lower = [layers.index(layer) for layer in (case.he, *companions(case.viewer, case.ids[0]))]
    upper = [layers.index(layer) for layer in (case.ihc, *companions(case.viewer, case.ids[1]))]
    assert max(lower) < min(upper)
    assert layers.index(case.ihc) == min(upper)
    pairing.set_fade(0.2)
    assert pairing.front == case.ids
    assert case.ihc.opacity == pytest.approx(0.2)
    assert case.overlay(1, "attention").opacity == pytest.approx(0.1)
    assert case.overlay(1, "top tiles").opacity == pytest.approx(0.2)
    assert case.overlay(1, "tiles").opacity == 0.0
    assert case.overlay(0, "attention").opacity == pytest.approx(0.5)
    pairing.set_fade(0.9)
    assert pairing.front == (case.ids[1], case.ids[0])
    case.session.set_result(case.result, OverlayLook(opacity=0.5))  # scored again
    assert case.overlay(1, "attention").opacity == pytest.approx(0.45)
    pairing.set_arrangement("side by side")
    assert case.overlay(1, "attention").opacity == pytest.approx(0.5)


def test_slides_without_a_size_are_no_pair(case: Case) -> None:
    unknown = make_slide(mpp=None, name="unknown")
    case.add(unknown)
    assert case.session.pair(case.ids[0], unknown.slide_id) is None
    assert case.session.pair(case.ids[0], case.ids[0]) is None
    assert case.session.pair(case.ids[0], "absent") is None
    assert case.session.pairing is None


def test_three_marks_on_each_slide_give_its_alignment(case: Case) -> None:
    pairing = case.session.pair(*case.ids)
    pairing.set_arrangement("stacked")
    marks = Landmarks(case.viewer, pairing)
    assert pairing.arrangement == "side by side"
    wanted = aligned()
    on_ihc = np.array([(20.0, 20.0), (30.0, 150.0), (150.0, 60.0)])
    on_he = np.clip(wanted.apply(on_ihc), 1, None)
    wanted = Alignment.from_points(on_ihc, on_he)
    assert not marks.add((-500.0, -500.0))  # beside both slides
    for he, ihc in zip(on_he, on_ihc, strict=True):
        assert marks.add(tuple(case.he.data_to_world(he / 0.5)))
        assert not marks.complete
        assert marks.add(tuple(case.ihc.data_to_world(ihc / 0.5)))
    assert marks.complete
    for layer in list(case.viewer.layers)[-2:]:
        assert list(layer.features["number"]) == [1, 2, 3]
        assert layer.text.values.tolist() == ["1", "2", "3"]
        assert (layer.size > 5).all()
    assert not marks.add(tuple(case.he.data_to_world((30, 30))))
    np.testing.assert_allclose(marks.alignment().matrix, wanted.matrix, atol=1e-6)
    assert [layer.name for layer in case.viewer.layers][-2:] == [
        "points to align by (H&E) · case-1",
        "points to align by (IHC) · case-1-ihc",
    ]
    marks.remove()
    assert len(case.viewer.layers) == 2


def test_marks_on_a_line_are_refused(case: Case) -> None:
    marks = Landmarks(case.viewer, case.session.pair(*case.ids))
    for at in (20, 120, 220):
        marks.add(tuple(case.he.data_to_world((at, at))))
        marks.add(tuple(case.ihc.data_to_world((at, 30 + (at == 120) * 150))))
    with pytest.raises(JobFailed, match="the H&E slide lie almost on one line"):
        marks.alignment()
    marks.clear()
    assert marks.counts == (0, 0)


def test_a_pair_goes_with_its_viewer(case: Case) -> None:
    case.session.set_result(case.result, OverlayLook())
    case.session.pair(*case.ids)
    seen = [weakref.ref(item) for item in (case.viewer, case.he_slide, case.ihc_slide)]
    vars(case).clear()
    gc.collect()
    assert [ref() for ref in seen] == [None, None, None]
