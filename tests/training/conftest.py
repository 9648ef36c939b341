"""Cohorts of phantom slides, made once."""

from __future__ import annotations

import shutil
from functools import cache
from typing import TYPE_CHECKING

import pytest

from napari_her2.phantom import cohort_steps

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def cohort_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, Path], Path]:
    """Copy a cohort of so many cases of 768 px, a quarter of each score, to a folder: gives its manifest."""

    @cache
    def made(cases: int) -> Path:
        folder = tmp_path_factory.mktemp("cohort")
        for _ in cohort_steps(folder, cases=cases, seed=3, size_px=768):
            pass
        return folder

    def copied(cases: int, folder: Path) -> Path:
        shutil.copytree(made(cases), folder, dirs_exist_ok=True)
        return folder / "manifest.csv"

    return copied
