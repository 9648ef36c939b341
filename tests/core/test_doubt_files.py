"""Doubt in files and tables: what they hold of it, and that they hold nothing of a withheld answer."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_her2._napari.work import exporting
from napari_her2.cohort.facts import scored_facts
from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.cohort.table import write_score_table
from napari_her2.desk.own_score import ManualScore, category_beside
from napari_her2.errors import JobFailed
from napari_her2.explain.unfamiliar import unfamiliar_map
from napari_her2.export.request import Request
from napari_her2.export.result_files import finished_result
from napari_her2.export.tables import result_values, write_result
from napari_her2.inference.doubt import NO_DOUBT_KNOWN, Spread
from napari_her2.inference.presentation import trust_line
from napari_her2.models.answer_sets import AnswerSet
from napari_her2.steps import finished
from scored import (
    make_field_result,
    make_image_result,
    make_pair,
    make_result,
    make_slide,
    with_doubt,
)

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.inference.result import SlideResult

MAKERS = (make_result, make_pair, make_field_result, make_image_result)
KEYS = {
    *("set", "coverage", "set_cases", "familiarity", "familiarity_value", "unfamiliar_tiles"),
    *("min_familiarity", "withheld", "shown_anyway", "doubt", "models"),
}


def written(result: SlideResult, out: Path) -> dict[str, Any]:
    return json.loads((write_result(result, out) / "result.json").read_text("utf-8"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_result_says_its_set_its_promise_and_how_familiar_it_is(tmp_path: Path) -> None:
    spread = Spread(5, 4, {"0": 0.1, "1+": 0.2, "2+": 0.25, "3+": 0.0})
    result = with_doubt(make_result(), "in part", classes=("1+", "2+"), spread=spread)
    values = written(result, tmp_path)
    assert {name: values[name] for name in KEYS - {"doubt"}} == {
        "set": ["1+", "2+"],
        "coverage": 0.9,
        "set_cases": 160,
        "familiarity": "in part",
        "familiarity_value": 0.2,
        "unfamiliar_tiles": 0.2,
        "min_familiarity": 0.01,
        "withheld": False,
        "shown_anyway": False,
        "models": {"models": 5, "agree": 4, "sd": {"0": 0.1, "1+": 0.2, "2+": 0.25, "3+": 0.0}},
    }
    assert values["doubt"] == trust_line(result)
    assert "160" in values["doubt"]
    (slide,) = values["slides"]
    assert (slide["familiarity"], slide["familiarity_by"]) == ("in part", {"appearance": 0.2})
    assert (values["score"], values["probabilities"]["2+"]) == ("2+", 0.6)


def test_of_an_older_model_nothing_is_known_and_nothing_promised(tmp_path: Path) -> None:
    values = written(replace(make_result(), doubt=NO_DOUBT_KNOWN), tmp_path)
    assert values.keys() >= KEYS
    assert values["familiarity"] == "not known"
    assert not values["withheld"]
    for name in ("set", "coverage", "set_cases", "familiarity_value", "unfamiliar_tiles", "models"):
        assert values[name] is None, name


def test_a_promise_that_is_refused_is_no_set(tmp_path: Path) -> None:
    refused = AnswerSet((), 0.99, 20, reason="99% cannot be promised from 20 calibration cases")
    values = written(with_doubt(make_result(), answer=refused), tmp_path)
    assert (values["set"], values["coverage"], values["set_cases"]) == (None, None, None)
    assert "20 calibration cases" in values["doubt"]


def everything_in(folder: Path) -> dict[str, Any]:
    """Content of each file of a result; arrays of maps by name."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            continue
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".npz":
            arrays = np.load(path)
            found[name] = {of: arrays[of].tobytes() for of in arrays.files}
        else:
            found[name] = path.read_bytes()
    return found


def answering_otherwise(result: SlideResult) -> SlideResult:
    """The same slide and label, with other probabilities everywhere."""
    names = result.classes
    chances = {name: (number + 1) / 10 for number, name in enumerate(names)}
    slides = []
    for scored in result.slides:
        table = scored.table
        other = None if table.probabilities is None else table.probabilities[:, ::-1]
        evidence = None if table.evidence is None else -table.evidence
        maps = [
            replace(of, values=of.values * 0 + 1) if of.class_name or of.info.categories else of
            for of in scored.maps
        ]
        table = replace(table, probabilities=other, evidence=evidence)
        slides.append(replace(scored, table=table, maps=tuple(maps)))
    heads = {head: dict(reversed(chances.items())) for head in result.heads}
    answer = AnswerSet((names[-1],), 0.9, 160)
    return replace(
        result,
        slides=tuple(slides),
        score=names[-1],
        probabilities=chances,
        heads=heads,
        doubt=replace(result.doubt, answer=answer),
    )


@pytest.mark.parametrize("make", MAKERS)
def test_no_file_of_a_withheld_answer_depends_on_the_answer(make: Any, tmp_path: Path) -> None:
    one, other = with_doubt(make(), "unlike"), answering_otherwise(with_doubt(make(), "unlike"))
    first, second = (write_result(result, tmp_path / name) for result, name in ((one, "a"), (other, "b")))
    assert everything_in(first) == everything_in(second)
    assert scored_facts(one, "tiffslide", tmp_path) == scored_facts(other, "tiffslide", tmp_path)
    values = json.loads((first / "result.json").read_text("utf-8"))
    assert (values["withheld"], values["shown_anyway"], values["abstained"]) == (True, False, True)
    assert (values["score"], values["probabilities"], values["heads"]) == ("", {}, {})
    assert values["confidence"] is values["margin"] is values["set"] is values["uncertainty"] is None
    assert values["familiarity"] == "unlike"
    assert values["label"].startswith("withheld: ")
    assert "its colours" in values["reason"]


@pytest.mark.parametrize("make", MAKERS)
def test_shown_anyway_every_file_holds_it_and_says_that_it_was_withheld(make: Any, tmp_path: Path) -> None:
    plain, result = make(), with_doubt(make(), "unlike", shown_anyway=True)
    values = written(result, tmp_path)
    assert (values["withheld"], values["shown_anyway"]) == (True, True)
    assert (values["score"], values["probabilities"]) == (plain.score, dict(plain.probabilities))
    assert "withheld" in values["label"]
    told = dict(scored_facts(result, "tiffslide", tmp_path))
    assert "withheld" in told["result"]
    assert told["notice"].startswith("Research use only")
    (row,) = rows(write_score_table(tmp_path, []))
    assert row["withheld"] == "shown anyway"
    assert row["score"] == result.named(plain.score)
    assert row[f"P({result.named(plain.score)})"] == f"{plain.confidence:.4f}"


def test_the_terminal_says_in_words_that_an_answer_is_withheld(tmp_path: Path) -> None:
    told = dict(scored_facts(with_doubt(make_result(), "unlike"), "tiffslide", tmp_path))
    assert told["result"].startswith("withheld: the slide is unlike what the model learnt from")
    assert told["doubt"] == trust_line(with_doubt(make_result(), "unlike"))
    assert not [name for name in told if name.startswith("P(")]
    assert "2+" not in " ".join(told.values())


def test_a_withheld_answer_is_finished_and_known_to_be_withheld(tmp_path: Path) -> None:
    request = Request(("f",), "m" * 64, {}, "1")
    folder = write_result(with_doubt(make_pair(), "unlike"), tmp_path, request)
    found = finished_result(folder, request)
    assert found is not None
    assert found["hidden"] is True
    assert found["doubt"]
    path = folder / "result.json"
    values = json.loads(path.read_text("utf-8"))
    for name in KEYS:
        del values[name]
    path.write_text(json.dumps(values), "utf-8")
    older = finished_result(folder, request)
    assert older is not None
    assert (older["hidden"], older["doubt"]) == (False, "")


def named(name: str, *, of: Any = make_result, **changes: Any) -> SlideResult:
    return replace(of(make_slide(name=name)), **changes)


def a_cohort() -> dict[str, SlideResult]:
    """Results by name; the names are in the opposite order of their doubt."""
    sure = {"0": 0.02, "1+": 0.02, "2+": 0.95, "3+": 0.01}
    spread = Spread(5, 3, dict.fromkeys(sure, 0.1))
    return {
        "i-strangest": with_doubt(named("i-strangest"), "unlike", familiarity=1e-9),
        "h-strange": with_doubt(named("h-strange"), "unlike", familiarity=1e-4, shown_anyway=True),
        "g-open": replace(
            with_doubt(named("g-open"), classes=("0", "1+", "2+", "3+")),
            **{"abstained": True, "label": "indeterminate: any", "reason": "any"},
        ),
        "f-part": with_doubt(named("f-part"), "in part", familiarity=0.02),
        "e-part": with_doubt(named("e-part"), "in part", familiarity=0.2),
        "d-unknown": named("d-unknown"),
        "c-wide": with_doubt(named("c-wide"), classes=("1+", "2+")),
        "b-parting": with_doubt(named("b-parting"), spread=spread),
        "aa-unsure": with_doubt(named("aa-unsure")),
        "a-sure": with_doubt(named("a-sure", probabilities=sure)),
    }


def test_the_table_begins_with_the_most_doubtful_and_ends_with_failures(tmp_path: Path) -> None:
    cohort = a_cohort()
    for result in cohort.values():
        write_result(result, tmp_path)
    failed = SlideOutcome.failure(tmp_path / "0-broken.svs", JobFailed("gone"))
    found = rows(write_score_table(tmp_path, [failed]))
    assert [row["slide"] for row in found] == [*(f"{name}.svs" for name in cohort), "0-broken.svs"]
    by_name = rows(write_score_table(tmp_path, [failed], "name"))
    assert [row["slide"] for row in by_name] == [*sorted(f"{name}.svs" for name in cohort), "0-broken.svs"]
    assert sorted(map(str, found)) == sorted(map(str, by_name))


def test_the_columns_of_the_doubt(tmp_path: Path) -> None:
    for result in a_cohort().values():
        write_result(result, tmp_path)
    found = {row["slide"].removesuffix(".svs"): row for row in rows(write_score_table(tmp_path, []))}
    columns = ("withheld", "set", "coverage", "familiarity", "familiarity value")
    said = {name: tuple(row[column] for column in columns) for name, row in found.items()}
    assert said["i-strangest"] == ("yes", "", "", "unlike", "1e-09")
    assert said["h-strange"] == ("shown anyway", "2+", "0.90", "unlike", "0.0001")
    assert said["c-wide"] == ("no", "1+ or 2+", "0.90", "familiar", "0.4")
    assert said["d-unknown"] == ("no", "", "", "not known", "")
    hidden = found["i-strangest"]
    assert [hidden[name] for name in ("score", "confidence", "margin", "P(2+)", "P(0)")] == [""] * 5
    assert (hidden["indeterminate"], found["g-open"]["indeterminate"]) == ("no", "yes")
    assert hidden["doubt"] == trust_line(with_doubt(make_result(), "unlike"))
    assert "unlike" in hidden["reason"]


def test_results_of_older_versions_are_rows_like_any(tmp_path: Path) -> None:
    write_result(with_doubt(named("new")), tmp_path)
    folder = write_result(named("old"), tmp_path)
    path = folder / "result.json"
    values = json.loads(path.read_text("utf-8"))
    for name in (*KEYS, "reason"):
        del values[name]
    path.write_text(json.dumps(values), "utf-8")
    old, new = rows(write_score_table(tmp_path, []))
    assert (old["slide"], old["score"], old["familiarity"]) == ("old.svs", "2+", "not known")
    assert [old[name] for name in ("set", "coverage", "familiarity value", "doubt", "reason")] == [""] * 5
    assert (old["withheld"], new["familiarity"]) == ("no", "familiar")


def test_a_method_that_has_learnt_nothing_has_no_doubt_and_borderline_comes_first(tmp_path: Path) -> None:
    measured = {"percentages": {"0": 90.0}, "cells": 9, "membrane_staining": 10.0, "h_score": 12.0}
    for name, borderline in (("a-clear", ""), ("b-near", "hangs on 1 %"), ("c-clear", "")):
        own = measured | {"borderline": borderline, "calibration": ""}
        result = named(name, method="ihc-rules", probabilities={}, uncertainty=None, measures=own, score="0")
        values = written(result, tmp_path)
        assert values["familiarity"] is None
        assert (values["doubt"], values["set"], values["withheld"]) == ("", None, False)
    found = rows(write_score_table(tmp_path, []))
    assert [row["slide"] for row in found] == ["b-near.svs", "a-clear.svs", "c-clear.svs"]
    assert {row["familiarity"] + row["doubt"] + row["set"] for row in found} == {""}


HOSTILE = {
    "set": [5, {"set": 1}, [{}], "1+"],
    "coverage": ["most", 10**400, []],
    "familiarity": [["unlike"], 7],
    "familiarity_value": ["nan", math.nan, 10**400],
    "models": [5, {"models": 0, "agree": 0}, {"agree": []}],
    "withheld": ["yes", [], 1],
    "doubt": [{"=1+1": 2}, "=1+1", None],
    "reason": ["=HYPERLINK(1)", "@x", 5],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_doubt_harms_no_other_row_and_no_spreadsheet(name: str, tmp_path: Path) -> None:
    good = with_doubt(named("good"))
    for number, value in enumerate(HOSTILE[name]):
        out = tmp_path / str(number)
        write_result(good, out)
        folder = write_result(with_doubt(named("bad")), out)
        values = json.loads((folder / "result.json").read_text("utf-8")) | {name: value}
        (folder / "result.json").write_text(json.dumps(values), "utf-8")
        found = rows(write_score_table(out, []))
        assert "good.svs" in [row["slide"] for row in found]
        for row in found:
            assert not any(cell[:1] in ("=", "@") for cell in row.values())


def test_ish_means_nothing_beside_a_withheld_answer_and_all_of_a_set_beside_one() -> None:
    two = with_doubt(make_result(), classes=("1+", "2+"))
    assert ManualScore(ish="negative").to_json(two)["ish_beside_prediction"] == (
        "With ISH negative: 1+ or 2+ would be HER2-low."
    )
    assert "cannot tell 1+ from 2+" in category_beside(ManualScore(ish="positive"), two)
    assert category_beside(ManualScore(ish="positive"), make_result()) == (
        "With ISH positive: 2+ would be HER2-positive."
    )
    for shown in (False, True):
        withheld = with_doubt(make_result(), "unlike", shown_anyway=shown)
        own = ManualScore(score="2+", ish="positive")
        assert ManualScore(ish="positive").to_json(withheld)["ish_beside_prediction"] == ""
        assert own.to_json(withheld)["category"] == "HER2-positive (2+, ISH positive)"


def test_a_manual_score_goes_beside_a_withheld_answer(tmp_path: Path) -> None:
    result = with_doubt(make_result(), "unlike")
    folder = finished(exporting(result, ManualScore(score="1+", ish="positive"), tmp_path))
    manual = json.loads((folder / "manual.json").read_text("utf-8"))
    assert manual["score"] == "1+"
    assert manual["ish_beside_prediction"] == ""
    assert json.loads((folder / "result.json").read_text("utf-8"))["score"] == ""


def test_unfamiliar_tiles_are_in_every_file_also_of_a_withheld_answer(tmp_path: Path) -> None:
    for verdict in ("in part", "unlike"):
        plain = with_doubt(make_result(), verdict)
        (scored,) = plain.slides
        index = scored.table.index
        distances = np.linspace(0.5, 2.5, len(index)).astype(np.float32)
        strange = unfamiliar_map(scored.grid, index, distances, visible=True)
        result = replace(plain, slides=(replace(scored, maps=(*scored.maps, strange)),))
        folder = write_result(result, tmp_path / verdict)
        column = [float(row["unfamiliar"]) for row in rows(folder / "tiles.csv")]
        assert column == pytest.approx(distances.tolist(), rel=1e-3)
        np.testing.assert_array_equal(np.load(folder / "maps.npz")["unfamiliar"], strange.values)
        features = json.loads((folder / "regions.geojson").read_text("utf-8"))["features"]
        outlined = [of for of in features if of["properties"]["classification"]["name"].startswith("Unfam")]
        values = [of["properties"]["measurements"]["times the limit of familiar tiles"] for of in outlined]
        assert values == sorted(values, reverse=True)
        assert min(values) > 1
        assert len(values) == min((distances > 1).sum(), 50)


def test_nan_is_null_in_every_number_of_the_doubt() -> None:
    values = result_values(with_doubt(make_result(), "not known"))
    assert math.isnan(values["familiarity_value"])  # null in the file, as `written` reads it above
