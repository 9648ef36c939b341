"""Every training ends in a bundle that knows what it has seen, and what it can promise."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import cv2
import h5py
import numpy as np
import pytest

import napari_her2_training
from dry_runs import CONFIGS, MODEL, check, write_slide
from napari_her2.models.bundle import load_bundle
from napari_her2.models.familiarity import APPEARANCE, FEATURES
from napari_her2.slide.reader import open_slide

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_her2.models.bundle import ModelBundle
    from napari_her2.steps import Progress

SCORES = ("0", "1+", "2+", "3+")
END = '[measure]\nresamples = 2\n[compute]\ndevice = "cpu"\n'
STAGE = "Learning what the model has seen"
PARTS = ("train", "validation", "calibration")
METHODS = ("attention-mil", "mil", "wsmcl", "patches", "low-resolution", "predictor")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve cases: of each score one to learn from, one that chooses the epoch and one of calibration."""
    folder = tmp_path_factory.mktemp("cohort")
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("case_id", "he", "ihc", "score", "split"))
        for number in range(12):
            for stain in ("HE", "HER2"):
                write_slide(folder / f"c{number}_{stain}.tif", stain, number)
            part = PARTS[number // 4]
            names = (f"c{number}", f"c{number}_HE.tif", f"c{number}_HER2.tif")
            table.writerow((*names, SCORES[number % 4], part))
    return folder / "manifest.csv"


def steps_of(
    method: str, data: Path, out: Path, text: str = "", *, resume: bool = False
) -> Generator[Progress, None, Path]:
    config = out.parent / f"{out.name}.toml"
    given = (text or CONFIGS[method]).split("[[ablation]]")[0].replace("tile_px = 64", "tile_px = 96")
    config.write_text(f"{MODEL}{given.replace('field_px = 32', 'field_px = 48')}{END}")
    return napari_her2_training.run(method, config, data, out, resume)


def finish(steps: Generator[Progress, None, Path]) -> Path:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def trained(method: str, data: Path, out: Path, text: str = "") -> tuple[ModelBundle, dict]:
    bundle = load_bundle(finish(steps_of(method, data, out, text)))
    return bundle, json.loads((out / "metrics.json").read_text())["doubt"][0]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_what_scoring_needs(method: str, cohort: Path, tmp_path: Path) -> None:
    text = CONFIGS[method].replace("tile_px = 64", "tile_px = 96").replace("epochs = 7", "epochs = 1")
    bundle, record = trained(method, cohort, tmp_path / "run", text)
    stains = ("H&E", "IHC") if bundle.card.stain == "H&E+IHC" else (bundle.card.stain,)
    about, sets = bundle.card.familiarity, bundle.card.answer_sets
    assert set(bundle.familiarity.spaces) == {(s, kind) for s in stains for kind in (FEATURES, APPEARANCE)}
    assert (about.learnt, about.validated) == (4 * len(stains), 8 * len(stains))
    heads = {"fusion", *stains} if len(stains) > 1 else {"slide"}
    assert set(sets.cases) == set(bundle.answer_sets.heads) == heads
    assert all(cases == dict.fromkeys(SCORES, 2) for cases in sets.cases.values())
    assert sets.made_from.startswith("4 validation and 4 calibration cases")
    assert record == {"familiarity": about.made_from, "sets": sets.made_from, "remarks": []}
    assert "4 to calibrate" in bundle.card.training_data or method == "predictor"
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        judged = {row["case_id"] for row in csv.DictReader(file)}
    assert not judged & {f"c{number}" for number in range(8, 12)}  # those of calibration


def test_a_cohort_of_ihc_alone_and_a_slide_that_went_bad_after_the_training(
    cohort: Path, tmp_path: Path
) -> None:
    rows = [line.split(",") for line in cohort.read_text().splitlines()]
    alone = [
        f"{case},{ihc if row == 'case_id' else cohort.parent / ihc},{score},{split}"
        for row, (case, _, ihc, score, split) in zip((r[0] for r in rows), rows, strict=True)
    ]
    manifest = tmp_path / "ihc.csv"
    manifest.write_text("\n".join(alone) + "\n")
    broken = tmp_path / "broken.tif"
    write_slide(broken, "HER2", 77)
    manifest.write_text(manifest.read_text() + f"c99,{broken},3+,calibration\n")
    steps = steps_of("low-resolution", manifest, tmp_path / "run")
    for step in steps:
        if step.stage.startswith("Training"):
            broken.write_bytes(b"no slide any more")
            break
    bundle = load_bundle(finish(steps))
    assert bundle.card.answer_sets.total("slide") == 8
    assert bundle.card.familiarity.validated == 8
    (remark,) = json.loads((tmp_path / "run" / "metrics.json").read_text())["doubt"][0]["remarks"]
    assert remark.startswith("Row 14 of the manifest, case c99: ")


def test_a_run_that_is_stopped_there_resumes_to_the_same_bytes(cohort: Path, tmp_path: Path) -> None:
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    path = finish(steps_of("mil", cohort, whole))
    steps = steps_of("mil", cohort, halted)
    seen = 0
    for step in steps:
        seen += step.stage.startswith(STAGE)
        if seen == 9:
            steps.close()
            break
    assert seen == 9
    assert not (halted / "metrics.json").exists()
    again = finish(steps_of("mil", cohort, halted, resume=True))
    assert again.read_bytes() == path.read_bytes()


def test_of_files_of_features_there_is_no_model_to_keep_anything(tmp_path: Path) -> None:
    lines = ["case_id,ihc,score,split"]
    for number in range(12):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["features"] = np.random.default_rng(number).random((6, 5), np.float32)
        lines.append(f"c{number},{number}.h5,{number % 4},{PARTS[number // 4]}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    path = finish(steps_of("mil", tmp_path / "manifest.csv", tmp_path / "run"))
    assert path.name == "tiny.head.safetensors"
    (kept,) = json.loads((tmp_path / "run" / "metrics.json").read_text())["doubt"]
    assert (kept["familiarity"], kept["sets"]) == ("", "")
    assert "no model that scores slides" in kept["remarks"][0]


def test_fields_of_a_folder_are_known_one_by_one_and_make_no_sets(cohort: Path, tmp_path: Path) -> None:
    number = 0
    for case in range(12):
        for split in ("train", "train", "test"):
            number += 1
            for folder, stain in (("HE", "HE"), ("IHC", "HER2")):
                with open_slide(cohort.parent / f"c{case}_{stain}.tif") as slide:
                    image = slide.read(0, 100 + number % 3 * 20, 110, 192, 192)
                place = tmp_path / "BCI" / folder / split / f"{number}_{split}_{SCORES[case % 4]}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(place), image[:, :, ::-1])
    text = CONFIGS["predictor"].replace("tile_px = 64", "tile_px = 192\nmpp = 0.5")
    bundle, record = trained("predictor", tmp_path / "BCI", tmp_path / "run", text)
    assert set(bundle.familiarity.spaces) == {("H&E", FEATURES), ("H&E", APPEARANCE)}
    assert bundle.card.familiarity.made_from == "12 training fields; limits from 12 validation fields"
    assert bundle.answer_sets is None
    assert record["remarks"] == ["There are no sets of scores: which fields are of one slide is not known."]


def test_it_can_be_left_out(cohort: Path, tmp_path: Path) -> None:
    off = CONFIGS["mil"] + "[doubt]\nfamiliarity = false\nsets = false\n"
    bundle, _ = trained("mil", cohort, tmp_path / "run", off)
    assert bundle.familiarity is None
    assert bundle.answer_sets is None


def test_a_dry_run_counts_it_and_finds_what_is_missing(cohort: Path, tmp_path: Path) -> None:
    found = check(tmp_path, "mil", cohort)
    facts = dict(found.facts)
    assert found.faults == ()
    assert "calibration 4 (1 of 0, 1 of 1+, 1 of 2+, 1 of 3+)" in facts["Split"]
    assert facts["Familiarity"] == "from 4 training cases, limits from 8 others"
    assert "8 cases (2 of 0, 2 of 1+, 2 of 2+, 2 of 3+) can promise 88%" in facts["Sets of scores"]
    assert "familiarity and sets" in facts["Estimated time"]
    assert any("cannot promise sets of 90%, which need 9: add cases" in text for text in found.warnings)
    few = cohort.with_name("few.csv")
    few.write_text("\n".join(cohort.read_text().splitlines()[:7]) + "\n")
    told = check(tmp_path, "mil", few).warnings
    few.unlink()
    assert any("add rows whose split is calibration" in text for text in told)
    assert any("cannot tell which slides are unlike, which needs 3" in text for text in told)
