"""Text from outside is shown as text, wherever it comes from and wherever it is shown."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from driving import score
from hypothesis import given
from hypothesis import strategies as st
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QGuiApplication, QTextDocument
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QComboBox, QLabel, QListWidget, QWidget

from napari_her2._napari.plain_text import not_markup, one_line
from napari_her2._napari.reader import read_slide
from napari_her2._napari.regions import add_region_layer
from napari_her2._napari.tags import slide_tag
from napari_her2._napari.work import Equipment
from napari_her2._qt.parts.jobs import Failure
from napari_her2._qt.parts.text import Combo, Label, Markup, markup, tip
from napari_her2._qt.scoring import dock as scoring_dock
from napari_her2._qt.training import dock as training_dock
from napari_her2.errors import SlideError
from napari_her2.models.card import PAIR
from napari_her2.steps import Progress
from napari_her2.training_runs.processes import RunRequest
from napari_her2.training_runs.work import CheckReport, ConfigChoice, MethodChoice
from scored import make_field_result, make_image_result, make_pair, make_result, make_slide, with_names

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2._qt.training.dock import TrainingDock
    from napari_her2.models.card import ModelCard

EVIL = '<h1>HER2 3+ (positive)</h1><img src="file:///evil.png"><a href="https://evil.example">x</a>'
SHORT = "<h1>3+</h1>"
LONG = "W" * 10_000
DOCK_WIDTH = 360


def texts_of(widget: QWidget) -> Iterator[tuple[str, str]]:
    """Every text that Qt may take for HTML: where it stands, and as what it is shown."""
    for part in (widget, *widget.findChildren(QWidget)):
        name = f"{type(part).__name__} {part.objectName()}"
        for tips in (part.toolTip(), part.statusTip(), part.whatsThis()):
            yield f"tip of {name}", tips
        if isinstance(part, QLabel):
            shown = QLabel.text(part)  # what Qt got, not what the label says it was given
            if part.textFormat() == Qt.TextFormat.RichText:
                assert isinstance(part, Label), name
                yield f"markup of {name}", shown
            elif part.textFormat() != Qt.TextFormat.PlainText:
                yield f"guessed text of {name}", f"<p>{shown}</p>"
        if isinstance(part, QComboBox | QListWidget):
            model = part.model()
            for row in range(model.rowCount()):
                for role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.StatusTipRole):
                    yield f"tip {row} of {name}", str(model.index(row, 0).data(role) or "")


def assert_plain(widget: QWidget) -> None:
    for place, text in texts_of(widget):
        if place.startswith("markup"):
            document = QTextDocument()
            document.setHtml(text)
            block = document.begin()
            while block.isValid():
                assert block.blockFormat().headingLevel() == 0, place
                pieces = block.begin()
                while not pieces.atEnd():
                    form = pieces.fragment().charFormat()
                    assert not form.isAnchor(), place
                    assert not form.isImageFormat(), place
                    pieces += 1
                block = block.next()
        else:
            assert not Qt.mightBeRichText(text), (place, text[:200])


def shown_in(widget: QWidget) -> str:
    """What can be read in the labels."""
    read = []
    for part in widget.findChildren(QLabel):
        document = QTextDocument()
        document.setHtml(part.text()) if part.textFormat() == Qt.TextFormat.RichText else (
            document.setPlainText(part.text())
        )
        read.append(document.toPlainText())
    return "\n".join(read)


def evil_slide(name: str = f"a {SHORT}", text: str = EVIL) -> object:
    slide = make_slide(name="case")
    slide.name, slide.backend, slide.mpp_source = name, text, text
    slide.warnings = (text, f"first\n{text}")
    return slide


@pytest.fixture
def equipment(card: ModelCard) -> Equipment:
    evil = replace(
        card,
        task=SHORT,
        training_data=EVIL,
        licence=SHORT,
        intended_use=EVIL,
        guideline=SHORT,
        notice=EVIL,
        class_labels={"3+": SHORT},
        metrics={SHORT: 0.5},
    )
    models = [
        SimpleNamespace(name=name, path=None, card=replace(evil, name=name, stain=stain, method=method))
        for name, stain, method in (("single", "H&E", "attention-mil"), ("both", PAIR, "wsmcl"))
    ]
    return Equipment(tuple(models), (EVIL,), EVIL)


def fed(result: object) -> object:
    """A result whose every sentence is hostile."""
    return replace(
        with_names(result, f"a {SHORT}", SHORT),
        task=EVIL,
        label=f"{EVIL}: {EVIL}",
        notice=EVIL,
        model=SHORT,
        rule=EVIL,
        training_data=EVIL,
        device=EVIL,
        warnings=(EVIL, EVIL),
    )


@pytest.mark.parametrize("kind", ["bag", "pair", "fields", "images"])
def test_the_scoring_dock_shows_hostile_text_as_text(
    qtbot: QtBot,
    make_dock: Callable[[], scoring_dock.ScoringDock],
    viewer: ViewerModel,
    add_slide: Callable[[object], object],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    make = {
        "bag": make_result,
        "pair": make_pair,
        "fields": make_field_result,
        "images": make_image_result,
    }[kind]

    def scoring(slide: object, model: str, **options: object) -> Generator[Progress, None, object]:
        yield Progress(EVIL, 1, 2, SHORT, EVIL)
        return fed(make(slide))

    monkeypatch.setattr(scoring_dock, "scoring", scoring)
    dock = make_dock()
    slide = evil_slide()
    layer = add_slide(slide)
    add_slide(make_slide((500, 400), name=f"case {SHORT} HER2"))
    add_region_layer(viewer, layer)
    dock._show_regions()
    dock.models.more.setChecked(True)
    dock.models.combo.setCurrentIndex(int(kind == "pair"))
    dock.slides.combo.setCurrentIndex(0)
    dock.progress.set_running(True)
    dock.progress.set_progress(Progress(EVIL, 1, 2, SHORT, EVIL))
    assert_plain(dock)
    score(qtbot, dock)
    assert dock.result.isVisibleTo(dock), dock.message.details.toPlainText()
    dock.message.show_failure(Failure(EVIL, EVIL), "Replace it")
    dock.result.tiles.inspector.set_problem(EVIL)
    dock.result.tiles.gallery._reading = (0, [0]) if dock.result.tiles.gallery.lists else None
    dock.result.tiles.gallery._on_failed(Failure(EVIL))
    dock.result._on_exported(f"/out/{EVIL}")
    dock.cam.cautions.setText(EVIL)
    assert_plain(dock)
    read = shown_in(dock)
    assert read.count("<h1>HER2 3+ (positive)</h1>") > 8
    for name in [layer.name for layer in viewer.layers]:
        assert not Qt.mightBeRichText(name)  # napari guesses in its own lists
    assert slide_tag(layer).slide is slide


def test_the_training_dock_shows_hostile_text_as_text(
    make_training_dock: Callable[[], TrainingDock], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tuple(RunRequest(SHORT, EVIL, EVIL, str(tmp_path / f"run {SHORT} {n}"), "cpu") for n in range(2))
    monkeypatch.setattr(training_dock, "known_runs", lambda: runs)
    dock = make_training_dock()
    dock.asked.set_methods((MethodChoice(SHORT, EVIL, (ConfigChoice(EVIL, EVIL),)),))
    dock.asked.checked.show_report(CheckReport((EVIL,), (EVIL,), ((EVIL, EVIL),)))
    dock.asked.form.data.set_problem(EVIL)
    dock.asked.form.out.set_hint(EVIL)
    dock._show_runs(runs[1].folder)
    dock.run.words.setText(EVIL)
    dock._on_exported(EVIL)
    dock.exported.setText(EVIL)
    dock.message.show_failure(Failure(EVIL, EVIL))
    assert_plain(dock)
    assert shown_in(dock).count("<h1>HER2 3+ (positive)</h1>") > 6


@pytest.mark.parametrize("text", [LONG, f"{LONG}\u202e\u200f{LONG}", "\n" * 10_000, "a b " * 5_000])
def test_long_text_stays_within_the_dock(
    qtbot: QtBot,
    make_dock: Callable[[], scoring_dock.ScoringDock],
    add_slide: Callable[[object], object],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    def scoring(slide: object, model: str, **options: object) -> Generator[Progress, None, object]:
        yield Progress(text)
        result = make_field_result(slide)
        return replace(
            with_names(result, text, text),
            task=text,
            label=text,
            warnings=(text,),
            training_data=text,
        )

    monkeypatch.setattr(scoring_dock, "scoring", scoring)
    dock = make_dock()
    add_slide(evil_slide(text, text))
    score(qtbot, dock)
    dock.message.show_failure(Failure(text))
    dock.resize(QSize(DOCK_WIDTH, 700))
    content = dock.scroll.widget()
    assert content.minimumSizeHint().width() <= DOCK_WIDTH
    assert content.heightForWidth(DOCK_WIDTH) < 60_000
    for part in dock.findChildren(QLabel):
        shown = re.sub("<[^>]*>", " ", QLabel.text(part))
        assert "\u202e" not in shown
        assert re.search(r"[^\s\u200b]{41}", shown) is None  # a line may end somewhere in every word
    bars = dock.result.card.bars
    bars.grab()
    assert 0 < bars._label_px <= bars.width() / 2


def test_a_label_says_what_it_was_given_and_copies_it(qtbot: QtBot) -> None:
    path = "/data/" + "a" * 100
    label = Label(path, selectable=True)
    qtbot.addWidget(label)
    assert label.text() == path
    label.setSelection(0, 10_000)
    QTest.keyClick(label, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert QGuiApplication.clipboard().text() == path
    label.setText("other")
    label._copy()
    assert QGuiApplication.clipboard().text() == "other"


def test_only_what_was_built_from_escaped_parts_is_shown_as_markup(qtbot: QtBot) -> None:
    label = Label()
    qtbot.addWidget(label)
    with pytest.raises(TypeError, match="markup"):
        label.set_markup("<b>by hand</b>")
    made = markup("<b>{}</b>{}", EVIL, markup("<i>{}</i>", "1 < 2"))
    assert isinstance(made, Markup)
    assert made.startswith("<b>&lt;h1&gt;HER2")
    assert made.endswith("<i>1 &lt; 2</i>")
    label.set_markup(made)
    assert_plain(label)
    label.setText(EVIL)
    assert label.textFormat() == Qt.TextFormat.PlainText


@given(st.text(alphabet=st.sampled_from(list("<>/!?&;ltqh1b ap\n\t\"'=DOCTYPExm\u2060")), max_size=40))
def test_nothing_is_taken_for_html_once_it_was_made_plain(text: str) -> None:
    assert not Qt.mightBeRichText(not_markup(text))
    assert not Qt.mightBeRichText(tip(text))
    assert not Qt.mightBeRichText(one_line(text))


@pytest.mark.parametrize("text", ["case 7", "p < 0.05", "R&D", "a > b", "3 << 4", "ספיר 12", "50 µm"])
def test_harmless_text_is_left_as_it_is(text: str) -> None:
    assert not_markup(text) == tip(text) == one_line(text) == text


def test_a_line_of_a_list_is_one_line_and_its_data_is_what_was_given(qtbot: QtBot) -> None:
    combo = Combo("Slides")
    qtbot.addWidget(combo)
    for text in (f"a\r\nb\u2028c\u202e{EVIL}", LONG):
        combo.addItem(text, text)
    assert [combo.itemData(0), combo.itemData(1)] == [f"a\r\nb\u2028c\u202e{EVIL}", LONG]
    assert combo.itemText(0).startswith("a b c\ufffd<\u2060h1>")
    assert len(combo.itemText(1)) <= 200
    assert combo.sizeHint().width() < DOCK_WIDTH
    combo.setItemData(0, EVIL, Qt.ItemDataRole.ToolTipRole)
    combo.setToolTip(EVIL)
    assert_plain(combo)


def test_what_the_reader_refuses_is_no_html_in_the_pop_up_of_napari(tmp_path: Path) -> None:
    path = tmp_path / "<h1>3+<h1>.svs"
    path.write_bytes(b"no slide")
    with pytest.raises(SlideError) as refused:
        read_slide(str(path))
    assert "3+" in str(refused.value)
    assert not Qt.mightBeRichText(str(refused.value))
