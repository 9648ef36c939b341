"""The score follows the regions: newest wish first, the last state always, and both sides once it rests."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from driving import score, with_tissue
from qtpy.QtWidgets import QScrollArea

from napari_her2._napari.following import Followed
from napari_her2._napari.region_kinds import set_kind, set_name
from napari_her2._qt.scoring import dock as scoring_dock
from napari_her2._qt.scoring import region_follower
from napari_her2._qt.scoring.region_tools import WAND
from napari_her2._qt.scoring.side_answers import SideAnswers
from napari_her2.errors import Her2Error
from napari_her2.inference.kept_scoring import NotComputed
from napari_her2.inference.sides import Side, Sides
from napari_her2.steps import Progress
from scored import make_result, make_slide

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Shapes

SQUARE = np.array([(50.0, 50), (50, 300), (300, 300), (300, 50)])


class Answers:
    """What was asked for, and answers that say of how many regions they are; they may be held back."""

    def __init__(self, slide: object) -> None:
        self.slide, self.asked, self.smooth = slide, [], ()
        self.free = threading.Event()
        self.free.set()

    def answering(self, kept: object, regions: object, demands: object, **how: bool) -> object:
        yield Progress("Following the regions")
        self.asked.append((regions, how["exact"]))
        self.free.wait(60)
        count = 0 if regions is None else len(regions)
        result = with_tissue(replace(make_result(self.slide), regions=f"{count} drawn regions"))
        side = Side(result.label, "", len(result.table), "tiles", 0.1)
        exact = how["exact"] and regions is not None
        return Followed(result, Sides(side, replace(side, answer="withheld")) if exact else None)


@pytest.fixture
def answers(make_dock, add_slide, qtbot, monkeypatch) -> tuple[object, Answers]:
    slide = make_slide()
    found = Answers(slide)

    def scoring(slide: object, model: str, **options: object) -> object:
        yield Progress("Embedding tiles", 10, 96, "tiles")
        card = SimpleNamespace(name="hand-model")
        kept = SimpleNamespace(
            slide_ids=(slide.slide_id,), terms=SimpleNamespace(card=card), smooth=found.smooth
        )
        options["kept"].append(kept)
        return with_tissue(make_result(slide))

    monkeypatch.setattr(scoring_dock, "scoring", scoring)
    monkeypatch.setattr(region_follower, "answering", found.answering)
    monkeypatch.setattr(region_follower, "REST_MS", 50)
    add_slide(slide)
    dock = make_dock()
    score(qtbot, dock)
    return dock, found


def settled(dock: object) -> bool:
    follower = dock.follower
    return not (follower.job.running or follower._wanted or follower._rest.isActive())


def drawn(dock: object) -> Shapes:
    dock.regions.add_layer()
    layer = dock.regions.layer
    layer.add(SQUARE, shape_type="polygon")
    return layer


def test_the_answer_is_that_of_the_last_state(answers, qtbot) -> None:
    dock, found = answers
    layer = drawn(dock)
    layer.add(SQUARE + 20, shape_type="polygon")
    qtbot.waitUntil(lambda: settled(dock) and bool(found.asked))
    assert len(found.asked[-1][0]) == 2
    assert found.asked[-1][1]  # exact, once nothing moves any more
    assert dock.session.result(dock.slides.slide_id).regions == "2 drawn regions"


def test_no_queue_builds_up_and_the_newest_wish_wins(answers, qtbot) -> None:
    dock, found = answers
    layer = drawn(dock)
    qtbot.waitUntil(lambda: settled(dock) and bool(found.asked))
    found.free.clear()
    before = len(found.asked)
    for number in range(40):
        layer.data = [SQUARE + number]
    qtbot.waitUntil(lambda: len(found.asked) == before + 1)
    qtbot.wait(50)
    assert len(found.asked) == before + 1  # one is being made, and the others wait as one wish
    found.free.set()
    qtbot.waitUntil(lambda: settled(dock))
    assert len(found.asked) <= before + 3
    assert found.asked[-1][0][0].polygon.bounds[0] == pytest.approx(50 + 39 + 0.5)


def test_kind_and_name_count_too(answers, qtbot) -> None:
    dock, found = answers
    layer = drawn(dock)
    layer.add(SQUARE / 2, shape_type="polygon")
    qtbot.waitUntil(lambda: settled(dock) and bool(found.asked))
    set_kind(layer, "necrosis", chosen=[1])
    qtbot.waitUntil(lambda: settled(dock))
    assert [of.kind for of in found.asked[-1][0]] == ["tumour", "necrosis"]
    set_name(layer, "the main one", [0])
    qtbot.waitUntil(lambda: settled(dock) and found.asked[-1][0][0].name == "the main one")


def test_both_sides_stand_beside_each_other(answers, qtbot) -> None:
    dock, _ = answers
    sides = dock.regions.sides
    assert sides.table.isHidden()
    drawn(dock)
    qtbot.waitUntil(lambda: not sides.table.isHidden())
    (inside, amount), (outside, _) = sides.rows
    assert inside.text() == "2+ (equivocal, ISH required)"
    assert outside.text() == "withheld"
    assert amount.text() == "96 tiles · 0.10 mm²"
    dock.regions.combo.setCurrentIndex(0)  # the whole slide has no sides
    qtbot.waitUntil(sides.table.isHidden)


def test_an_answer_of_several_lines_covers_nothing(qtbot) -> None:
    answers, dock = SideAnswers(), QScrollArea()
    dock.setWidgetResizable(True)
    dock.setWidget(answers)
    qtbot.addWidget(dock)
    dock.resize(310, 80)
    dock.show()
    long = "indeterminate: only 72 tiles of tissue on the IHC slide of this case, at least 100 are needed"
    sides = Sides(Side(long, "", 72, "tiles", 0.1), Side("1+ or 2+ (prediction)", "", 115, "tiles", 0.25))
    answers.set_note("For these regions maps are of tiles side by side: press Score for smoother ones.")
    answers.set_sides(sides)
    (inside, amount), _ = answers.rows

    def apart() -> bool:
        whole = inside.height() >= inside.heightForWidth(inside.width())
        return whole and not inside.geometry().intersects(amount.geometry())

    qtbot.waitUntil(apart)
    assert inside.heightForWidth(inside.width()) > 1.5 * inside.fontMetrics().lineSpacing()
    dock.resize(220, 80)  # the dock is made narrower
    qtbot.waitUntil(lambda: inside.width() < 200 and apart())


def test_smoother_maps_that_do_not_hold_for_the_regions_are_missed_in_words(answers, qtbot) -> None:
    dock, found = answers
    found.smooth = (("a smoother map",),)
    score(qtbot, dock)
    drawn(dock)
    note = dock.regions.sides.note
    qtbot.waitUntil(lambda: settled(dock) and bool(found.asked) and found.asked[-1][1])
    assert note.text() == "For these regions maps are of tiles side by side: press Score for smoother ones."
    assert not note.isHidden()
    found.smooth = ()
    score(qtbot, dock)  # without them there is nothing to miss
    dock.regions.layer.add(SQUARE + 20, shape_type="polygon")
    qtbot.waitUntil(lambda: settled(dock) and len(found.asked[-1][0]) == 2)
    assert note.text() == ""


def test_a_layer_without_regions_says_so_and_keeps_the_answer(answers, qtbot) -> None:
    dock, found = answers
    dock.regions.add_layer()
    qtbot.waitUntil(lambda: settled(dock))
    assert "holds no closed region" in dock.regions.sides.note.text()
    assert not found.asked


def test_a_failure_is_a_sentence_beside_the_regions(answers, qtbot, monkeypatch) -> None:
    dock, _ = answers

    def refusing(*args: object, **how: object) -> object:
        yield Progress("Following the regions")
        raise NotComputed(
            "3 of the 9 tiles in the regions were not computed yet: press Score to compute them."
        )

    monkeypatch.setattr(region_follower, "answering", refusing)
    drawn(dock)
    qtbot.waitUntil(lambda: "press Score" in dock.regions.sides.note.text())


@pytest.fixture
def brought_back(answers, qtbot, monkeypatch):
    """A dock with a result that came back from the desk: nothing of its scoring is kept."""
    dock, found = answers
    found.rebuilt = []
    scored = dock.session.result(dock.slides.slide_id)
    slides = tuple(SimpleNamespace(fingerprint=of.fingerprint) for of in scored.slides)
    result = replace(scored, asked=SimpleNamespace(slides=slides, regions=None))
    dock.follower.keep_only([])
    dock.session.refresh_result(result)

    def rebuilding(result: object, slides: list[object], regions: object, demands: object) -> object:
        found.rebuilt.append([of.slide_id for of in slides])
        if found.refusal:
            yield Progress("Looking")
            raise NotComputed(found.refusal)
        followed = yield from found.answering(None, regions, demands, exact=False)
        card = SimpleNamespace(name=result.model)
        kept = SimpleNamespace(
            slide_ids=(result.slide_id,), terms=SimpleNamespace(card=card), smooth=found.smooth
        )
        return replace(followed, rebuilt=kept)

    found.refusal = ""
    monkeypatch.setattr(region_follower, "rebuilding", rebuilding)
    return dock, found


def test_a_result_that_came_back_follows_from_the_first_region_on(brought_back, qtbot) -> None:
    dock, found = brought_back
    layer = drawn(dock)
    qtbot.waitUntil(lambda: settled(dock) and bool(found.asked) and found.asked[-1][1])
    layer.add(SQUARE + 20, shape_type="polygon")
    qtbot.waitUntil(lambda: settled(dock) and len(found.asked[-1][0]) == 2)
    assert found.rebuilt == [[dock.slides.slide_id]]  # once, in the background
    assert dock.session.result(dock.slides.slide_id).regions == "2 drawn regions"


def test_where_the_features_are_gone_it_says_once_that_score_is_needed(brought_back, qtbot) -> None:
    dock, found = brought_back
    found.refusal = "9 of 9 tiles are not kept on disk: press Score to compute them."
    layer = drawn(dock)
    note = dock.regions.sides.note
    qtbot.waitUntil(lambda: settled(dock) and note.text() == found.refusal)
    layer.add(SQUARE + 20, shape_type="polygon")
    qtbot.waitUntil(lambda: settled(dock))
    assert len(found.rebuilt) == 1
    assert note.text() == found.refusal
    assert not found.asked


def states_of(layer: Shapes) -> list[object]:
    kinds, names = (list(map(str, layer.features[of])) for of in ("kind", "name"))
    return [[of.tolist() for of in layer.data], list(map(str, layer.shape_type)), kinds, names]


def test_undo_and_redo_are_exact(answers) -> None:
    dock, _ = answers
    dock.regions.add_layer()
    layer, tools = dock.regions.layer, dock.regions.tools
    steps: list[Callable[[], object]] = [
        lambda: layer.add(SQUARE, shape_type="polygon"),
        lambda: layer.add(SQUARE[[0, 2]] / 3, shape_type="rectangle"),
        lambda: set_kind(layer, "dcis", chosen=[0]),
        lambda: set_name(layer, "left", [1]),
        lambda: layer.remove([0]),
    ]
    seen = [states_of(layer)]
    for step in steps:
        step()
        seen.append(states_of(layer))
    assert not tools.redo.isEnabled()
    for wanted in reversed(seen[:-1]):
        tools.undo.click()
        assert states_of(layer) == wanted
    assert not tools.undo.isEnabled()
    for wanted in seen[1:]:
        tools.redo.click()
        assert states_of(layer) == wanted
    tools.undo.click()
    layer.add(SQUARE * 1.1, shape_type="polygon")
    assert not tools.redo.isEnabled()  # what was taken back is gone
    (undo,) = (of for key, of in layer.keymap.items() if str(key) == "Ctrl+Z")
    undo(layer)
    assert states_of(layer) == seen[-2]


def test_the_wand_takes_the_tissue_under_a_click(answers, qtbot) -> None:
    dock, _ = answers
    dock.regions.add_layer()
    layer, tools = dock.regions.layer, dock.regions.tools
    tools.buttons[WAND].click()
    assert tools.wand_in_hand
    assert str(layer.mode) == "pan_zoom"
    tissue = SimpleNamespace()
    mask = np.zeros((50, 75), bool)
    mask[10:20, 10:30] = mask[30:40, 40:50] = True
    mask[14:16, 14:16] = False
    from napari_her2.slide.tissue import TissueMask

    tissue = TissueMask(mask, (8.0, 8.0))
    slide = dock.session.slide_of(dock.slides.slide_id)
    slide.tissue = lambda preset: tissue
    tools.wand_used.emit(17 * 8 * 0.5, 20 * 8 * 0.5)  # µm of the world
    qtbot.waitUntil(lambda: layer.nshapes == 1)
    (region,) = dock.regions.regions()
    assert region.area.bounds == pytest.approx((80, 80, 240, 160))
    assert region.area.area == pytest.approx(64 * (200 - 4))
    tools.buttons["add_polygon_lasso"].click()
    assert not tools.wand_in_hand
    assert str(layer.mode) == "add_polygon_lasso"


@pytest.mark.parametrize("goes", ["the layer", "the slide"])
def test_regions_that_go_are_asked_for_once(answers, goes, qtbot) -> None:
    """Asking for them tells that they are gone, which must not ask for them again and again."""
    dock, _ = answers
    layer = drawn(dock)
    qtbot.waitUntil(lambda: settled(dock))
    viewer = dock.session.viewer
    viewer.layers.remove(layer if goes == "the layer" else dock.session.slide_layers()[0])
    if goes == "the layer":
        with pytest.raises(Her2Error, match="is gone"):
            dock.regions.regions()
    dock.follower.wish()
    qtbot.waitUntil(lambda: settled(dock))
