"""Tumour regions proposed on the IHC slide from the H&E slide of the case, through the dock."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
from shapely import affinity

from cell_results import CELL_METHOD
from napari_her2._napari.layers import OverlayLook
from napari_her2._napari.proposals import between_px0
from napari_her2._napari.region_kinds import PROPOSED, kinds_of
from napari_her2._napari.work import Equipment
from napari_her2.errors import Her2Error
from napari_her2.explain.maps import TileMap
from napari_her2.registration.affine import Alignment
from scored import HandSlide, make_result, make_slide

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Shapes
    from pytestqt.qtbot import QtBot

    from napari_her2._qt.scoring.dock import ScoringDock
    from napari_her2.inference.result import SlideResult
    from napari_her2.models.card import ModelCard

HE_PX, IHC_PX = (1000, 1500), (1200, 1600)
MPP = (0.5, 0.4)  # of the H&E and of the IHC slide
DISC_UM = (250.0, 375.0, 150.0)  # (y, x) and radius, from the upper left edge of the H&E slide


@pytest.fixture
def equipment(card: ModelCard) -> Equipment:
    cells = replace(card, name="rules", method=CELL_METHOD.name, stain="IHC")
    entries = [SimpleNamespace(name=of.name, path=None, card=of, origin="bundled") for of in (cells, card)]
    return Equipment(tuple(entries), (), "cpu")


def he_result(slide: HandSlide) -> SlideResult:
    """Attention that is high in a disc."""
    result = make_result(slide, tile_px=25)
    grid = result.grid
    y, x = (np.indices(grid.shape) + 0.5) * grid.tile_um
    inside = np.hypot(y - DISC_UM[0], x - DISC_UM[1]) < DISC_UM[2]
    values = np.where(inside, 1.0, 0.02)
    values = (values / values.sum()).astype(np.float32)
    old = result.map("attention")
    maps = tuple(
        TileMap(of.info, values, grid) if of is old else of for of in result.maps if of.kind != "corrupt"
    )
    return replace(result, slides=(replace(result.slides[0], maps=maps),))


def disc_on_ihc(alignment: Alignment) -> shapely.Polygon:
    """The disc in level-0 pixels of the IHC slide, point by point through µm."""
    ring = shapely.Point(DISC_UM[1], DISC_UM[0]).buffer(DISC_UM[2], 64).exterior
    on_he_um = shapely.get_coordinates(ring)[:, ::-1] - 0.5 * MPP[0]  # from the centre of the first pixel
    on_ihc_um = alignment.inverse().apply(on_he_um)
    return shapely.Polygon((on_ihc_um / MPP[1] + 0.5)[:, ::-1])


@pytest.fixture
def slides() -> tuple[HandSlide, HandSlide]:
    return (
        make_slide(HE_PX, name="case-1", mpp=(MPP[0],) * 2),
        make_slide(IHC_PX, name="case-1-ihc", mpp=(MPP[1],) * 2),
    )


@pytest.fixture
def dock(
    make_dock: Callable[[], ScoringDock],
    add_slide: Callable[[HandSlide], object],
    slides: tuple[HandSlide, HandSlide],
) -> ScoringDock:
    dock = make_dock()
    for slide in slides:
        add_slide(slide)
    dock.slides.choose(slides[1].slide_id)
    dock.models.combo.setCurrentIndex(0)
    return dock


def show_attention(dock: ScoringDock, slide: HandSlide) -> None:
    dock.session.set_result(he_result(slide), OverlayLook())


def aligned() -> Alignment:
    return Alignment.identity().turned(17, (200, 300)).shifted((-20.0, 35.0))


def proposal(dock: ScoringDock) -> Shapes:
    layer = dock.proposal.proposal
    assert layer is not None
    return layer


def test_it_is_there_once_the_other_slide_has_a_map(
    dock: ScoringDock, slides: tuple[HandSlide, HandSlide]
) -> None:
    panel = dock.proposal
    assert not panel.isVisibleTo(dock)
    show_attention(dock, slides[0])
    assert panel.isVisibleTo(dock)
    assert [panel.slide.itemText(at) for at in range(panel.slide.count())] == ["case-1"]
    titles = [panel.map.itemText(at) for at in range(panel.map.count())]
    assert titles[0] == "attention"
    assert "evidence for 3+" in titles
    dock.slides.choose(slides[0].slide_id)  # a slide proposes nothing to itself
    assert not panel.isVisibleTo(dock)
    dock.slides.choose(slides[1].slide_id)
    assert panel.isVisibleTo(dock)
    dock.models.combo.setCurrentIndex(dock.models.combo.findText("hand-model"))
    assert not panel.isVisibleTo(dock)


def test_slides_have_to_be_shown_together_first(
    dock: ScoringDock, slides: tuple[HandSlide, HandSlide]
) -> None:
    show_attention(dock, slides[0])
    panel = dock.proposal
    assert not panel.start.isEnabled()
    assert "align them first" in panel.words.text()
    panel.pair.click()
    assert dock.session.pairing.ids == tuple(slide.slide_id for slide in slides)
    assert dock.case.viewing.isVisibleTo(dock)  # where they are aligned
    assert panel.start.isEnabled()
    panel.start.click()
    assert "not aligned" in panel.words.text()


@pytest.mark.parametrize("swapped", [False, True])
def test_a_proposal_lies_where_the_alignment_says_and_counts_once_accepted(
    dock: ScoringDock, viewer: ViewerModel, slides: tuple[HandSlide, HandSlide], swapped: bool
) -> None:
    show_attention(dock, slides[0])
    ids = tuple(slide.slide_id for slide in slides)
    if swapped:
        dock.session.pair(*ids[::-1]).set_alignment(aligned().inverse())
    else:
        dock.session.pair(*ids).set_alignment(aligned())
    panel = dock.proposal
    panel.automatic.setChecked(True)
    panel.start.click()
    layer = proposal(dock)
    assert layer.name == "proposed tumour regions · case-1-ihc"
    assert dock.regions.layer_name == layer.name
    assert set(kinds_of(layer)) == {PROPOSED}
    assert "check them by eye" in panel.words.text()
    assert panel.words.text().startswith("1 region around")
    # Not before somebody accepts it.
    with pytest.raises(Her2Error, match="only proposed"):
        dock.regions.regions()
    dock.score()
    assert "only proposed" in dock.message.text.text()
    editor = dock.regions.editor
    assert editor.proposal.isVisibleTo(dock)
    assert "check them by eye" in editor.hint.text()
    editor.accept.click()
    (region,) = dock.regions.regions()
    assert (region.kind, region.included, region.name) == ("tumour", True, "tumour 1")
    assert dock.regions.layer_name == layer.name == "regions · case-1-ihc"
    assert not editor.proposal.isVisibleTo(dock)
    true = disc_on_ihc(aligned())
    both = region.area.intersection(true).area / region.area.union(true).area
    assert both > 0.95
    assert region.area.area == pytest.approx(true.area, rel=0.03)


def test_the_slider_changes_what_is_proposed_and_never_what_was_accepted(
    qtbot: QtBot, dock: ScoringDock, slides: tuple[HandSlide, HandSlide]
) -> None:
    result = he_result(slides[0])
    rising = TileMap(result.map("attention").info, result.map("attention").values, result.grid)
    y = np.arange(rising.values.shape[0], dtype=np.float32)[:, None]
    rising = replace(rising, values=np.repeat(y + 1, rising.values.shape[1], axis=1) / 1e4)
    maps = (rising,)
    result = replace(result, slides=(replace(result.slides[0], maps=maps),))
    dock.session.set_result(result, OverlayLook())
    panel = dock.proposal
    panel.pair.click()
    panel.automatic.setChecked(False)
    panel.share.setValue(30)
    panel.start.click()
    small = shapely.union_all([shapely.Polygon(of) for of in proposal(dock).data]).area
    panel.share.setValue(80)
    qtbot.waitUntil(
        lambda: shapely.union_all([shapely.Polygon(of) for of in proposal(dock).data]).area > 1.5 * small
    )
    assert len(dock.regions.combo) == 2  # the whole slide, and one proposal in place of the other
    dock.regions.editor.accept.click()
    accepted = dock.regions.layer
    before = [of.copy() for of in accepted.data]
    panel.share.setValue(10)
    qtbot.wait(250)
    assert dock.proposal.proposal is None
    for old, new in zip(before, accepted.data, strict=True):
        np.testing.assert_array_equal(old, new)
    panel.start.click()  # another one, beside what was accepted
    assert proposal(dock) is not accepted


def test_a_proposal_is_discarded_as_a_whole(
    dock: ScoringDock, viewer: ViewerModel, slides: tuple[HandSlide, HandSlide]
) -> None:
    show_attention(dock, slides[0])
    dock.proposal.pair.click()
    dock.proposal.start.click()
    layer = proposal(dock)
    dock.regions.editor.discard.click()
    assert layer not in viewer.layers
    assert dock.regions.layer_name == ""
    assert dock.regions.regions() is None


def test_a_proposal_beside_the_slide_is_refused_in_words(
    dock: ScoringDock, slides: tuple[HandSlide, HandSlide]
) -> None:
    show_attention(dock, slides[0])
    dock.proposal.pair.click()
    dock.session.pairing.set_alignment(Alignment.identity().shifted((5000.0, 0.0)))
    dock.proposal.start.click()
    assert "beside this slide" in dock.message.text.text()
    assert dock.proposal.proposal is None
    dock.session.pairing.set_alignment(Alignment.identity().shifted((-350.0, 0.0)))
    dock.proposal.start.click()
    assert "of their area lies beside this slide" in dock.proposal.words.text()


def test_pixels_of_two_slides_go_over_into_one_another() -> None:
    alignment, he_mpp, ihc_mpp = aligned(), (0.5, 0.25), (0.4, 0.8)
    points = np.array([(0.0, 0.0), (10.5, 700.25), (999.0, 3.0)])
    matrix = between_px0(alignment.matrix, he_mpp, ihc_mpp)
    by_hand = alignment.apply((points - 0.5) * he_mpp) / ihc_mpp + 0.5
    np.testing.assert_allclose(points @ matrix[:2, :2].T + matrix[:2, 2], by_hand, atol=1e-9)
    # As shapely has it, (x, y).
    swapped = [*matrix[:2, :2][::-1, ::-1].ravel(), matrix[1, 2], matrix[0, 2]]
    there = affinity.affine_transform(shapely.LineString(points[:, ::-1]), swapped)
    np.testing.assert_allclose(shapely.get_coordinates(there)[:, ::-1], by_hand, atol=1e-9)
