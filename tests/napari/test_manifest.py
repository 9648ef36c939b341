from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module

import pytest
from napari._app_model.constants._menus import MenuId
from npe2 import PluginManifest

PACKAGE = "napari_her2"
KNOWN_KEYS = {"commands", "readers", "sample_data", "widgets", "submenus", "menus", "configurations"}


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    import napari_her2

    folder = napari_her2.__path__[0]
    return PluginManifest.from_file(f"{folder}/napari.yaml")


@pytest.fixture(scope="module")
def written() -> dict[str, object]:
    import yaml

    import napari_her2

    with open(f"{napari_her2.__path__[0]}/napari.yaml", encoding="utf-8") as file:
        return yaml.safe_load(file)


def test_every_key_is_one_that_napari_reads(written: dict[str, object]) -> None:
    assert set(written) == {"name", "display_name", "schema_version", "contributions"}
    assert set(written["contributions"]) == KNOWN_KEYS


def test_every_command_is_declared_and_every_declared_command_is_used(manifest: PluginManifest) -> None:
    contributions = manifest.contributions
    declared = {command.id for command in contributions.commands}
    used = {reader.command for reader in contributions.readers}
    used |= {sample.command for sample in contributions.sample_data}
    used |= {widget.command for widget in contributions.widgets}
    in_menus = {
        item.command
        for items in contributions.menus.values()
        for item in items
        if getattr(item, "command", None)
    }
    assert used | in_menus == declared
    assert all(command.startswith("napari-her2.") for command in declared)


def test_every_command_leads_to_something(manifest: PluginManifest) -> None:
    for command in manifest.contributions.commands:
        module, name = command.python_name.split(":")
        assert callable(getattr(import_module(module), name)), command.id


def test_menus_and_submenus_exist(manifest: PluginManifest) -> None:
    contributions = manifest.contributions
    submenus = {submenu.id for submenu in contributions.submenus}
    offered = {str(menu) for menu in MenuId.contributables()}
    placed = set()
    for menu, items in contributions.menus.items():
        assert menu in offered | submenus, menu
        placed |= {item.submenu for item in items if getattr(item, "submenu", None)}
    assert placed == submenus


def test_there_are_no_icons_and_no_keybindings(manifest: PluginManifest) -> None:
    contributions = manifest.contributions
    # An icon makes napari ask the network when it starts; keybindings are ignored.
    assert not contributions.keybindings
    assert all(command.icon is None for command in contributions.commands)
    assert all(submenu.icon is None for submenu in contributions.submenus)


def test_settings_in_the_manifest_are_those_that_are_read(manifest: PluginManifest) -> None:
    from dataclasses import fields

    from napari_her2._napari.settings import Settings

    declared = manifest.contributions.configurations["scoring"].properties
    defaults = {field.name: field.default for field in fields(Settings)}
    assert {name: value.default for name, value in declared.items()} == defaults


def test_the_patterns_of_the_manifest_are_those_that_napari_is_told_to_prefer(
    manifest: PluginManifest,
) -> None:
    from napari_her2._napari.reader import PATTERNS

    (reader,) = manifest.contributions.readers
    assert sorted(reader.filename_patterns) == sorted(PATTERNS)


def test_what_the_manifest_names_loads_no_heavy_library(manifest: PluginManifest) -> None:
    modules = sorted({command.python_name.split(":")[0] for command in manifest.contributions.commands})
    code = (
        "import json, sys\n"
        f"for name in {modules!r}: __import__(name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    heavy = {"torch", "torchvision", "dask", "tiffslide", "openslide", "qtpy", "PyQt6", "PySide6", "napari"}
    assert not loaded & heavy
    assert "napari_her2" in loaded


def test_the_dock_opens_without_waiting_for_what_it_may_never_need() -> None:
    """SciPy's statistics alone took the main thread a second and more."""
    code = (
        "import json, sys\n"
        "import napari_her2._qt.scoring.dock\n"
        "slow = ('torch', 'pandas', 'SimpleITK', 'lightning', 'sklearn', 'matplotlib', 'scipy.stats',\n"
        "        'scipy.optimize', 'scipy.spatial', 'jinja2', 'highdicom', 'xlsxwriter')\n"
        "print(json.dumps([name for name in slow if name in sys.modules]))"
    )
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert not json.loads(done.stdout)
