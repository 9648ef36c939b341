"""A scoring replayed: bit for bit the same, or what differs, or why it cannot be done."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from every_method import NAMES
from napari_her2 import score_slide
from napari_her2.cells import quality
from napari_her2.cells.calibration import Calibration
from napari_her2.cells.calibration_store import keep_calibration
from napari_her2.cli import app
from napari_her2.errors import JobFailed
from napari_her2.export.kept_result import KEPT_NAME, read_kept, write_kept
from napari_her2.export.tables import write_result
from napari_her2.inference import precision as precision_module
from napari_her2.inference.judging import redoubted
from napari_her2.inference.precision import Precision, wanted_precision
from napari_her2.reports.replay import compared, replay_steps
from napari_her2.steps import finished
from scored import make_result

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.inference.result import SlideResult
    from napari_her2.reports.replay import Differences


@pytest.fixture(autouse=True)
def _soft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "MOST_BLUR_UM", 1.0)  # a phantom at 0.5 µm/px is softer than a scan


def again(folder: Path, **more: object) -> Differences:
    return finished(replay_steps(folder, **more))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("familiar", "all-cells")])
def test_the_same_comes_out_bit_for_bit(name: str, results, tmp_path: Path) -> None:
    done = again(write_result(results[name], tmp_path))
    assert done.found == ()
    assert done.notes == ()
    assert done.compared > 1000
    assert done.result.doubt.hidden == (name == "withheld")


def test_so_it_does_in_both_precisions(precision: str, he_slide, tiny_model, tmp_path: Path) -> None:
    result = score_slide(he_slide, tiny_model, device="cpu", batch_size=32, min_confidence=0.3)
    assert result.precision == precision
    folder = write_result(result, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_HER2_PRECISION", "auto")  # the recorded one counts
        done = again(folder)
    assert (done.found, done.result.precision) == ((), precision)


def test_a_result_is_replayed_in_its_precision_also_where_the_processor_would_choose_another(
    he_slide, tiny_model, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.delenv("NAPARI_HER2_PRECISION", raising=False)
    monkeypatch.setattr(precision_module, "_cpu_precision", lambda: Precision(torch.bfloat16, "AMX"))
    result = score_slide(he_slide, tiny_model, device="cpu")
    assert (result.precision, result.asked.precision) == ("bfloat16", "auto")
    folder = write_result(result, tmp_path)
    monkeypatch.setattr(precision_module, "_cpu_precision", lambda: Precision(None, "no AMX"))
    done = again(folder)
    assert (done.found, done.result.precision) == ((), "bfloat16")
    assert "NAPARI_HER2_PRECISION" not in os.environ


def test_wishes_and_rules_that_were_changed_later_are_replayed(results, small_pair, tmp_path: Path) -> None:
    doubted = redoubted(results["withheld"], coverage=0.8, min_familiarity=0.0, show_withheld=False)
    assert not doubted.doubt.withheld
    assert again(write_result(doubted, tmp_path / "a")).found == ()
    keep_calibration(Calibration("lab", 1.4, "2026-11-28", "control", "0" * 64, 100))
    cells = score_slide(
        small_pair.ihc, "ihc-rules", regions=small_pair.regions, device="cpu", calibration="lab"
    )
    assert cells.asked.options.gain == 1.4
    assert again(write_result(cells, tmp_path / "b")).found == ()


def test_what_differs_is_named_with_its_size(results, tmp_path: Path) -> None:
    before = results["attention-mil"]
    (slide,) = before.slides
    attention = slide.table.attention.copy()
    attention[3] += 0.25
    changed = replace(slide, table=replace(slide.table, attention=attention))
    after = replace(before, slides=(changed,), probabilities=before.probabilities | {"3+": 0.123})
    done = compared(before, after)
    assert [each.what for each in done.found] == ["slides > 1 > table > attention", "probabilities > 3+"]
    values, chance = done.found
    assert values.magnitude == pytest.approx(0.25)
    assert values.after == "1 differ"
    assert chance.magnitude == pytest.approx(abs(before.probabilities["3+"] - 0.123))
    shorter = replace(slide, maps=slide.maps[1:])
    assert len(compared(before, replace(before, slides=(shorter,))).found) >= 1


def test_nan_is_nan_and_another_shape_is_said(results) -> None:
    before = results["attention-mil"]
    (slide,) = before.slides
    same = replace(slide, maps=tuple(replace(of, values=of.values.copy()) for of in slide.maps))
    assert compared(before, replace(before, slides=(same,))).found == ()
    grown = replace(slide.maps[0], values=np.zeros((2, 2), np.float32))
    (found,) = compared(
        before, replace(before, slides=(replace(slide, maps=(grown, *slide.maps[1:])),))
    ).found
    assert "(2, 2)" in found.after


def test_slides_and_models_are_found_by_their_content(results, he_slide, tiny_model, tmp_path: Path) -> None:
    result = results["attention-mil"]
    asked = result.asked
    gone = replace(asked.slides[0], path=tmp_path / "gone.svs")
    moved = replace(result.slides[0], path=gone.path)
    lost = replace(
        result,
        slides=(moved,),
        asked=replace(asked, slides=(gone,), model_path=tmp_path / "gone.safetensors"),
    )
    folder = write_result(lost, tmp_path)
    with pytest.raises(JobFailed, match=r"gone\.svs is not there any more.*--slide"):
        again(folder)
    here = shutil.copy(he_slide, tmp_path / "another-name.svs")
    with pytest.raises(JobFailed, match=r"not among the models.*--model"):
        again(folder, slides=[here])
    with pytest.raises(JobFailed, match=r"not the file that scored"):
        again(folder, slides=[here], model=here)
    assert again(folder / "result.json", slides=[here], model=tiny_model).found == ()
    gone.path.write_bytes(here.read_bytes() + b"more")
    with pytest.raises(JobFailed, match="another content"):
        again(folder)


def test_what_older_results_lack_is_said(results, tmp_path: Path) -> None:
    folder = write_result(make_result(), tmp_path)
    with pytest.raises(JobFailed, match="does not say what was asked"):
        again(folder)
    (folder / KEPT_NAME).unlink()
    with pytest.raises(JobFailed, match=r"no result\.her2, which older versions did not write"):
        again(folder)
    with pytest.raises(JobFailed, match="is no result"):
        again(tmp_path)


def test_result_json_says_what_was_asked(results, small_pair, tmp_path: Path) -> None:
    folder = write_result(results["regions"], tmp_path)
    asked = json.loads((folder / "result.json").read_text(encoding="utf-8"))["asked"]
    assert asked["slides"][0]["path"] == str(small_pair.he)
    assert asked["regions"]["type"] == "FeatureCollection"
    assert asked["options"]["coverage"] == 0.9
    assert (asked["device"], asked["precision"]) == ("cpu", wanted_precision())


def test_the_command_says_it_and_ends_with_the_code(results, tmp_path: Path) -> None:
    folder = write_result(results["low-resolution"], tmp_path)
    done = CliRunner().invoke(app, ["replay", str(folder / "result.json")])
    assert done.exit_code == 0, done.output
    assert "Nothing differs" in done.stdout
    kept: SlideResult = read_kept(folder / KEPT_NAME)
    write_kept(replace(kept, probabilities=kept.probabilities | {"0": 0.5}), folder / KEPT_NAME)
    done = CliRunner().invoke(app, ["replay", str(folder)])
    assert done.exit_code == 1
    assert "probabilities > 0" in done.stdout
    assert done.stderr.count("\n") == 1
    assert "One thing differs" in done.stderr
    done = CliRunner().invoke(app, ["replay", str(tmp_path)])
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
