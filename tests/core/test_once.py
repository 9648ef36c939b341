"""What two threads ask for at a time is found once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_her2 import score_slide
from napari_her2._napari import work
from napari_her2._napari.work import finding_ahead
from napari_her2.errors import SlideError
from napari_her2.inference import fit, loaded
from napari_her2.models.registry import add_model, load_model
from napari_her2.slide import tissue
from napari_her2.slide.once import Once
from napari_her2.slide.reader import open_slide

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.slide.tissue import TissueMask


class Calls:
    """Counts the calls of a function, and holds the first one until it is let go."""

    def __init__(self, of: object) -> None:
        self.of, self.count = of, 0
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, *arguments: object) -> object:
        self.count += 1
        self.begun.set()
        assert self.go_on.wait(60)
        return self.of(*arguments)


def test_what_failed_is_tried_again_by_the_next_to_ask() -> None:
    once = Once[int]()
    with pytest.raises(SlideError):
        once.get("a", damaged)
    assert once.get("a", lambda: 7) == 7
    assert once.get("a", lambda: 8) == 7
    assert once.get("b", lambda: 9) == 9


def damaged() -> int:
    raise SlideError("damaged")


def test_a_scoring_waits_for_the_tissue_that_is_being_found_ahead(
    he_slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_slide(he_slide) as alone:
        expected = alone.tissue().mask
    finding = Calls(tissue.find_tissue)
    monkeypatch.setattr(tissue, "find_tissue", finding)
    with open_slide(he_slide) as slide, ThreadPoolExecutor(2) as threads:
        ahead = threads.submit(lambda: list(finding_ahead([slide], "auto")))
        assert finding.begun.wait(60)
        scoring = threads.submit(slide.tissue)
        finding.go_on.set()
        ahead.result(60)
        found: TissueMask = scoring.result(60)
        assert found is slide.tissue()
    assert finding.count == 1
    assert np.array_equal(found.mask, expected)


def test_what_is_found_ahead_is_not_found_again(he_slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(he_slide) as slide:
        list(finding_ahead([slide], "biopsy"))
        monkeypatch.setattr(tissue, "find_tissue", lambda *_: damaged())
        monkeypatch.setattr(fit, "guess_stain", lambda *_: damaged())
        assert fit.slide_stain(slide, slide.tissue("biopsy"), "biopsy") == "H&E"
        with pytest.raises(SlideError):  # of another preset nothing is known
            slide.tissue("resection")


def test_a_model_is_loaded_ahead_once_and_one_that_is_large_is_not(
    he_slide: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NAPARI_HER2_MODELS", str(tmp_path))
    entry = add_model(tiny_model)
    loads: list[object] = []
    monkeypatch.setattr(loaded, "load_model", lambda of: loads.append(of) or load_model(of))
    with open_slide(he_slide) as slide:
        with monkeypatch.context() as smaller:
            smaller.setattr(work, "_LOADED_AHEAD_BYTES", entry.path.stat().st_size - 1)
            list(finding_ahead([slide], "auto", entry, "cpu"))
        assert not loads
        list(finding_ahead([slide], "auto", entry, "cpu"))
        assert loads == [entry.name]
        score_slide(slide, entry.name, device="cpu", cache=False)
    assert loads == [entry.name]


def test_the_stain_of_one_preset_is_not_that_of_another(he_slide: Path) -> None:
    with open_slide(he_slide) as slide:
        found = slide.tissue()
        nothing = replace(found, mask=np.zeros_like(found.mask))
        assert fit.slide_stain(slide, nothing, "resection") == "unknown"
        assert fit.slide_stain(slide, found, "auto") == "H&E"


def test_of_a_slide_that_is_closed_nothing_is_found_and_nothing_said(he_slide: Path) -> None:
    with open_slide(he_slide) as closed, open_slide(he_slide) as other:
        closed.close()
        list(finding_ahead([closed, other], "auto"))
        with pytest.raises(SlideError, match="was closed"):
            closed.tissue()
        assert other.tissue().mask.any()


def test_a_slide_that_is_closed_while_its_tissue_is_found_has_none(
    he_slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = Calls(tissue.find_tissue)
    monkeypatch.setattr(tissue, "find_tissue", finding)
    with open_slide(he_slide) as slide, ThreadPoolExecutor(1) as threads:
        found = threads.submit(slide.tissue)
        assert finding.begun.wait(60)
        slide.close()
        finding.go_on.set()
        with pytest.raises(SlideError, match="was closed"):
            found.result(60)


def test_what_is_known_waits_for_nobody() -> None:
    once, at_it, go_on = Once[int](), threading.Event(), threading.Event()
    assert once.get("known", lambda: 1) == 1

    def slow() -> int:
        at_it.set()
        assert go_on.wait(60)
        return 2

    with ThreadPoolExecutor() as pool:
        found = pool.submit(once.get, "looked for", slow)
        assert at_it.wait(60)
        asked = pool.submit(once.get, "known", lambda: 3)
        try:
            assert asked.result(20) == 1
        finally:
            go_on.set()
        assert found.result(60) == 2
