"""The command line: what it prints, writes and returns."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import h5py
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from napari_her2 import __version__, open_slide
from napari_her2.cli import _COMMANDS, app
from napari_her2.desk.own_score import ManualScore
from napari_her2.desk.store import Desk
from napari_her2.errors import ModelNameTaken
from napari_her2.models.card import NOTICE
from small_files import write_flat_slide


def run(*arguments):
    return CliRunner().invoke(app, [str(item) for item in arguments])


def one_line(result):
    """The only line on standard error of a command that failed."""
    assert result.exit_code == 1, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("napari-her2: ")
    return lines[0]


def test_help_loads_neither_torch_nor_napari_nor_readers():
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from napari_her2.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'torch', 'napari', 'qtpy', 'tiffslide', 'dask', 'h5py', 'cv2', 'timm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "arguments",
    [["models", "list"], ["models", "show", "--help"], ["models"], ["cache"], ["calibrate", "list"]],
)
def test_a_short_command_loads_nothing_of_the_others(arguments):
    code = (
        "import sys\n"
        "from napari_her2.cli import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        "others = {'napari_her2.cohort', 'napari_her2.commands.score', 'napari_her2.commands.train',\n"
        "          'dask', 'torch', 'tiffslide', 'importlib.metadata'}\n"
        "if 'models' in sys.argv: others |= {'numpy', 'pydantic', 'rich.progress', 'napari_her2.slide'}\n"
        "assert not others & set(sys.modules), others & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


_SLOW = "torch napari scipy.stats zarr dask pandas typer.rich_utils rich.markdown"
_FIRST = "numpy pydantic cv2 tifffile napari_her2.slide"  # what takes longest of what a slide needs


@pytest.mark.parametrize(
    ("arguments", "slow"),
    [
        (["--version"], f"{_SLOW} {_FIRST} rich"),
        (["--help"], f"{_SLOW} {_FIRST} rich napari_her2.commands.score napari_her2.commands.models"),
        (["models", "list"], f"{_SLOW} {_FIRST} napari_her2.commands.score"),
        (["score", "--help"], f"{_SLOW} pydantic tifffile"),
        (["info", "SLIDE"], _SLOW),
    ],
)
def test_a_start_loads_nothing_that_takes_long_and_is_not_needed(arguments, slow, he_slide):
    code = (
        "import sys\n"
        "from napari_her2.cli import app\n"
        "app(sys.argv[2:], standalone_mode=False)\n"
        "found = set(sys.argv[1].split()) & set(sys.modules)\n"
        "assert not found, found\n"
    )
    words = [str(he_slide) if word == "SLIDE" else word for word in arguments]
    done = subprocess.run(
        [sys.executable, "-c", code, slow, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_help_lists_each_command_as_its_own_help_begins():
    group = typer.main.get_command(app)
    own = {name: group.get_command(None, name).help.split("\n\n")[0] for name in _COMMANDS}
    assert {name: " ".join(words.split()) for name, words in own.items()} == {
        name: kept.words for name, kept in _COMMANDS.items()
    }


def test_help_tells_every_command_with_what_it_does_and_suggests_one_for_a_typo():
    told = run("--help").stdout
    for name, does in {
        "info": "Show dimensions, levels",
        "score": "Score slides",
        "embed": "Write the features",
        "phantom": "Make a synthetic cohort",
        "demo": "Open napari on a synthetic case",
        "cache": "Show where embeddings",
        "open": "Open napari with slides",
        "bench": "Run a benchmark",
        "train": "Train a model",
        "report": "Write one page about a result",
        "replay": "Score again as it was recorded",
        "export": "Make one model of a training",
        "models": "List, show, add, import and verify models",
    }.items():
        assert re.search(rf"{name} +{does}", told), name
    assert "Did you mean 'score'" in run("scor").stderr


def test_python_m_prints_the_version():
    done = subprocess.run(
        [sys.executable, "-m", "napari_her2", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"napari-her2 {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["score"], ["nonsense"], ["info", "--mpp", "1"], ["score", "a.svs", "--model", "m"]]
)
def test_wrong_usage_is_2(arguments):
    assert run(*arguments).exit_code == 2


def test_info_prints_what_the_file_says(he_slide):
    values = json.loads(run("info", he_slide, "--json").stdout)
    assert values["shape"] == [1536, 1536]
    assert values["mpp"] == [0.5, 0.5]
    assert values["mpp_source"] == "Aperio header"
    assert values["levels"][0]["downsample"] == [1.0, 1.0]
    text = run("info", he_slide).stdout
    assert "1,536 x 1,536 px" in text
    assert "tiffslide" in text


def test_info_without_a_slide_says_what_this_machine_computes_on(monkeypatch):
    monkeypatch.setenv("NAPARI_HER2_PRECISION", "float32")
    values = json.loads(run("info", "--json").stdout)
    assert values["version"] == __version__
    assert (values["precision"], values["precision_reason"]) == ("float32", "chosen by the user")
    assert values["jpeg"] == "by the processor"
    text = re.sub(r"\s+", " ", run("info").stdout)
    assert f"device │ {values['device']}" in text
    assert "features │ float32 (chosen by the user)" in text
    monkeypatch.setenv("NAPARI_HER2_PRECISION", "half")
    assert "no precision 'half'" in one_line(run("info"))


def test_info_of_a_real_slide(shared_data):
    values = json.loads(run("info", shared_data / "slides" / "cmu1_small_region.svs", "--json").stdout)
    assert values["shape"] == [2967, 2220]
    assert values["mpp"] == [0.499, 0.499]
    assert values["objective"] == 20
    assert set(values["associated_images"]) == {"label", "macro", "thumbnail"}


def test_info_says_where_the_scale_is_missing(tmp_path):
    path = write_flat_slide(tmp_path / "a.svs", mpp=None)
    assert "give it with --mpp" in run("info", path).stdout
    assert "0.25 x 0.25" in run("info", path, "--mpp", "0.25").stdout


def test_info_says_what_is_kept_of_the_work_on_a_slide(tmp_path):
    path = write_flat_slide(tmp_path / "a.svs")
    assert json.loads(run("info", path, "--json").stdout)["kept"] is None
    with open_slide(path) as slide:
        fingerprint = slide.fingerprint
    Desk().change(fingerprint, lambda kept: replace(kept, own_score=ManualScore("3+")))
    assert "your own score" in run("info", path).stdout
    kept = json.loads(run("info", path.rename(tmp_path / "moved.svs"), "--json").stdout)["kept"]
    assert kept["bytes"] == Desk().size(fingerprint) > 0


def test_score_prints_its_table_with_the_notice_and_writes_the_files(he_slide, tiny_model, tmp_path):
    result = run("score", he_slide, "--model", tiny_model, "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 0, result.output
    for text in (NOTICE, "H&E-based prediction", "P(2+)", "margin", "training data", "cpu (", "tiffslide"):
        assert text in result.stdout
    assert result.stderr == ""
    values = json.loads((tmp_path / "out" / he_slide.stem / "result.json").read_text(encoding="utf-8"))
    assert values["label"] in result.stdout


def test_one_bad_slide_does_not_stop_the_others(he_slide, tiny_model, tmp_path):
    bad = tmp_path / "bad.svs"
    bad.write_text("text")
    result = run("score", bad, he_slide, "--model", tiny_model, "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "bad.svs" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [he_slide.stem, "scores.csv"]


def test_regions_belong_to_one_slide(he_slide, tiny_model, tmp_path):
    arguments = (
        "score",
        he_slide,
        he_slide,
        "--model",
        tiny_model,
        "--out",
        tmp_path,
        "--regions",
        "r.geojson",
    )
    assert run(*arguments).exit_code == 2


def test_embed_writes_the_same_tiles_as_the_stream(he_slide, tiny_model, tmp_path):
    result = run("embed", he_slide, "--encoder", tiny_model, "--out", tmp_path, "--device", "cpu")
    assert result.exit_code == 0, result.output
    with open_slide(he_slide) as slide:
        keep = slide.tissue("auto").keep(slide.tile_grid(96, 0.5))
        origins = np.concatenate([b.origins_px0 for b in slide.tiles(tile_px=96, mpp=0.5, keep=keep)])
    with h5py.File(tmp_path / f"{he_slide.stem}.h5") as file:
        assert file["coords"][:].tolist() == origins[:, ::-1].tolist()
        assert file["features"].shape == (len(origins), 1024)
        assert file.attrs["encoder"] == "alexnet"
    assert [path.name for path in tmp_path.iterdir()] == [f"{he_slide.stem}.h5"]


@pytest.mark.parametrize("more", [[], ["--pretrained", "--weights", "w.safetensors"]])
def test_an_encoder_by_name_needs_its_weights_said(he_slide, tmp_path, more):
    assert run("embed", he_slide, "--encoder", "alexnet", "--out", tmp_path, *more).exit_code == 2


def test_embed_refuses_two_slides_of_one_name(tiny_model, tmp_path):
    assert run("embed", "a/x.svs", "b/x.svs", "--encoder", tiny_model, "--out", tmp_path).exit_code == 2


def test_models_are_added_shown_verified_and_listed(tiny_model):
    assert run("models", "add", tiny_model).exit_code == 0
    assert "tiny" in run("models").stdout
    assert "tiny" in run("models", "list").stdout
    assert "random weights" in run("models", "show", "tiny").stdout
    assert "is good" in run("models", "verify", "tiny").stdout
    assert "no model called" in one_line(run("models", "show", "tinny"))


def test_phantom_writes_a_cohort(tmp_path):
    result = run("phantom", "--out", tmp_path, "--cases", 1, "--seed", 1, "--size-px", 1024)
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "manifest.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("case_id,he,ihc,score")
    assert len(lines) == 2


def test_bench_lists_and_refuses_unknown_names():
    assert "score_slide" in run("bench").stdout.splitlines()
    assert "no benchmark called 'nonsense'" in one_line(run("bench", "nonsense"))


def test_cache_shows_and_clears(he_slide, tiny_model, tmp_path):
    run("score", he_slide, "--model", tiny_model, "--out", tmp_path, "--device", "cpu")
    assert "0.0 MB were freed" not in run("cache", "--clear").stdout
    assert "0.0 MB were freed" in run("cache", "--clear").stdout


@pytest.mark.parametrize(
    "arguments", [["--debug", "info", "nothing.svs"], ["info", "nothing.svs", "--debug"]]
)
def test_a_traceback_only_with_debug(arguments):
    result = run(*arguments)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "Traceback" not in run("info", "nothing.svs").stderr


def test_an_interrupt_is_130_without_a_traceback(monkeypatch):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_her2.slide.reader.open_slide", interrupted)
    result = run("info", "a.svs")
    assert result.exit_code == 130
    assert result.stderr == "napari-her2: Cancelled.\n"


def test_a_fault_of_our_own_is_one_line_that_says_how_to_report_it(monkeypatch):
    def broken(*_arguments, **_options):
        raise ZeroDivisionError("one\ntwo\x1b[31m")

    monkeypatch.setattr("napari_her2.slide.reader.open_slide", broken)
    line = one_line(run("info", "a.svs"))
    assert "--debug" in line
    assert "\x1b" not in line


@pytest.mark.parametrize("loaded", [False, True])
def test_training_without_its_extra_says_what_to_install(monkeypatch, tmp_path, loaded):
    if loaded:  # what other tests of this process left behind
        monkeypatch.setitem(sys.modules, "napari_her2_training.command", ModuleType("command"))
    monkeypatch.setitem(sys.modules, "napari_her2_training", None)
    arguments = ("--config", "demo_attention_mil", "--data", tmp_path / "manifest.csv", "--out", tmp_path)
    assert "napari-her2[training]" in one_line(run("train", "attention-mil", *arguments))


def test_an_ascii_terminal_gets_question_marks_not_an_error(he_slide):
    done = subprocess.run(
        [sys.executable, "-m", "napari_her2", "info", str(he_slide)],
        capture_output=True,
        check=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": "", "HOME": str(he_slide.parent)},
    )
    assert b"0.5 x 0.5" in done.stdout
    assert done.stderr == b""


class _Check:
    """What a check hands over, by hand."""

    facts = (("Cases", "8"), ("Estimated time", "12 minutes"))
    warnings = ("Slide a.svs is blurred.",)

    def __init__(self, *faults):
        self.faults = faults

    def to_json(self):
        return {"faults": list(self.faults), "facts": [list(fact) for fact in self.facts]}


@pytest.fixture
def checks(monkeypatch):
    """Answers of the dry run; what was asked for is kept."""
    asked = {}

    def answer(*faults):
        def check_steps(method, **options):
            asked.update(options, method=method)
            return _Check(*faults)
            yield

        module = SimpleNamespace(check_steps=check_steps)
        monkeypatch.setitem(sys.modules, "napari_her2_training.dry_run", module)
        return asked

    return answer


def test_a_dry_run_prints_what_it_found_and_writes_nothing(checks, tmp_path):
    asked = checks()
    result = run("train", "wsmcl", "--data", "m.csv", "--dry-run", "--device", "cpu")
    assert result.exit_code == 0, result.output
    for text in ("Cases", "8", "12 minutes", "Slide a.svs is blurred."):
        assert text in result.stdout
    assert (asked["method"], asked["device"], asked["out"]) == ("wsmcl", "cpu", None)
    assert str(asked["data"]) == "m.csv"


def test_a_dry_run_names_each_fault_and_fails(checks):
    checks("Row 3: no slide.", "Row 9: no score.")
    result = run("train", "wsmcl", "--dry-run")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["napari-her2: Row 3: no slide.", "napari-her2: Row 9: no score."]
    result = run("train", "wsmcl", "--dry-run", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["faults"] == ["Row 3: no slide.", "Row 9: no score."]


def test_an_error_is_told_in_fields_too(monkeypatch, tmp_path):
    def export(*_: object, **__: object) -> None:
        raise ModelNameTaken("Another model called tiny is installed.")

    monkeypatch.setattr("napari_her2.commands.runs.training", lambda: SimpleNamespace(export=export))
    result = run("export", tmp_path, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert (told["kind"], told["message"]) == ("ModelNameTaken", "Another model called tiny is installed.")
    assert "--force" in result.stderr


@pytest.mark.parametrize("arguments", [["wsmcl"], ["--out", "x"], ["wsmcl", "--json"]])
def test_training_without_method_or_folder_is_wrong_usage(arguments):
    assert run("train", *arguments).exit_code == 2
