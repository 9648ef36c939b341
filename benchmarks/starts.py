"""How long short commands and napari take to start, beside a bare Python.

    xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX +render -noreset" python benchmarks/starts.py

Every command is run in a process of its own, eleven times, one round of all after another, so that what else
the machine does meets all of them. Bytecode is kept, as installers leave it, and made in a round that does
not count: where Python may not write any, each start would compile PyTorch anew, as long as importing it
takes. Printed are the processor seconds of the process, which hardly depend on what else runs, and the wall
time, which does: median, and least to most. The last rows compare: napari with a window, with the plugin and
as if it were not installed; and `score` of a small slide with the same work in a process that has done it
once before. Without a display the rows of napari are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

COMMAND = [sys.executable, "-m", "napari_her2"]
MODEL = "demo-attention-mil"
# What is measured is the window of napari; which plugins it finds is decided by the first argument.
WINDOW = """
import importlib.metadata, sys
found = importlib.metadata.distributions
importlib.metadata.distributions = lambda **of: (one for one in found(**of) if one.name != sys.argv[1])
import napari
viewer = napari.Viewer(show=True)
from qtpy.QtWidgets import QApplication
QApplication.processEvents()
from npe2 import PluginManager
assert ("napari-her2" in PluginManager.instance()) == (sys.argv[1] != "napari-her2")
viewer.close()
"""
WORK = """
import json, sys, time
from pathlib import Path
from napari_her2 import score_slide
from napari_her2.export.tables import write_result
for _ in range(2):
    busy, wall = time.process_time(), time.perf_counter()
    write_result(score_slide(sys.argv[1], sys.argv[2], cache=False), Path(sys.argv[3]))
    busy, wall = time.process_time() - busy, time.perf_counter() - wall
print(json.dumps([busy, wall]))
"""


class Spent(NamedTuple):
    """Seconds of one run."""

    busy: float
    wall: float


def run(command: list[str]) -> Spent:
    """Run a command to its end, and return what it took.

    Raises
    ------
    RuntimeError
        If it fails.
    """
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, state, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(state)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)[:300]} ended with {process.returncode}.")
    return Spent(used.ru_utime + used.ru_stime, time.perf_counter() - start)


def warm_work(slide: Path, folder: Path) -> Spent:
    """Score a slide in a process that has done it once before, and return what the second time took."""
    command = [sys.executable, "-c", WORK, str(slide), MODEL, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Spent(*json.loads(done.stdout.splitlines()[-1]))


def row(name: str, runs: list[Spent]) -> str:
    """One line of the table."""
    cells = [
        f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
        for values in ([of.busy for of in runs], [of.wall for of in runs])
    ]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--size", type=int, default=1536, help="pixels of the small slide's side")
    parser.add_argument("--short", action="store_true", help="the short commands alone")
    options = parser.parse_args()
    from napari_her2.phantom import make_pair

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kept in ("ALIGNMENTS", "CALIBRATIONS", "DESK", "MODELS"):  # as on a machine that is new
            os.environ[f"NAPARI_HER2_{kept}"] = str(folder / kept)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        slide = make_pair(folder, "case", score="2+", seed=1, size_px=options.size, mpp=0.5).he
        out = folder / "out"
        commands = {
            "`python -c pass`": [sys.executable, "-c", "pass"],
            "`napari-her2 --help`": [*COMMAND, "--help"],
            "`napari-her2 models list`": [*COMMAND, "models", "list"],
            "`napari-her2 info SLIDE`": [*COMMAND, "info", str(slide)],
        }
        if not options.short:
            commands["`napari-her2 info`"] = [*COMMAND, "info"]
            scored = ["score", str(slide), "--model", MODEL, "--out", str(out), "--no-cache"]
            commands[f"`napari-her2 score` of {options.size} px"] = [*COMMAND, *scored]
        if not options.short and os.environ.get("DISPLAY"):
            window = [sys.executable, "-c", WINDOW]
            commands["napari with a window, without the plugin"] = [*window, "napari-her2"]
            commands["napari with a window, with the plugin"] = [*window, "none of this name"]
        runs: dict[str, list[Spent]] = {of: [] for of in commands}
        for _ in range(1 + options.rounds):
            for of, command in commands.items():
                runs[of].append(run(command))
            if not options.short:
                runs.setdefault("the same work, done before", []).append(warm_work(slide, out))
    print("| start | processor s | wall s |\n|---|---|---|")
    for of, found in runs.items():
        print(row(of, found[1:]))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"\nPython {platform.python_version()}, {options.rounds} rounds; load at the end: {load}.")


if __name__ == "__main__":
    main()
