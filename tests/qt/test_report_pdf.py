"""The page of a result as PDF: one page, whole or not there, and written from the dock in a thread."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QSize

from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.session import session_of
from napari_her2._napari.settings import Settings
from napari_her2._qt.parts.pdf import write_pdf
from napari_her2._qt.scoring.report_job import with_ending
from napari_her2._qt.scoring.result_panel import ResultPanel
from napari_her2.desk.own_score import ManualScore
from napari_her2.errors import JobFailed
from napari_her2.export.tables import write_result
from napari_her2.reports.of_result import report_steps
from napari_her2.steps import finished
from scored import make_field_result, make_image_result, make_pair, make_result, make_slide

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

pdf = pytest.importorskip("PyQt6.QtPdf")


def opened(path: Path):
    document = pdf.QPdfDocument(None)
    document.load(str(path))
    return document


@pytest.mark.parametrize("make", [make_result, make_pair, make_field_result, make_image_result])
def test_an_ordinary_result_is_one_page_with_its_text(qapp, make, tmp_path: Path) -> None:
    result = make()
    page = finished(report_steps(result))
    assert write_pdf(page, tmp_path / "a.pdf") == 1
    document = opened(tmp_path / "a.pdf")
    assert document.pageCount() == 1
    size = document.pagePointSize(0)
    assert (round(size.width()), round(size.height())) == (595, 842)  # A4
    text = document.getAllText(0).text()
    for words in ("Research use only", result.slide, page.answer.heading, "napari-her2"):
        assert words in text.replace("\r\n", " ").replace("\n", " ")
    picture = document.render(0, QSize(300, 424))
    ink = [picture.pixelColor(x, y).alpha() > 100 for x in range(0, 300, 3) for y in range(0, 424, 3)]
    assert 0.02 < sum(ink) / len(ink) < 0.9
    bottom = [picture.pixelColor(x, y).alpha() for x in range(0, 300, 3) for y in range(412, 424)]
    assert not any(bottom)  # nothing runs over the margin


def test_what_is_too_long_for_a_page_gets_smaller_and_then_another_page(qapp, tmp_path: Path) -> None:
    result = replace(make_result(), training_data="long words of it, " * 40)
    page = finished(report_steps(result))
    assert write_pdf(page, tmp_path / "a.pdf") == 1
    endless = replace(page, warnings=tuple(f"Warning {n}: {'words ' * 30}" for n in range(200)))
    assert write_pdf(endless, tmp_path / "b.pdf") == opened(tmp_path / "b.pdf").pageCount() > 1


def test_a_full_disk_leaves_no_pdf_behind(qapp, tmp_path: Path, monkeypatch) -> None:
    page = finished(report_steps(make_result()))
    write_pdf(page, tmp_path / "a.pdf")
    before = (tmp_path / "a.pdf").read_bytes()
    written = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        written(self, data[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(JobFailed, match=r"a\.pdf cannot be written \(No space left on device\)"):
        write_pdf(page, tmp_path / "a.pdf")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pdf"]
    assert (tmp_path / "a.pdf").read_bytes() == before
    monkeypatch.undo()
    with pytest.raises(JobFailed, match="cannot be written"):
        write_pdf(page, tmp_path / "a.pdf" / "under-a-file.pdf")


def test_the_command_needs_no_display(tmp_path: Path, monkeypatch) -> None:
    folder = write_result(make_result(), tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run(
        [sys.executable, "-m", "napari_her2", "report", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "her2-report.pdf").read_bytes().startswith(b"%PDF")
    assert (folder / "her2-report.html").stat().st_size > 1000


@pytest.fixture
def panel(qtbot: QtBot):
    viewer, slide = ViewerModel(), make_slide()
    session = session_of(viewer)
    data, options, _ = slide_layer(slide)
    viewer.add_image(data, **options)
    shown = ResultPanel(session, Settings())
    qtbot.addWidget(shown)
    result = make_result(slide)
    session.set_result(result, OverlayLook())
    session.set_manual(slide.slide_id, ManualScore("3+", "", "typed by hand"))
    shown.show_slide(result.slide_id)
    yield shown
    shown.shutdown()


@pytest.mark.parametrize("ending", [".pdf", ".html"])
def test_the_button_writes_it_in_a_thread(panel, qtbot: QtBot, tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"report{ending}"
    with qtbot.waitSignal(panel.report_job.returned, timeout=60_000):
        panel.report_to(target)
        assert not panel.card.report.isEnabled()
    assert panel.card.report.isEnabled()
    assert str(target) in panel.exported.text()
    text = target.read_text(encoding="utf-8") if ending == ".html" else opened(target).getAllText(0).text()
    assert "typed by hand" in text
    assert panel.card.report.toolTip()


def test_a_name_without_an_ending_is_a_pdf(tmp_path: Path) -> None:
    assert with_ending(tmp_path / "a").name == "a.pdf"
    assert with_ending(tmp_path / "a.HTML").name == "a.HTML"
    assert with_ending(tmp_path / "case.1").name == "case.1.pdf"


def test_a_report_that_cannot_be_written_is_said(panel, qtbot: QtBot, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with qtbot.waitSignal(panel.failed, timeout=60_000) as failed:
        panel.report_to(tmp_path / "file" / "a.pdf")
    assert "cannot be written" in failed.args[0].message
