"""The demonstrations, each to its picture."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import imageio.v3 as imageio
import pytest

from napari_her2.models.registry import add_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def demonstrations(
    tmp_path_factory: pytest.TempPathFactory, random_model_file: Callable[[], Path]
) -> tuple[Path, dict[str, str]]:
    """Folder of a picture of each demonstration, and the layers that were seen in it: one after the other.

    Of a case that looks familiar to the bundled models: of one that does not they show no map of a class.
    """
    folder = tmp_path_factory.mktemp("demonstrations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_HER2_CACHE", str(folder / "cache"))
        patch.setenv("NAPARI_HER2_MODELS", str(folder / "models"))
        patch.setenv("NAPARI_HER2_ALIGNMENTS", str(folder / "alignments"))
        names = [add_model(random_model_file()).name, "demo-low-resolution", "demo-corr-a-net"]
        code = (
            "import gc\n"
            "from pathlib import Path\n"
            "import napari\n"
            "from napari_her2._napari.sample_data import PhantomCase\n"
            "from napari_her2._qt.demo import run_demo\n"
            "take = napari.Viewer.screenshot\n"
            "def told(viewer, *args, **options):\n"
            "    print(name, *(layer.name for layer in viewer.layers if layer.visible), sep='; ')\n"
            "    return take(viewer, *args, **options)\n"
            "napari.Viewer.screenshot = told\n"
            f"for name in {names!r}:\n"
            f"    run_demo(Path({str(folder)!r}) / f'{{name}}.png', model=name, size=(1366, 768),\n"
            "             case=PhantomCase('small', '3+', 10, 1536, 0.5))\n"
            "    gc.collect()\n"
            "    gc.freeze()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if "; " in line]
    return folder, dict(line.split("; ", 1) for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("random-attention-mil", ("attention",)),
        ("demo-low-resolution", ("Grad-CAM", "HER2")),
        ("demo-corr-a-net", ("correlated representation", "HE")),
    ],
)
def test_the_demonstration_saves_its_window(
    demonstrations: tuple[Path, dict[str, str]], model: str, shown: tuple[str, ...]
) -> None:
    folder, layers = demonstrations
    shot = imageio.imread(folder / f"{model}.png")
    assert shot.shape[1] >= 1200
    assert shot[..., :3].std() > 20
    assert any(all(words in name for words in shown) for name in layers[model].split("; "))


def test_the_demonstration_without_a_display_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_her2._qt.demo import run_demo
    from napari_her2.errors import JobFailed

    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(JobFailed, match="xvfb-run"):
        run_demo()
