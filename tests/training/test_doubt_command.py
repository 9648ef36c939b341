"""Familiarity and sets for a model that exists: fitted to cases of any origin, its weights left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from dry_runs import write_slide
from napari_her2.cli import app
from napari_her2.errors import JobFailed
from napari_her2.models.bundle import load_bundle
from napari_her2.models.registry import load_model, model_file
from napari_her2.models.weights_file import read_weights
from napari_her2_training.classes import class_mapping
from napari_her2_training.doubt_model import DoubtRequest, doubt_model_steps, mapping_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_her2_training.doubt_model import DoubtedModel

MODEL = "demo-attention-mil"
SCORES = ("0", "1+", "2+", "3+")
PARTS = ("train", "validation", "calibration")


def write_cohort(folder: Path, count: int, *, seed: int = 0, parts: Sequence[str] = ()) -> Path:
    folder.mkdir(exist_ok=True)
    lines = ["case_id,he,score,split" if parts else "case_id,he,score"]
    for number in range(count):
        write_slide(folder / f"{seed + number}.tif", "HE", seed + number)
        row = f"c{number},{seed + number}.tif,{SCORES[number % 4]}"
        lines.append(f"{row},{parts[number // 4]}" if parts else row)
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"), 12, parts=PARTS)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases of another table, with the same names."""
    return write_cohort(tmp_path_factory.mktemp("others"), 4, seed=50)


def made(data: Path, out: Path, model: str = MODEL, **more: object) -> DoubtedModel:
    steps = doubt_model_steps(DoubtRequest(model=model, data=data, out=out, device="cpu", **more))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def older(folder: Path) -> str:
    """The demonstration model as it was before it kept anything."""
    from napari_her2.models.bundle import with_doubt

    path = folder / "older.safetensors"
    with_doubt(model_file(MODEL), path, None, None, None, None)
    return str(path)


def test_an_older_model_gets_both_and_a_site_renews_its_sets_alone(
    cohort: Path, others: Path, tmp_path: Path
) -> None:
    model = older(tmp_path)
    arguments = ["doubt", model, "--data", cohort, "--calibration", others, "--device", "cpu", "--json"]
    new = tmp_path / "new.safetensors"
    result = CliRunner().invoke(app, [str(item) for item in (*arguments, "--out", new)])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert told["kind"] == "model"
    assert told["path"] == str(new)
    assert told["remarks"] == []
    sets = told["facts"]["sets"]
    assert sets.startswith("12 cases (3 of 0, 3 of 1+, 3 of 2+, 3 of 3+) can promise 92%")
    assert sets.endswith("0, 1+, 2+, 3+ share the limit of all at 90%")
    bundle = load_bundle(new)
    assert bundle.card.familiarity.made_from == (
        "4 training slides; limits from 4 validation and 8 calibration slides"
    )
    assert bundle.card.answer_sets.made_from == (
        "4 validation and 8 calibration cases; the validation cases also chose the epoch"
    )
    before, after = read_weights(model_file(model)).tensors, read_weights(new).tensors
    assert all((after[name] == value).all() for name, value in before.items())

    site = tmp_path / "site.safetensors"
    made(others, site, str(new), keep_familiarity=True)
    renewed = load_bundle(site)
    assert renewed.card.familiarity == bundle.card.familiarity
    assert renewed.card.answer_sets.made_from == "4 calibration cases"
    assert renewed.card.answer_sets.total("slide") == 4
    with pytest.raises(JobFailed, match=r"no case that demo-attention-mil learnt from.*--keep-familiarity"):
        made(others, tmp_path / "none.safetensors", str(new))
    assert not (tmp_path / "none.safetensors").exists()


def test_the_cases_are_split_as_the_training_of_a_configuration_split_them(
    cohort: Path, tmp_path: Path
) -> None:
    plain = cohort.with_name("plain.csv")
    plain.write_text("\n".join(line.rpartition(",")[0] for line in cohort.read_text().splitlines()) + "\n")
    config = tmp_path / "own.toml"
    config.write_text(f'[model]\nname = "{MODEL}"\ntraining_data = "t"\n[data]\nvalidation = 0.34\n')
    found = made(plain, tmp_path / "new.safetensors", older(tmp_path), config=config)
    card = load_bundle(found.path).card
    assert card.familiarity.made_from == "7 training slides; limits from 5 validation slides"
    with pytest.raises(JobFailed, match="too few to hold out"):
        made(plain, tmp_path / "demo.safetensors", config="demo_attention_mil")
    config.write_text(config.read_text().replace("validation = 0.34", "folds = 3"))
    with pytest.raises(JobFailed, match="3 folds: say with --fold"):
        made(plain, tmp_path / "fold.safetensors", config=config)
    config.write_text(config.read_text().replace("folds = 3", 'classes = "binary"'))
    with pytest.raises(JobFailed, match="learns negative, positive, and demo-attention-mil answers"):
        made(plain, tmp_path / "other.safetensors", config=config)
    plain.unlink()


def test_a_slide_that_cannot_be_scored_is_left_out_and_said(cohort: Path, tmp_path: Path) -> None:
    own = write_cohort(tmp_path / "own", 12, seed=70, parts=PARTS)
    (own.parent / "71.tif").write_bytes(b"no slide")
    found = made(own, tmp_path / "new.safetensors", older(tmp_path))
    (remark,) = found.remarks
    assert remark.startswith("Row 3 of the manifest, case c1: ")
    assert load_bundle(found.path).card.familiarity.learnt == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep_familiarity": True}, "keeps nothing of what it has seen"),
        ({"out": "new.pt"}, "saved as .safetensors"),
        ({"calibration": "same"}, "is in row 2 of manifest.csv too"),
        ({"data": "few"}, "1 validation or calibration case cannot tell"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    cohort: Path, tmp_path: Path, change: dict, message: str
) -> None:
    few, same = cohort.with_name("few.csv"), cohort.with_name("same.csv")
    few.write_text("\n".join(cohort.read_text().splitlines()[:6]) + "\n")
    same.write_text(f"case_id,he,score\nx,{cohort.parent / '0.tif'},0\n")
    places = {"few": few, "same": same, "new.pt": tmp_path / "new.pt"}
    given = {"data": cohort, "out": tmp_path / "new.safetensors"} | {
        name: places.get(value, value) for name, value in change.items()
    }
    steps = doubt_model_steps(DoubtRequest(model=older(tmp_path), **given))
    with pytest.raises(JobFailed, match=message):
        next(steps)
    assert not given["out"].exists()


def test_a_file_that_is_there_stays_and_one_that_is_stopped_never_comes(cohort: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.safetensors"
    there.write_bytes(b"mine")
    model = older(tmp_path)
    with pytest.raises(JobFailed, match="exists already"):
        next(doubt_model_steps(DoubtRequest(model, cohort, there)))
    assert there.read_bytes() == b"mine"
    steps = doubt_model_steps(DoubtRequest(model, cohort, tmp_path / "new.safetensors", device="cpu"))
    for _ in range(5):
        next(steps)
    steps.close()
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize("text", ["scores", "low", "binary", "0: none, 1+: some, 2+: some, 3+: much"])
@pytest.mark.parametrize("ish", [False, True])
def test_the_classes_of_a_card_are_those_that_the_model_learnt(text: str, ish: bool) -> None:
    if ish and text in ("scores", "binary"):
        pytest.skip("no class of 3+ that a 2+ could move to")
    mapping = class_mapping(text, ish=ish)
    own = load_model(MODEL).card
    card = replace(own, classes=mapping.names, class_scores=mapping.findings, answer_sets=None)
    assert mapping_of(card) == mapping


def test_a_card_that_does_not_say_what_its_classes_hold_is_refused() -> None:
    card = replace(load_model(MODEL).card, classes=("good", "bad"), class_scores={}, answer_sets=None)
    with pytest.raises(JobFailed, match="does not say which of its classes good, bad holds the score 0"):
        mapping_of(card)
