"""What layers need is loaded in a thread before napari's main thread would wait for it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from npe2 import PluginManager

from napari_her2._napari import ahead

if TYPE_CHECKING:
    from pathlib import Path

# napari's first layers after what was loaded ahead: which modules the main thread has still to import.
_SCRIPT = """
import json, sys, threading
import napari.layers, pint
import numpy as np
from pint.registry import LazyRegistry
from qtpy.QtCore import QCoreApplication, QEventLoop

app = QCoreApplication([])
if "ahead" in sys.argv:
    from napari_her2._qt.parts.ahead import load_ahead

    job = load_ahead()
    assert load_ahead() is job
    threads = {one.name for one in threading.enumerate()}
    while job.running:
        app.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents, 100)
    assert any(name.startswith("napari-her2 job") for name in threads), threads
before = set(sys.modules)
unread = isinstance(pint.get_application_registry().get(), LazyRegistry)
napari.layers.Image(np.zeros((8, 8), np.float32), units=("um", "um"))
napari.layers.Labels(np.zeros((8, 8), np.uint16), features={"index": [0, 1]})
shapes = napari.layers.Shapes(ndim=2, units=("um", "um"))
shapes.add([np.array([(0.0, 0.0), (0.0, 4.0), (4.0, 4.0)])], shape_type="polygon")
print(json.dumps([unread, sorted(set(sys.modules) - before), str(shapes.units[0])]))
"""


def first_layers(tmp_path: Path, *arguments: str) -> tuple[bool, list[str], str]:
    script = tmp_path / "first_layers.py"
    script.write_text(_SCRIPT)
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    unread, imported, unit = json.loads(done.stdout.splitlines()[-1])
    return unread, imported, unit


def test_the_first_layers_find_all_that_they_need(tmp_path: Path) -> None:
    unread, imported, unit = first_layers(tmp_path)
    assert unread
    assert len(imported) > 300  # or there is nothing to load ahead any more
    assert first_layers(tmp_path, "ahead") == (False, [], unit)


def test_units_that_napari_has_read_itself_are_left_alone(tmp_path: Path) -> None:
    code = (
        "import pint\n"
        "from napari_her2._napari.ahead import made_units, take_units\n"
        "made = made_units()\n"
        "assert made is not None and made.um == made.micrometer\n"
        "own = pint.get_application_registry()\n"
        "length = 2 * own.um\n"  # napari reads them meanwhile
        "take_units(made)\n"
        "assert (length + 1 * pint.get_application_registry().um).magnitude == 3\n"
        "assert made_units() is None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("window", [True, False])
def test_the_docks_are_imported_where_there_is_a_window_and_make_nothing_of_qt(window: bool) -> None:
    # Without an application Qt ends the process at the first widget.
    code = (
        f"import sys\n{'import qtpy.QtWidgets' if window else ''}\n"
        "from npe2 import PluginManager\n"
        "PluginManager.instance().discover()\n"
        "from napari_her2._napari import ahead\n"
        "thread = ahead.begin()\n"
        "assert ahead.begin() is thread\n"
        "thread.join()\n"
        "rooms = ('scoring', 'training', 'reading', 'day_list')\n"
        "docks = {f'napari_her2._qt.{room}.dock' for room in rooms}\n"
        f"assert docks & set(sys.modules) == (docks if {window} else set())\n"
        f"assert ('qtpy' in sys.modules) == {window}\n"
        "assert {'pandas', 'skimage.color', 'scipy.ndimage'} <= set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_the_plugin_being_found_no_dock_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PluginManager, "__contains__", lambda _manager, _name: False)
    assert ahead._docks() == []
    assert len(list(ahead.importing())) > 0
