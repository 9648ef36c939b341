from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from napari.components import ViewerModel

from napari_her2._napari.blinding import add_case_slide, hashing_case, opening_case, remove_case
from napari_her2._napari.keeping import keeping_of
from napari_her2._napari.layers import OverlayLook
from napari_her2._napari.session import session_of
from napari_her2._napari.tags import tag_of
from napari_her2.errors import SlideError
from napari_her2.reading.worklist import StudyCase, StudySlide
from napari_her2.slide.identity import content_sha256
from napari_her2.steps import finished
from scored import make_result, make_slide

if TYPE_CHECKING:
    from pathlib import Path


def test_no_result_is_laid_over_a_slide_that_is_blinded_and_all_is_after_it_was_revealed():
    viewer, slide = ViewerModel(), make_slide()
    session = session_of(viewer)
    layer = add_case_slide(viewer, slide, "Case 3", blinded=True)
    session.set_result(make_result(slide), OverlayLook())
    assert [shown.name for shown in viewer.layers] == ["Case 3"]
    assert (session.blinded, session.slide_layers(), session.shown(slide.slide_id)) == (True, [], None)
    assert (session.slide_of(slide.slide_id), tag_of(layer)) == (None, None)
    keeping = keeping_of(session)
    assert keeping.unsought() == []  # nothing that is kept of it is brought back
    session.reveal(layer)
    assert keeping.unsought() == [slide]
    session.set_result(make_result(slide), OverlayLook())
    assert (session.blinded, layer.name) == (False, "case-1")
    assert len(viewer.layers) > 1
    assert session.shown(slide.slide_id) is not None
    remove_case(viewer, [layer])
    assert list(viewer.layers) == []


@pytest.fixture
def real_slide(shared_data: Path) -> Path:
    return shared_data / "slides" / "cmu1_small_region.svs"


def test_a_real_case_opens_and_is_known_by_its_content(real_slide):
    case = StudyCase("a", (StudySlide(real_slide, "H&E"),))
    slides = finished(opening_case(case, "Case 1"))
    try:
        assert finished(hashing_case(case, slides)) == {"H&E": content_sha256(real_slide)}
    finally:
        for slide in slides:
            slide.close()


def test_a_missing_and_a_damaged_slide_are_refused_and_leave_nothing_open(real_slide, tmp_path):
    damaged = tmp_path / "damaged.svs"
    damaged.write_bytes(real_slide.read_bytes()[:5000])
    for bad in (damaged, tmp_path / "missing.svs"):
        case = StudyCase("a", (StudySlide(real_slide, "H&E"), StudySlide(bad, "IHC")))
        with pytest.raises(SlideError, match=bad.name):
            finished(opening_case(case, "Case 1"))
