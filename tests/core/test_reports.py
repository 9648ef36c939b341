"""The page of a result: what stands on it, what may not, and a file that is whole or not there."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from shapely.geometry import box
from sklearn.metrics import cohen_kappa_score
from typer.testing import CliRunner

from every_method import NAMES
from napari_her2 import open_slide
from napari_her2.cli import app
from napari_her2.desk.own_score import SCORES, ManualScore, write_manual
from napari_her2.errors import JobFailed
from napari_her2.explain.colours import coloured
from napari_her2.export.result_files import is_of_result
from napari_her2.export.tables import write_result
from napari_her2.inference.judging import redoubted
from napari_her2.inference.region_kinds import Region
from napari_her2.models.card import NOTICE
from napari_her2.reading.readings import Reading, ReadingFile
from napari_her2.reading.study_file import write_study
from napari_her2.reading.worklist import Study, StudyCase, StudySlide
from napari_her2.reports.html import html, write_html
from napari_her2.reports.of_result import Desk, report_steps
from napari_her2.reports.of_study import study_steps
from napari_her2.reports.pictures import (
    LONGEST_PX,
    OPACITY,
    map_picture,
    place_picture,
    slide_picture,
    view_of,
)
from napari_her2.steps import finished
from scored import make_result, make_slide, with_names

WHEN = datetime(2026, 11, 28, 19, 2, tzinfo=UTC)


class Words(HTMLParser):
    """The text of a page, and its pictures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [str(value) for name, value in attributes if name == "src"]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def opened(small_pair):
    """Both slides, by their fingerprint."""
    with open_slide(small_pair.he) as he, open_slide(small_pair.ihc) as ihc:
        yield {slide.fingerprint: slide for slide in (he, ihc)}


def page_of(result, slides=None, **desk):
    return finished(report_steps(result, slides, Desk(when=WHEN, **desk)))


@pytest.mark.parametrize("name", NAMES)
def test_every_method_has_a_page(name: str, results, opened) -> None:
    result = results[name]
    shown = Words(html(page_of(result, opened)))
    text = shown.text
    assert text.count(NOTICE) == 2
    assert result.task in text
    for scored in result.slides:
        assert scored.path.name in text
        assert scored.fingerprint[:16] in text
    assert result.model_sha256[:16] in text
    assert "not at hand" not in text
    assert len(shown.sources) >= 2
    for source in shown.sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"  # nothing is fetched from anywhere
        png = base64.b64decode(data, validate=True)
        assert cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR) is not None
    assert not {"script", "link", "iframe"} & set(shown.tags)
    if "H&E" in {slide.stain for slide in result.slides} and len(result.slides) == 1:
        assert not re.search(r"(?<!prediction of the )HER2 IHC score", text)


def test_an_answer_that_is_withheld_stands_nowhere(results, opened) -> None:
    result = results["withheld"]
    text = Words(html(page_of(result, opened))).text
    assert "withheld" in text
    assert "unlike what the model learnt from" in text
    assert "Probabilities" in text or result.score not in text
    for value in result.probabilities.values():
        assert f"{value:.3f}" not in text
    assert "Evidence" not in text  # a map of a class would give it away
    shown = redoubted(result, coverage=0.9, min_familiarity=0.01, show_withheld=True)
    page = page_of(shown, opened)
    assert page.answer.greyed
    assert "shown on request" in " ".join(page.answer.lines)
    assert f"{max(result.probabilities.values()):.3f}" in html(page)


def test_withheld_pages_do_not_depend_on_the_answer(results) -> None:
    result = results["withheld"]
    chances = dict(zip(result.classes, (0.4, 0.3, 0.2, 0.1), strict=True))
    other = redoubted(
        replace(result, probabilities=chances, score=result.classes[0]),
        coverage=0.9,
        min_familiarity=0.01,
        show_withheld=False,
    )
    assert html(page_of(result)) == html(page_of(other))


def test_without_the_slide_it_says_so_and_shows_the_maps(results) -> None:
    text = Words(html(page_of(results["attention-mil"]))).text
    assert "The file of the slide was not at hand" in text
    assert "Attention" in text


def test_what_a_person_left_stands_on_it(results, opened) -> None:
    result = results["regions"]
    square = Region(box(100, 100, 1100, 900), "left breast", "tumour")
    fold = Region(box(0, 0, 200, 100), "", "fold")
    manual = ManualScore("2+", "negative", "seen twice")
    text = Words(html(page_of(result, opened, manual=manual, regions=[square, fold]))).text
    assert "left breast tumour counted 0.2 mm²" in text  # 1000 x 800 px of 0.5 µm
    assert "without a name fold left out 0.005 mm²" in text
    assert "HER2-low (2+, ISH negative)" in text
    assert "seen twice" in text
    assert "Drawn regions" in Words(html(page_of(result, opened))).text  # those that were asked for


def test_texts_from_outside_stay_texts() -> None:
    evil = '<script>alert(1)</script>{{ 7 * 7 }}<img src="x">'
    result = with_names(make_result(make_slide(name="case")), evil, evil)
    result = replace(result, warnings=(evil,), training_data=evil)
    note = ManualScore("1+", "", evil)
    page = html(page_of(result, manual=note, regions=[Region(box(0, 0, 9, 9), evil)]))
    shown = Words(page)
    assert "script" not in shown.tags
    assert "x" not in shown.sources
    assert "{{ 7 * 7 }}" in shown.text


def test_many_warnings_and_regions_are_cut_and_counted() -> None:
    regions = [Region(box(0, 0, 10 + n, 10), f"r{n}") for n in range(40)]
    result = replace(make_result(), warnings=tuple(f"Warning {n}." for n in range(30)))
    text = Words(html(page_of(result, regions=regions))).text
    assert "and 32 smaller ones" in text
    assert "22 more in result.json" in text


def test_a_map_lies_where_its_tiles_are_in_its_own_colours() -> None:
    result = make_result()
    (scored,) = result.slides
    view = view_of(scored, None)
    assert max(view.rgb.shape) == LONGEST_PX
    tile_map = result.map("evidence", "3+")
    picture = map_picture(scored, view, tile_map, "Evidence", str)
    seen = cv2.imdecode(np.frombuffer(picture.png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(float)
    rgba = coloured(tile_map).astype(float)
    rows, cols = result.grid.shape
    for row, col in ((0, 0), (rows - 1, cols - 1), (2, 5)):
        middle = (np.array([row, col]) + 0.5) * result.grid.tile_px0
        y, x = np.floor(view.places(middle[None])[0]).astype(int)
        alpha = OPACITY * rgba[row, col, 3] / 255
        expected = (1 - alpha) * 255 + alpha * rgba[row, col, :3]
        np.testing.assert_allclose(seen[y, x], expected, atol=1)
    assert picture.low.startswith("-")


def test_regions_and_scale_bar_are_drawn_true() -> None:
    result = make_result()
    (scored,) = result.slides
    view = view_of(scored, None)
    picture = slide_picture(scored, view, [Region(box(100, 50, 500, 350))], "Slide")
    seen = cv2.imdecode(np.frombuffer(picture.png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    red = (seen[..., 0] - seen[..., 1]) > 100
    y, x = np.nonzero(red)
    px = view.pixel_px0
    assert y.min() * px[0] == pytest.approx(50, abs=3)
    assert x.max() * px[1] == pytest.approx(500, abs=3)
    black = (seen.sum(axis=2) < 60).sum(axis=1).max()
    mm = float(re.search(r"Scale bar ([\d.]+) mm", picture.caption)[1])
    assert black * px[1] * 0.5 / 1000 == pytest.approx(mm, rel=0.05)


def test_a_tile_is_cut_from_its_place(opened, results) -> None:
    slide = opened[results["attention-mil"].slide_sha256]
    picture = place_picture(slide, (300.0, 500.0), (96.0, 96.0), "1", size_px=96)
    seen = cv2.imdecode(np.frombuffer(picture.png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(seen, slide.read(0, 300 - 48, 500 - 48, 96, 96))


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch) -> None:
    page = page_of(make_result())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    target = write_html(page, tmp_path / "page.html")
    before = target.read_bytes()
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(JobFailed, match=r"page\.html cannot be written \(No space left on device\)"):
        write_html(page, target)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert target.read_bytes() == before


def test_the_command_writes_beside_the_result(results, tmp_path: Path) -> None:
    folder = write_result(results["attention-mil"], tmp_path)
    write_manual(folder, ManualScore("3+", "", ""), None)
    done = CliRunner().invoke(app, ["report", str(folder), "--html"])
    assert done.exit_code == 0, done.output
    page = folder / "her2-report.html"
    assert str(page) in done.stdout.replace("\n", "")
    assert "HER2-positive" in page.read_text(encoding="utf-8")
    assert is_of_result((page.name,))
    (folder / "manual.json").write_text('{"score": "9+", "ish": "", "note": ""}')
    for arguments in ([str(folder), "--html"], [str(tmp_path), "--html"], [str(tmp_path / "no.json")]):
        done = CliRunner().invoke(app, ["report", *arguments])
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    assert CliRunner().invoke(app, ["report", str(folder), "--out", "x.docx"]).exit_code == 2


def test_a_study_of_readers_is_a_page_too(tmp_path: Path) -> None:
    cases = tuple(StudyCase(f"case-{n}", (StudySlide(Path(f"/s/{n}.svs"), "IHC"),)) for n in range(6))
    study = Study("Pilot <b>", cases, ("Anna", "Ben"), seed=4)
    write_study(tmp_path, study)
    text = Words(html(finished(study_steps(tmp_path, WHEN)))).text
    assert "Nothing can be compared yet" in text
    for reader, scores in (("Anna", (1, 2, 3, 4, 5, 5)), ("Ben", (1, 2, 3, 5, 5, 5))):
        with ReadingFile(tmp_path, reader, "1") as file:
            for case, score in zip(cases, scores, strict=True):
                file.add(Reading(reader, case.case_id, "1", SCORES[score], seconds=30))
    page = html(finished(study_steps(tmp_path, WHEN)))
    text = Words(page).text
    assert "Pilot <b>" in text
    # 5 of 6 alike; kappa by scikit-learn with quadratic weights.
    assert "83.3 %" in text
    kappa = cohen_kappa_score([0, 1, 2, 3, 4, 4], [0, 1, 2, 4, 4, 4], weights="quadratic")
    assert f"{kappa:.3f}" in text
    assert "Anna 1 6 30 s 0: 1, ultralow: 1, 1+: 1, 2+: 1, 3+: 2" in text
    assert "1 of 6 cases are read differently in round 1" in text
    done = CliRunner().invoke(app, ["report", str(tmp_path), "--html"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "her2-report.html").is_file()
