"""The first dry run reads every slide whole: it tells how far it is, and stops when it is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.phantom import make_pair
from napari_her2.slide import identity
from napari_her2_training.cohort.counting import Counted, count_slides
from napari_her2_training.cohort.manifest import Case
from napari_her2_training.findings import Findings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from napari_her2.slide.reader import Slide


def test_a_first_dry_run_tells_how_far_it_has_read_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "SMALL_BYTES", 0)
    pair = make_pair(tmp_path, "a", score="0", seed=1, size_px=512)
    case = Case(2, "a", pair.he, None, "0")

    def count(slide: Slide, case: Case) -> Counted:
        assert slide.identity.known is not None
        return Counted(case, 1)

    def steps() -> object:
        return count_slides([case], "he", count, Findings(), check=False, identify=True)

    begun = iter(steps())  # type: ignore[call-overload]
    told = [next(begun) for _ in range(3)]
    begun.close()
    assert [step.unit for step in told] == ["slides", "MB", "MB"]
    seen = list(steps())  # type: ignore[call-overload]
    assert "MB" in {step.unit for step in seen}
    assert seen[-1].done == 1
