"""What a report says of sets and of strange slides: computed again here from the same predictions."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import binomtest, mannwhitneyu
from tifffile import imwrite as write_tiff

import napari_her2_training
from napari_her2.errors import JobFailed
from napari_her2.models.answer_sets import CalibrationCases, answer_set
from napari_her2_training.files import write_json
from napari_her2_training.measures.predictions import Part, Predictions, write_predictions
from napari_her2_training.reporting.evaluation import read_run
from napari_her2_training.reporting.slides import scale_in_words
from napari_her2_training.reporting.strange import (
    JUDGED,
    STRANGE,
    FamiliaritySeen,
    compared,
    seen_table,
    slides_in,
    strange_in_words,
)

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("0", "1+", "2+", "3+")
RECORD = {
    **{"model": "tiny.head.safetensors", "bundle": "None of these.", "method": "mil", "stain": "IHC"},
    **{"fold": 0, "reading": "", "heads": {}, "unit": "slides", "device": "cpu", "parameters": 7},
    **{"classes": list(CLASSES), "named": {}, "mapping": "", "judged": "test", "data": "gone.csv"},
    "cases": [{"train": 1, "validation": 1, "test": 1}],
    "config": {"measure": {"resamples": 200}},
}


def predicted(seed: int, slides: int, start: int = 0, hard: float = 0.7) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.permuted(np.arange(slides) % 4)
    logits = -1.5 * np.abs((labels + rng.normal(0, hard, slides))[:, None] - np.arange(4))
    raised = np.exp(logits)
    names = tuple(f"c{number}" for number in range(start, start + slides))
    return Predictions(names, labels, raised / raised.sum(axis=1, keepdims=True), temperature=1.3)


def run_with(folder: Path, parts: dict[Part, Predictions], **told: object) -> Path:
    folder.mkdir(exist_ok=True)
    write_predictions(folder / "predictions.csv", parts, CLASSES)
    write_json(folder / "metrics.json", {**RECORD, **told})
    return folder


def page_of(run: Path, **options: object) -> str:
    steps = napari_her2_training.report(run, cases=0, device="cpu", **options)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value.read_text("utf-8")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_sets_are_made_from_validation_and_judged_on_the_test_part(tmp_path: Path) -> None:
    validation, test = predicted(1, 60), predicted(2, 80, start=60)
    run = run_with(tmp_path / "run", {Part(0, "validation"): validation, Part(0, "test"): test})
    page = page_of(run)
    known = CalibrationCases.of(validation.calibrated, validation.labels)
    rows = {(row["promise"], row["group"]): row for row in table(run / "sets.csv")}
    for promise in (0.8, 0.9, 0.95):
        sets = [answer_set(row, CLASSES, known, promise).classes for row in test.calibrated]
        hits = np.array([CLASSES[label] in held for label, held in zip(test.labels, sets, strict=True)])
        row = rows[str(promise), "all"]
        interval = binomtest(int(hits.sum()), 80).proportion_ci(0.95, "exact")
        assert float(row["coverage"]) == pytest.approx(hits.mean())
        assert (float(row["low"]), float(row["high"])) == pytest.approx((interval.low, interval.high))
        assert float(row["size"]) == pytest.approx(np.mean([len(held) for held in sets]))
        assert float(row["size_low"]) <= float(row["size"]) <= float(row["size_high"])
        assert float(row["every"]) == pytest.approx(np.mean([len(held) == 4 for held in sets]))
        of_class = rows[str(promise), "2+"]
        assert float(of_class["coverage"]) == pytest.approx(hits[test.labels == 2].mean())
        # Fifteen of each class: enough for 90 %, too few for 95 %.
        assert of_class["promised_by_itself"] == ("no" if promise == 0.95 else "yes")
        assert of_class["calibrated_on"] == "15"
        assert f"{hits.mean():.1%}" in page
    assert "of cases like those it was calibrated on: 60 validation cases, which also chose the epoch" in page
    assert "shares the threshold of all" in page
    assert 'alt="promised and held coverage"' in page


def test_of_several_slides_of_a_case_one_calibrates(tmp_path: Path) -> None:
    once, test = predicted(1, 20), predicted(2, 30, start=60)
    twice = replace(
        once,
        cases=once.cases * 2,
        labels=np.tile(once.labels, 2),
        probabilities=np.tile(once.probabilities, (2, 1)),
    )
    for name, validation in (("once", once), ("twice", twice)):
        page_of(run_with(tmp_path / name, {Part(0, "validation"): validation, Part(0, "test"): test}))
    assert table(tmp_path / "once" / "sets.csv") == table(tmp_path / "twice" / "sets.csv")


def test_of_several_folds_the_page_shows_that_of_the_bundle(
    tmp_path: Path,
) -> None:
    parts = {
        Part(0, "validation"): predicted(1, 40),
        Part(0, "test"): predicted(2, 40, start=100),
        Part(1, "validation"): predicted(4, 40, start=40),
        Part(1, "test"): replace(predicted(2, 40, start=100, hard=1.5), temperature=0.9),
    }
    run = run_with(tmp_path / "run", parts, fold=1, cases=[{"train": 1, "validation": 1, "test": 1}] * 2)
    assert "by the model of fold 2, that of the bundle" in page_of(run)
    known = CalibrationCases.of(parts[Part(1, "validation")].calibrated, parts[Part(1, "validation")].labels)
    test = parts[Part(1, "test")]
    sizes = [len(answer_set(row, CLASSES, known, 0.9).classes) for row in test.calibrated]
    rows = {(row["fold"], row["promise"], row["group"]): row for row in table(run / "sets.csv")}
    assert float(rows["2", "0.9", "all"]["size"]) == pytest.approx(np.mean(sizes))
    assert ("1", "0.9", "all") in rows


def test_too_few_cases_and_none_held_out_are_told(tmp_path: Path) -> None:
    few = {Part(0, "validation"): predicted(1, 3), Part(0, "test"): predicted(2, 9, start=9)}
    page = page_of(run_with(tmp_path / "few", few))
    assert "90 % cannot be promised from 3 calibration cases: at least 9 are needed." in page
    assert table(tmp_path / "few" / "sets.csv") == []
    some = {Part(0, "validation"): predicted(1, 12), Part(0, "test"): predicted(2, 9, start=19)}
    page = page_of(run_with(tmp_path / "some", some))
    assert "95 % cannot be promised from 12 calibration cases: at least 19 are needed." in page
    assert {row["promise"] for row in table(tmp_path / "some" / "sets.csv")} == {"0.8", "0.9"}
    page = page_of(
        run_with(tmp_path / "none", {Part(0, "validation"): predicted(1, 40)}, judged="validation")
    )
    assert "Sets are not judged" in page
    assert table(tmp_path / "none" / "sets.csv") == []


def test_coverage_is_told_by_the_scale_of_the_slides(tmp_path: Path) -> None:
    rows = ["case_id,ihc,score"]
    for number, mpp in enumerate((0.2431, 0.499, 0.2527, 0.5)):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
        told = {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp, "axes": "YXS"}
        write_tiff(tmp_path / f"c{number}.ome.tif", pixels, photometric="rgb", metadata=told, ome=True)
        rows.append(f"c{number},c{number}.ome.tif,2+")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(rows), "utf-8")
    names = ("c0", "c1", "c2", "c3")
    test = replace(predicted(2, 4), cases=names)
    parts = {Part(0, "validation"): predicted(1, 40), Part(0, "test"): test}
    run = run_with(tmp_path / "run", parts, data=str(manifest))
    page = page_of(run)
    rows = [row for row in table(run / "sets.csv") if row["kind"] == "scale"]
    assert {(row["group"], row["slides"]) for row in rows} == {("0.25 µm/px", "2"), ("0.5 µm/px", "2")}
    assert "0.25 µm/px" in page
    assert [scale_in_words(mpp) for mpp in (0.2527, 0.46, 2.2)] == ["0.25 µm/px", "0.5 µm/px", "2 µm/px"]


def seen(values: dict[str, list[float]]) -> list[FamiliaritySeen]:
    return [
        FamiliaritySeen(
            group, f"{group}{number}.svs", "", "H&E", "unlike" if value < 0.01 else "familiar", value, 0.5
        )
        for group, of in values.items()
        for number, value in enumerate(of)
    ]


def test_familiarity_of_strange_slides_is_compared_with_that_of_the_judged(tmp_path: Path) -> None:
    usual, strange = [0.9, 0.4, 0.05, 0.3, 1.0, 0.005], [1e-9, 0.0, 0.02, 1e-4]
    refused = FamiliaritySeen(STRANGE, "=cmd.svs", reason="It cannot be read.")
    found = compared([*seen({JUDGED: usual, STRANGE: strange}), refused], 0.95)
    assert found.area.value == pytest.approx(mannwhitneyu(usual, strange).statistic / 24)
    assert found.area.low < found.area.value < found.area.high
    assert (found.unlike[STRANGE].count, found.unlike[STRANGE].slides) == (3, 4)
    assert (found.unlike[JUDGED].count, found.unlike[JUDGED].slides) == (1, 6)
    run = read_run(run_with(tmp_path / "run", {Part(0, "test"): predicted(1, 9)}))
    words = strange_in_words(found, run)
    assert "4 strange and 6 judged ones" in words
    assert "Of 1 further slide it is not known" in words
    rows = seen_table(found)
    assert [row["slide"] for row in rows[:2]] == ["strange1.svs", "strange0.svs"]
    assert rows[4]["familiarity"] is None
    assert rows[4]["reason"] == "It cannot be read."
    nothing = compared(seen({JUDGED: [math.nan], STRANGE: strange}), 0.95)
    assert nothing.area is None
    assert "nothing can be compared" in strange_in_words(nothing, run)


def test_what_cannot_be_compared_is_said_before_any_work(tmp_path: Path) -> None:
    run = run_with(
        tmp_path / "run", {Part(0, "validation"): predicted(1, 40), Part(0, "test"): predicted(2, 9)}
    )
    with pytest.raises(JobFailed, match="cannot be listed"):
        page_of(run, strange=tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(JobFailed, match="holds no slide"):
        page_of(run, strange=tmp_path)
    (tmp_path / "a.svs").write_text("none")
    assert slides_in(tmp_path) == (tmp_path / "a.svs",)
    assert "Slides cannot be scored with this model" in page_of(run, strange=tmp_path)
    assert not (run / "familiarity.csv").exists()
    (run / "compare.json").write_text(json.dumps({}))
    with pytest.raises(JobFailed, match="compares several models"):
        page_of(run, strange=tmp_path)
