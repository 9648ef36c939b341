from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from napari_her2._napari.sample_data import PhantomCase, ensure_phantom, phantom_layers
from napari_her2._napari.settings import Settings, apply_settings, read_settings

if TYPE_CHECKING:
    from pathlib import Path

SMALL = PhantomCase("small", "2+", seed=3, size_px=1024, mpp=0.5)


def test_pytorch_is_loaded_without_triton_which_stays_within_reach() -> None:
    """Its compiler, as slow to import as all the rest, is left to those who want it, and finds no Triton."""
    code = (
        "import sys\n"
        "from napari_her2._napari.torch_import import load_torch\n"
        "def loaded(*names):\n"
        "    return [name in sys.modules for name in names]\n"
        "load_torch()\n"
        "print(*loaded('torch', 'torch._dynamo', 'triton'))\n"
        "import torchvision\n"
        "print(*loaded('torch._dynamo', 'triton'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True False False", "True False"]


def test_the_phantom_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_HER2_CACHE", str(tmp_path))
    pair = ensure_phantom(SMALL)
    written = pair.he.stat().st_mtime_ns
    assert tmp_path in pair.he.parents
    assert ensure_phantom(SMALL) == pair
    assert pair.he.stat().st_mtime_ns == written


def test_the_phantom_pair_opens_side_by_side() -> None:
    (he, he_options, _), (ihc, ihc_options, _) = phantom_layers(SMALL)
    assert he[0].shape == ihc[0].shape == (1024, 1024, 3)
    assert he_options["scale"] == pytest.approx((0.5, 0.5))
    assert ihc_options["translate"][1] > 512


def test_the_coverage_of_the_settings_is_what_scoring_takes() -> None:
    from napari_her2.inference.options import ScoringOptions

    usual = Settings()
    assert ScoringOptions(coverage=usual.coverage, min_familiarity=usual.min_familiarity) == ScoringOptions()
    assert Settings(coverage_percent=95).coverage == 0.95


def test_settings_have_defaults_and_the_environment_is_stronger(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings() == Settings()
    monkeypatch.setenv("NAPARI_HER2_MODELS", "/given/models")
    monkeypatch.delenv("NAPARI_HER2_CACHE", raising=False)
    monkeypatch.delenv("NAPARI_HER2_PRECISION", raising=False)
    apply_settings(Settings(model_folder="/set/models", cache_folder="/set/cache", precision="bfloat16"))
    import os

    assert os.environ["NAPARI_HER2_PRECISION"] == "bfloat16"
    assert os.environ["NAPARI_HER2_MODELS"] == "/given/models"
    assert os.environ["NAPARI_HER2_CACHE"] == "/set/cache"
    # Preferences changed in the same session.
    apply_settings(Settings(cache_folder="/other/cache"))
    assert os.environ["NAPARI_HER2_MODELS"] == "/given/models"
    assert os.environ["NAPARI_HER2_CACHE"] == "/other/cache"
    assert "NAPARI_HER2_PRECISION" not in os.environ
    monkeypatch.setenv("NAPARI_HER2_PRECISION", "float32")
    apply_settings(Settings(precision="bfloat16"))
    assert os.environ["NAPARI_HER2_PRECISION"] == "float32"
    assert "NAPARI_HER2_CACHE" not in os.environ
