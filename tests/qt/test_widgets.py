from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from driving import with_tissue

from napari_her2._napari.colormaps import score_hex
from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.session import Session
from napari_her2._qt.parts.progress_row import RateMeter, time_left
from napari_her2._qt.parts.theme import Colours
from napari_her2._qt.scoring.manual_score import ManualScoreForm
from napari_her2._qt.scoring.overlay_controls import OverlayControls
from napari_her2._qt.scoring.probability_bars import ProbabilityBars
from napari_her2._qt.scoring.result_card import ResultCard
from napari_her2._qt.scoring.tile_panel import TilePanel
from napari_her2.desk.own_score import ManualScore
from napari_her2.models.card import NOTICE
from napari_her2.steps import Progress
from scored import make_field_result, make_result, make_slide, without_attention

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2.inference.result import SlideResult


def test_rate_and_time_left_come_from_the_latest_reports_of_a_stage() -> None:
    meter = RateMeter()
    assert meter.update(Progress("Embedding", 0, 1000, "tiles"), 0.0) is None
    assert meter.update(Progress("Embedding", 100, 1000, "tiles"), 2.0) == pytest.approx((50, 18))
    # Ten seconds later the slow start no longer counts.
    meter.update(Progress("Embedding", 200, 1000, "tiles"), 11.0)
    rate, left = meter.update(Progress("Embedding", 600, 1000, "tiles"), 15.0)
    assert rate == pytest.approx(100)
    assert left == pytest.approx(4)
    assert meter.update(Progress("Scoring", 1, 2), 16.0) is None


def test_a_rate_is_not_told_of_an_unknown_total() -> None:
    meter = RateMeter()
    meter.update(Progress("Working", 0), 0.0)
    assert meter.update(Progress("Working", 50), 5.0) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1, "0 s"), (8.4, "8 s"), (179, "3 min"), (4800, "1 h 20 min")]
)
def test_time_left_in_words(seconds: float, words: str) -> None:
    assert time_left(seconds) == words


def test_the_bar_of_the_top_class_is_as_long_as_its_probability(qtbot: QtBot) -> None:
    bars = ProbabilityBars()
    qtbot.addWidget(bars)
    colours = Colours(track="#000000", bar="#00ff00", top_bar="#ff0000", text="#ffffff")
    bars.set_colours(colours)
    bars.set_values({"0": 0.25, "3+": 0.75})
    bars.resize(300, bars.sizeHint().height())
    image = bars.grab().toImage()
    scale = image.width() / 300
    rows = [int((row + 0.5) * image.height() / 2) for row in range(2)]
    track = (300 - 44 - 54) * scale
    for row, colour, share in ((rows[0], "#00ff00", 0.25), (rows[1], "#ff0000", 0.75)):
        painted = sum(image.pixelColor(x, row).name() == colour for x in range(image.width()))
        assert painted == pytest.approx(track * share, abs=4)


@pytest.mark.parametrize(
    ("answer", "red"), [(None, {1}), (["0"], {0}), (["3+"], {1}), (["0", "3+"], {0, 1}), ([], set())]
)
def test_the_bars_of_the_answer_stand_out_also_where_another_is_longer(
    qtbot: QtBot, answer: list[str] | None, red: set[int]
) -> None:
    bars = ProbabilityBars()
    qtbot.addWidget(bars)
    bars.set_colours(Colours(track="#000000", bar="#00ff00", top_bar="#ff0000", text="#ffffff"))
    bars.set_values({"0": 0.25, "3+": 0.75}, answer=answer)
    bars.resize(300, bars.sizeHint().height())
    image = bars.grab().toImage()
    for row in range(2):
        y = int((row + 0.5) * image.height() / 2)
        painted = {image.pixelColor(x, y).name() for x in range(image.width())}
        assert ("#ff0000" in painted) == (row in red)


def test_a_form_shows_a_value_without_reporting_it(qtbot: QtBot) -> None:
    form = ManualScoreForm()
    qtbot.addWidget(form)
    value = ManualScore("0, with membrane staining", "", "seen twice")
    with qtbot.assertNotEmitted(form.changed):
        form.set_value(value)
    assert form.value() == value
    assert form.category.text() == "HER2-ultralow"


def test_a_result_says_what_its_model_was_trained_on_and_warns_of(qtbot: QtBot) -> None:
    card = ResultCard()
    qtbot.addWidget(card)
    own = "Its answers on real slides mean nothing."
    card.set_result(replace(make_result(), training_data="synthetic tissue", notice=f"{NOTICE} {own}"))
    assert card.notice.text() == own
    assert "Trained on: synthetic tissue" in card.facts.text()
    card.set_result(replace(make_result(), notice=NOTICE))
    assert not card.notice.isVisibleTo(card)
    assert "Trained on: not stated" in card.facts.text()


def test_a_result_made_of_tiles_tells_its_rule_and_how_far_the_tiles_are_trusted(qtbot: QtBot) -> None:
    card = ResultCard()
    qtbot.addWidget(card)
    card.set_result(make_field_result())
    facts = card.facts.text()
    assert "Score of the slide: mean of the probabilities of all tiles, weighted by" in facts
    assert "20 % high (from 0.9), 30 % medium (from 0.75), 50 % low" in facts
    assert "learnt, not a probability of being right" in facts
    reason = "the model trusts its scores of the tiles too little (0.31 on average)"
    label = f"indeterminate: {reason}"
    card.set_result(replace(make_field_result(), label=label, abstained=True, reason=reason))
    assert card.label.text() == "indeterminate"
    assert card.reason.text() == reason
    card.set_result(make_result())
    assert "Confidence in the tiles" not in card.facts.text()
    assert "Score of the slide" not in card.facts.text()


def show_controls(controls: OverlayControls, result: SlideResult) -> None:
    controls.set_overlays(result.overlays, OverlayLook(), result.score, result.named)


def test_the_controls_of_tile_scores_are_there_only_for_models_that_score_tiles(qtbot: QtBot) -> None:
    controls = OverlayControls()
    qtbot.addWidget(controls)
    show_controls(controls, make_field_result())
    assert controls.boxes["score"].isVisibleTo(controls)
    assert controls.boxes["attention"].text() == "Weight in the score"
    assert "evidence" not in controls.boxes
    for word in ("1+", score_hex(4)[1]):
        assert word in controls.legends["score"].text()
    show_controls(controls, make_result())
    assert not {"score", "confidence"} & set(controls.boxes)
    assert not controls.legends
    assert controls.boxes["attention"].text() == "Attention"
    assert controls.classes["evidence"].currentData() == "2+"  # the predicted one
    for chooser in (*controls.classes.values(), *controls.scales.values()):
        assert chooser.accessibleName()
        assert chooser.focusPolicy() != chooser.focusPolicy().NoFocus
    assert [controls.scales["attention"].itemData(at) for at in range(2)] == ["percentile", "raw"]


def test_controls_of_a_method_without_attention_show_what_it_has(qtbot: QtBot) -> None:
    controls = OverlayControls()
    qtbot.addWidget(controls)
    show_controls(controls, with_tissue(without_attention(make_field_result())))
    assert set(controls.boxes) == {"score", "tissue"}
    assert not controls.scales


def test_the_tile_panel_offers_no_gallery_without_attention(qtbot: QtBot, viewer: ViewerModel) -> None:
    slide = make_slide()
    session = Session(viewer)
    panel = TilePanel(session)
    qtbot.addWidget(panel)
    data, options, _ = slide_layer(slide)
    viewer.add_image(data, **options)
    panel.show_result(make_result(slide))
    assert panel.gallery.strips
    assert not panel.most_and_least.isHidden()
    panel.show_result(without_attention(make_result(slide)))
    assert panel.gallery.strips == []
    assert panel.most_and_least.isHidden()
    assert panel.first_tile is None
    assert panel.inspector.next.text() == "Next ▶"
    panel.shutdown()
