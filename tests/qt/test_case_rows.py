"""The answer of a case with several open slides stands below those of the models for the slide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_her2._napari.layers import OverlayLook
from napari_her2._napari.model_rows import cases_of
from napari_her2._napari.session import session_of
from napari_her2._qt.scoring.model_table import ModelTable, case_in_words
from napari_her2.inference.case_table import listed_case
from napari_her2.inference.result import CaseOf
from napari_her2.reports.of_result import Desk, report_steps
from napari_her2.steps import finished
from scored import make_result, make_slide, with_doubt

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2.inference.result import SlideResult

ONE = {"0": 0.1, "1+": 0.1, "2+": 0.7, "3+": 0.1}
OTHER = {"0": 0.0, "1+": 0.0, "2+": 0.6, "3+": 0.4}
POSITIVE = {"0": 0.0, "1+": 0.0, "2+": 0.2, "3+": 0.8}
OF = CaseOf("7", 2, "joined answers")


def of_slide(slide: object, probabilities: dict[str, float], verdict: str = "familiar") -> SlideResult:
    score = max(probabilities, key=lambda name: probabilities[name])
    result = replace(make_result(slide), probabilities=probabilities, score=score, case=OF)  # type: ignore[arg-type]
    return with_doubt(result, verdict)


def words_of(table: ModelTable) -> str:
    """What the row of the case says where the mouse rests."""
    return " ".join(table.table.item(1, 0).toolTip().replace("\u2060", "").split())


def test_two_open_slides_of_a_case_have_its_answer_in_the_table(
    qtbot: QtBot, viewer: ViewerModel, add_slide: Callable[..., object]
) -> None:
    slides = [make_slide(name=name) for name in ("a", "b")]
    for slide in slides:
        add_slide(slide)
    session = session_of(viewer)
    table = ModelTable(session)
    qtbot.addWidget(table)
    session.set_result(of_slide(slides[0], ONE), OverlayLook())
    table.show_slide(slides[0].slide_id)
    # Half of a case has no answer.
    assert table.count == 2
    assert table.table.item(1, 1).text().strip("\u2060 ") == "indeterminate"
    assert "1 of 2 slides of the case has no result" in words_of(table)
    session.set_result(of_slide(slides[1], OTHER), OverlayLook())
    (case,) = cases_of(session, slides[0].slide_id)
    by_hand = np.mean([list(ONE.values()), list(OTHER.values())], axis=0)
    assert list(case.probabilities.values()) == pytest.approx(by_hand)
    row = [table.table.item(1, column).text().replace("\u2060", "") for column in range(4)]
    assert row[0].strip() == "Σ case 7"
    assert "Case 7, hand-model" in words_of(table)
    assert row[1] == case.label == "2+ (equivocal, ISH required)"
    assert row[3] == "2 slides"
    words = case_in_words(case)
    assert "H&E-based prediction of the HER2 IHC score" in words
    assert "a.svs: 2+" in words
    assert "b.svs: " in words
    # It leads to no overlay of its own.
    table.table.setCurrentCell(1, 0)
    assert not table.show_result.isEnabled()
    table.table.setCurrentCell(0, 0)
    assert table.show_result.isEnabled()
    page = finished(report_steps(session.results[0], {}, Desk(case=case)))
    (of_case,) = page.wide
    assert of_case.title == f"Case 7: {case.label}"
    assert [line[0] for line in of_case.rows] == ["a.svs", "b.svs"]
    assert page.answer is not None
    assert any("Case 7" in line and case.label in line for line in page.answer.lines)
    table.shutdown()


def test_a_withheld_slide_withholds_the_answer_of_its_case(
    viewer: ViewerModel, add_slide: Callable[..., object]
) -> None:
    slides = [make_slide(name=name) for name in ("a", "b")]
    session = session_of(viewer)
    for slide, given, verdict in zip(slides, (ONE, POSITIVE), ("familiar", "unlike"), strict=True):
        add_slide(slide)
        session.set_result(of_slide(slide, given, verdict), OverlayLook())
    (case,) = cases_of(session, slides[0].slide_id)
    assert case.withheld
    assert not case.probabilities
    assert "3+" not in case_in_words(case)


def test_the_manifest_beside_a_slide_names_its_case(tmp_path: Path) -> None:
    for name in ("a.svs", "b.svs", "c.svs", "i.svs"):
        (tmp_path / name).touch()
    rows = ["case_id,he,ihc,score", "7,a.svs,i.svs,2+", "7,b.svs,i.svs,2+", "8,c.svs,,0"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    assert listed_case(tmp_path / "a.svs") == ("7", 2)
    assert listed_case(tmp_path / "i.svs") == ("7", 1)
    assert listed_case(tmp_path / "c.svs") == ("8", 1)
    assert listed_case(tmp_path / "d.svs") is None
    assert listed_case(Path("/nowhere/a.svs")) is None
