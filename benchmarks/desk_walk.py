r"""A walk through the whole desk of a pathologist in a real window, with pictures and the longest stalls.

Everything is done as a person does it, through the widgets of the docks. Pictures of the window go to a
folder, and a table of the gaps between two beats of a timer is printed (see heartbeat.py).

    xvfb-run -a -s "-screen 0 1366x768x24 +extension GLX +render -noreset" \
        python benchmarks/desk_walk.py --out pictures [--real SLIDE] [--only NAME ...] [--size 1366 768]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heartbeat import Heart, Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from napari import Viewer

SIZE = (1366, 768)
"""Pixels of the window where no others are asked for: what a laptop of a hospital has."""
MODEL, SECOND, PAIR_SIZE_PX = "demo-attention-mil", "demo-wsmcl", 4096


class Desk:
    """The window, its docks, and where pictures go.

    Parameters
    ----------
    viewer : Viewer
    heart : Heart
    out : Path
    scratch : Path
    real : Path or None
    """

    def __init__(self, viewer: Viewer, heart: Heart, out: Path, scratch: Path, real: Path | None) -> None:
        self.viewer, self.heart, self.out, self.scratch, self.real = viewer, heart, out, scratch, real
        self.docks: dict[str, Any] = {}

    def dock(self, name: str) -> Any:  # noqa: ANN401 - one of our docks
        """Open a dock, or bring it to the front."""
        if name not in self.docks:
            self.docks[name] = self.viewer.window.add_plugin_dock_widget("napari-her2", name)[1]
        parent = self.docks[name].parent()
        while parent is not None and not hasattr(parent, "raise_"):
            parent = parent.parent()
        if parent is not None:
            parent.raise_()
        return self.docks[name]

    def picture(self, name: str) -> Generator[float, None, None]:
        """Save the window, once it has drawn what changed."""
        self.heart.stop()
        if "HER2 Scoring" in self.docks:
            self.docks["HER2 Scoring"].questions.hide()  # asked of whoever sits before a window
        yield 0.6
        self.viewer.screenshot(str(self.out / f"{name}.png"), canvas_only=False, flash=False)

    def show(self, widget: Any) -> None:  # noqa: ANN401 - a widget of the scoring dock
        """Scroll the scoring dock so that a part of it is seen."""
        bar = self.docks["HER2 Scoring"].scroll.verticalScrollBar()
        top = widget.mapTo(self.docks["HER2 Scoring"].scroll.widget(), widget.rect().topLeft()).y()
        bar.setValue(max(top - 8, 0))

    def close_slides(self) -> None:
        """Take all slides out, with which their overlays go."""
        for layer in list(self.viewer.layers):
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def files(self) -> list[Path]:
        """Write the phantom pair to the scratch folder."""
        from napari_her2.phantom import make_pair

        made = make_pair(self.scratch / "pair", "Case 7", score="2+", seed=11, size_px=PAIR_SIZE_PX, mpp=0.25)
        return [made.he, made.ihc]


Part = "Callable[[Desk], Iterator[Any]]"


def idle(*jobs: Any) -> Callable[[], bool]:  # noqa: ANN401 - jobs of docks
    """Return what is true once nothing of these runs."""
    return lambda: not any(job.running for job in jobs)


def main() -> None:
    """Walk, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--real", type=Path, help="a real slide that states no µm/px")
    parser.add_argument("--only", nargs="*", default=[], help="parts of the walk, by name")
    parser.add_argument("--size", nargs=2, type=int, default=SIZE, metavar=("WIDTH", "HEIGHT"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    import napari

    viewer = napari.Viewer(show=True)
    viewer.window.resize(*options.size)
    heart = Heart()
    scratch = Path(tempfile.mkdtemp(prefix="desk-walk-"))
    desk = Desk(viewer, heart, options.out, scratch, options.real)

    def steps() -> Iterator[Any]:
        for name, part in PARTS.items():
            if options.only and name not in options.only:
                continue
            heart.begin(name)
            yield from part(desk)
            heart.stop()

    walk = Walk(steps(), viewer.close)
    napari.run()
    shutil.rmtree(scratch, ignore_errors=True)
    if walk.failure is not None:
        raise walk.failure
    print("| part | median gap, ms | 95 % | longest | longest of the processor | over 50 ms |")
    print("|---|---|---|---|---|---|")
    for name, gaps in heart.parts.items():
        if gaps.wall:
            print(gaps.row(name))


# -- the parts


def open_and_score(desk: Desk) -> Iterator[Any]:
    """Open a pair by dropping it on the dock, and score the H&E slide."""
    dock = desk.dock("HER2 Scoring")
    yield lambda: dock.whole
    yield idle(dock.look_job)
    desk.heart.stop()
    files = desk.files()
    desk.heart.begin("open_and_score")
    dock.slides.opener.open_files(files)
    yield lambda: dock.slides.combo.count() == len(files)
    yield 1.0
    desk.viewer.reset_view()
    choose_slide(dock, "HE")
    choose_model(dock, MODEL)
    yield lambda: dock.progress.start.isEnabled()
    dock.progress.start.click()
    yield idle(dock.score_job)
    yield 2.0
    yield from desk.picture("scored")


def choose_slide(dock: Any, part: str) -> None:  # noqa: ANN401 - the scoring dock
    """Choose the slide whose name holds a part."""
    combo = dock.slides.combo
    combo.setCurrentIndex(next(n for n in range(combo.count()) if part in combo.itemText(n)))


def choose_model(dock: Any, name: str) -> None:  # noqa: ANN401 - the scoring dock
    """Choose a model by its name."""
    names = [entry.name for entry in dock.models.entries]
    dock.models.combo.setCurrentIndex(names.index(name))


def draw_regions(desk: Desk) -> Iterator[Any]:
    """Draw a tumour region by dragging a corner, and leave a piece of it out; the score follows."""
    dock = desk.dock("HER2 Scoring")
    dock.regions.add_layer()
    yield 0.5
    layer = dock.regions.layer
    slide = dock.slides.slide
    height, width = (side * mpp for side, mpp in zip(slide.shape, slide.mpp, strict=True))
    corners = np.array([[0.1, 0.1], [0.1, 0.5], [0.5, 0.5], [0.5, 0.1]]) * (height, width)
    layer.add_polygons([layer.world_to_data(corner) for corner in corners])
    desk.heart.begin("draw_regions")
    for step in range(30):  # a hand that pulls one corner outwards
        pulled = corners.copy()
        pulled[2] += (0.4 * height * step / 29, 0.45 * width * step / 29)
        data = list(layer.data)
        data[-1] = np.array([layer.world_to_data(corner) for corner in pulled])
        layer.data = data
        yield 0.05
    yield 2.5
    desk.show(dock.regions)
    yield from desk.picture("regions")


def look_at_quality(desk: Desk) -> Iterator[Any]:
    """Show what of the tissue is poor."""
    dock = desk.dock("HER2 Scoring")
    dock.quality.progress.start.click()
    yield idle(dock.quality.look_job)
    yield 1.0
    desk.show(dock.quality)
    yield from desk.picture("quality")


def read_by_hand(desk: Desk) -> Iterator[Any]:
    """Enter a score of one's own."""
    dock = desk.dock("HER2 Scoring")
    dock.result.manual.fields.score.value = "2+"
    dock.result.manual.fields.note.value = "weak to moderate, complete in 20 %"
    yield 0.3
    desk.show(dock.result.manual)
    yield from desk.picture("own_score")


def align(desk: Desk) -> Iterator[Any]:
    """Let the IHC slide be laid on the H&E slide, and look through the curtain."""
    dock = desk.dock("HER2 Scoring")
    view = dock.case.view
    view.automatic.start.click()
    yield 0.3
    yield idle(view.automatic.job)
    yield 1.5
    desk.show(dock.case)
    yield from desk.picture("aligned")
    view.automatic.accept.click()
    view.curtain.click()
    yield 1.5
    yield from desk.picture("curtain")
    view.curtain.click()


def report(desk: Desk) -> Iterator[Any]:
    """Write a page about the case."""
    dock = desk.dock("HER2 Scoring")
    target = desk.out / "report.pdf"
    dock.result.report_to(target)
    yield 0.2
    yield idle(*dock.result.jobs)
    yield 0.5


def second_model(desk: Desk) -> Iterator[Any]:
    """Score the pair with a second model, and look at the table of both."""
    dock = desk.dock("HER2 Scoring")
    choose_model(dock, SECOND)
    yield 0.5
    yield lambda: dock.progress.start.isEnabled()
    dock.progress.start.click()
    yield idle(dock.score_job)
    yield 2.0
    yield from desk.picture("two_models")


def come_back(desk: Desk) -> Iterator[Any]:
    """Close the slides and open them again: the work on them comes back."""
    dock = desk.dock("HER2 Scoring")
    yield 2.0  # what was done last is kept within a second
    paths = [desk.scratch / "pair" / name for name in ("Case 7_HE.svs", "Case 7_HER2.svs")]
    desk.close_slides()
    yield 1.0
    dock.slides.opener.open_files([path for path in paths if path.exists()])
    yield lambda: dock.slides.combo.count() == len(paths)
    yield 5.0
    desk.viewer.reset_view()
    dock.scroll.verticalScrollBar().setValue(0)
    yield from desk.picture("back_again")


def list_of_a_day(desk: Desk) -> Iterator[Any]:
    """Score a folder of which one slide is damaged, and open a row."""
    from napari_her2.phantom import make_pair

    folder = desk.scratch / "today"
    desk.heart.stop()
    for number, score in enumerate(("0", "1+", "3+"), start=1):
        make_pair(folder, f"case_{number}", score=score, seed=20 + number, size_px=1536, mpp=0.5)
    damaged = folder / "case_3_HE.svs"
    damaged.write_bytes(damaged.read_bytes()[:4000])
    dock = desk.dock("HER2 Day's List")
    yield idle(dock.look_job)
    desk.heart.begin("list_of_a_day")
    dock.form.source.take((folder,))
    yield idle(dock.list_job)
    dock.form.models.tick([MODEL])
    dock.form.out.edit.setText(str(desk.scratch / "results"))
    yield 0.5
    yield from desk.picture("list_before")
    desk.heart.begin("list_of_a_day")
    dock.run.start.click()
    yield 0.2
    yield idle(dock.run_job)
    yield 1.0
    yield from desk.picture("list_after")
    desk.heart.begin("list_of_a_day")
    dock.open_row(0)
    yield idle(dock.row_job)
    yield 2.0
    yield from desk.picture("list_row")


def blinded_reading(desk: Desk) -> Iterator[Any]:
    """Make a study of the list's slides and read its first case."""
    dock = desk.dock("HER2 Reading")
    desk.close_slides()
    dock.picker.new.click()
    form = dock.picker.form
    form.folder.edit.setText(str(desk.scratch / "study"))
    form.slides.edit.setText(str(desk.scratch / "today"))
    form.results.edit.setText(str(desk.scratch / "results"))
    form.title.setText("HER2, November")
    form.readers.setText("Dr Adams, Dr Baker")
    yield 0.5
    yield from desk.picture("study")
    desk.heart.begin("blinded_reading")
    form.make.click()
    yield 0.3
    yield idle(dock.study_job)
    yield 0.5
    yield idle(dock.study_job)
    dock.picker.start.click()
    yield lambda: bool(dock.view.layers)
    yield 1.5
    yield from desk.picture("reading")


def real_slide(desk: Desk) -> Iterator[Any]:
    """Open a real slide that states no µm/px."""
    if desk.real is None:
        return
    if "HER2 Reading" in desk.docks:
        desk.docks["HER2 Reading"].stop()
    desk.close_slides()
    dock = desk.dock("HER2 Scoring")
    desk.heart.begin("real_slide")
    dock.slides.opener.open_files([desk.real])
    yield lambda: dock.slides.combo.count() == 1
    yield 1.5
    desk.viewer.reset_view()
    dock.scroll.verticalScrollBar().setValue(0)
    yield from desk.picture("real_slide")


PARTS: dict[str, Any] = {
    part.__name__: part
    for part in (
        open_and_score,
        draw_regions,
        look_at_quality,
        read_by_hand,
        second_model,
        align,
        report,
        come_back,
        list_of_a_day,
        blinded_reading,
        real_slide,
    )
}


if __name__ == "__main__":
    main()
