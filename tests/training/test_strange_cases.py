"""Strange slides beside judged cases of several slides: each slide counts once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from napari_her2.steps import finished
from napari_her2_training.cohort.manifest import Case
from napari_her2_training.reporting import strange
from scored import make_result, make_slide, with_doubt

if TYPE_CHECKING:
    from collections.abc import Generator

CASES = [
    Case(2, "7", Path("a.svs"), Path("shared.svs"), "2+"),
    Case(3, "7", Path("b.svs"), Path("shared.svs"), "2+"),
    Case(4, "8", Path("c.svs"), Path("d.svs"), "0"),
]


def scored(path: Path, _bundle: object, ihc: Path | None, **_: object) -> Generator[object, None, object]:
    """A pair, as scoring gives it."""
    yield None
    result = with_doubt(make_result(make_slide(name=path.stem)), "familiar")
    (one,) = result.slides
    slides = [replace(one, path=own) for own in (path, ihc) if own is not None]
    return SimpleNamespace(slides=tuple(slides), label="2+")


@pytest.mark.parametrize("way", ["each", "joined answers", "joined bags"])
def test_a_slide_that_serves_several_rows_counts_once(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strange, "score_steps", scored)
    monkeypatch.setattr(strange, "read_card", lambda path: SimpleNamespace(familiarity=1))
    monkeypatch.setattr(strange, "load_bundle", lambda path: None)
    monkeypatch.setattr(strange, "_judged_cases", lambda run: CASES)
    run = SimpleNamespace(
        record={"bundle": "written", "model": "m", "stain": "H&E + IHC"},
        folder=Path(),
        case_slides=way,
        settings=lambda: SimpleNamespace(confidence=0.95),
    )
    monkeypatch.setattr(strange, "slides_of", lambda case, stain: [case.he, case.ihc])
    found = finished(strange.strange_steps(run, [Path("odd.svs"), Path("b.svs")], device="cpu"))
    judged = [one.slide for one in found.seen if one.group == "judged"]
    assert sorted(judged) == ["a.svs", "b.svs", "c.svs", "d.svs", "shared.svs"]
    assert found.unlike["judged"].slides == 5
    answers = {one.slide: one.answer for one in found.seen if one.group == "judged"}
    assert answers["c.svs"] == "2+"
    assert answers["a.svs"] == ("2+" if way == "each" else "2+ (its slide alone)")
    refused = next(one for one in found.seen if one.slide == "b.svs" and one.group == "strange")
    assert "one of the judged slides" in refused.reason
