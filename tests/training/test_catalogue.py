"""The methods as they are listed are the methods there are, and their configurations are good."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from napari_her2.cli import app
from napari_her2_training.config import find_config, read_config
from napari_her2_training.methods import CONFIGS, METHODS, about_config


def test_the_list_is_read_without_pytorch() -> None:
    listed = "import sys, napari_her2_training.methods; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", listed], check=False).returncode == 0


def test_the_documentation_has_every_method() -> None:
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    assert [name for name in METHODS if f"`{name}`" not in text and f"train {name}" not in text] == []


def test_every_configuration_that_comes_with_the_package_is_listed() -> None:
    listed = {name for method in METHODS.values() for name in method.configs}
    assert listed == {path.stem for path in CONFIGS.glob("*.toml")}


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_the_listed_configurations_are_of_their_method_and_say_what_they_are(method: object) -> None:
    for name in method.configs:
        read_config(find_config(name), METHODS[method.name].config)
        about = about_config(name)
        assert len(about) > 20
        assert "napari-her2 train" not in about
    own = find_config(method.name.replace("-", "_"))  # what is taken where none is asked for
    assert method.configs[0] == own.stem or not own.exists()


def test_the_command_lists_them_for_people_and_for_programs() -> None:
    told = json.loads(CliRunner().invoke(app, ["train", "--list", "--json"]).stdout)
    assert [method["name"] for method in told["methods"]] == [method.name for method in METHODS.values()]
    assert told["methods"][0]["configs"][0]["name"] == "attention_mil"
    text = CliRunner().invoke(app, ["train", "--list"]).stdout
    assert all(method.name in text for method in METHODS.values())
