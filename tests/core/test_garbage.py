"""How often Python searches the whole process for garbage."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from napari_her2._napari.collecting import search_seldom

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize(
    ("before", "after"),
    [((700, 10, 10), (700, 10, 100)), ((700, 10, 1000), (700, 10, 1000)), ((0, 10, 10), (0, 10, 10))],
)
def test_only_searches_of_all_become_rarer(before: tuple[int, int, int], after: tuple[int, int, int]) -> None:
    gc.set_threshold(*before)
    search_seldom()
    assert gc.get_threshold() == after
    search_seldom()
    assert gc.get_threshold() == after
