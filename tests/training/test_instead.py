"""What the command line puts in place of a configuration: encoder, weights, and the slides of a case."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_her2.commands import train as train_command
from napari_her2.errors import JobFailed
from napari_her2.models.case_slides import WAYS
from napari_her2_training.instead import AS_IT_IS, Instead
from napari_her2_training.methods import METHODS, find_method

MODEL = {"name": "a", "training_data": "b"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text('[model]\nname = "a"\ntraining_data = "b"\n[cases]\nslides = "each"\nrule = "highest"\n')
    return path


def test_the_way_of_joining_goes_before_that_of_the_configuration(config: Path) -> None:
    def cases(instead: Instead) -> tuple[str, str]:
        settings, _ = find_method("mil").read(config, Path("manifest.csv"), "auto", instead)
        return settings.cases.slides, settings.cases.rule

    assert cases(AS_IT_IS) == ("each", "highest")
    assert cases(Instead(case_slides="joined answers")) == ("joined answers", "highest")
    assert cases(Instead(case_slides="joined bags", case_rule="mean")) == ("joined bags", "mean")
    with pytest.raises(JobFailed, match="slides"):
        cases(Instead(case_slides="all together"))


@pytest.mark.parametrize("name", METHODS)
def test_the_ways_that_a_method_offers_are_those_that_its_configuration_takes(name: str) -> None:
    method = METHODS[name]
    taken = []
    for way in WAYS:
        try:
            method.config.parse({"model": MODEL, "cases": {"slides": way}})
        except JobFailed:
            continue
        taken.append(way)
    assert list(method.case_ways) == taken


def test_options_of_the_command_line_give_it_back() -> None:
    given = Instead("uni", "installed", "joined answers", "highest")
    assert given.flags() == [
        *("--encoder", "uni", "--weights", "installed"),
        *("--case-slides", "joined answers", "--case-rule", "highest"),
    ]
    assert AS_IT_IS.flags() == []


def test_the_command_hands_it_on(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from napari_her2.cli import app

    seen = []
    monkeypatch.setattr(train_command, "_check", lambda method, settings, **_: seen.append(settings))
    arguments = ["train", "mil", "--config", str(config), "--dry-run", "--case-slides", "joined bags"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    assert seen[0]["instead"] == Instead(case_slides="joined bags")
    sweep = ["train", "mil", "--out", str(tmp_path / "run"), "--sweep", "head.epochs=1,2", *arguments[-2:]]
    refused = CliRunner().invoke(app, sweep)
    assert refused.exit_code == 2
