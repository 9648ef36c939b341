"""The other commands: phantom, demo, bench and cache."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_her2.commands.bars import drive
from napari_her2.commands.console import say
from napari_her2.commands.window import window_system
from napari_her2.errors import JobFailed
from napari_her2.steps import passed_on

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_her2.steps import Progress


def phantom(
    out: Annotated[Path, typer.Option(help="Folder for the cohort.")],
    cases: Annotated[int, typer.Option(min=1, help="How many cases.")] = 4,
    test: Annotated[
        int, typer.Option(min=0, help="So many cases more, which the manifest keeps for the test.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same cohort.")] = 0,
    size_px: Annotated[int, typer.Option(min=512, help="Side of the slides, px.")] = 4096,
    mpp: Annotated[
        list[float], typer.Option(help="µm/px of the slides; give it again to take several in turn.")
    ] = [0.5],  # noqa: B006 - typer's way of a default; never changed
    cells: Annotated[
        bool, typer.Option("--cells", help="Write the truth of every cell of the IHC slides too, as NPZ.")
    ] = False,
    membranes: Annotated[
        str,
        typer.Option(
            help="plain: staining told apart by eye at once; graded: as the criteria of cells space it."
        ),
    ] = "plain",
) -> None:
    """Make a synthetic cohort: H&E and HER2 IHC slide of each case, manifest and truth."""
    from napari_her2.phantom import cohort_steps

    steps = cohort_steps(
        out, cases=cases, test=test, seed=seed, size_px=size_px, mpp=mpp, cells=cells, membranes=membranes
    )
    manifest = drive(_as_progress(steps, "Making cases", "cases"), "phantom")
    typer.echo(f"{cases + test} cases: {manifest}")


def demo(
    screenshot: Annotated[
        Path | None, typer.Option(help="Write a picture to this PNG and close; needs no display.")
    ] = None,
    slide: Annotated[
        Path | None, typer.Option(help="Your own slide (H&E) instead of the synthetic case.")
    ] = None,
    ihc: Annotated[
        Path | None, typer.Option(help="The IHC slide of the same case, for a model that takes both.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Name of a model; one that takes both slides is given both.")
    ] = "demo-attention-mil",
) -> None:
    """Open napari on a synthetic case, score it and show the overlays."""
    if ihc is not None and slide is None:
        raise typer.BadParameter("--ihc belongs to the slide that --slide names: give both.")
    if screenshot is not None and (virtual := _virtual_display()):
        raise typer.Exit(subprocess.run([*virtual, *_this_command()], check=False).returncode)
    with window_system():
        run_demo = importlib.import_module("napari_her2._qt.demo").run_demo
    say("Preparing the case and opening napari ...")
    run_demo(screenshot, slide=slide, ihc=ihc, model=model)


def _virtual_display() -> list[str] | None:
    """Command that gives another one a display, where there is none; None where it is not needed."""
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    xvfb_run = shutil.which("xvfb-run")
    if has_display or not sys.platform.startswith("linux") or xvfb_run is None:
        return None
    return [xvfb_run, "-a", "-s", "-screen 0 1920x1080x24 +extension GLX +render -noreset"]


def _this_command() -> list[str]:
    return [sys.executable, "-m", "napari_her2", *sys.argv[1:]]


def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which one; without it they are listed.")] = None,
) -> None:
    """Run a benchmark of a source checkout; further options go to it."""
    folder = Path(__file__).resolve().parents[3] / "benchmarks"
    scripts = {path.stem: path for path in sorted(folder.glob("*.py")) if _is_script(path)}
    if not scripts:
        raise JobFailed(
            "The benchmarks are not part of the installed package: get the source of napari-her2 and "
            "run `napari-her2 bench` from an editable install."
        )
    if name is None:
        typer.echo("\n".join(scripts))
        return
    if name not in scripts:
        raise JobFailed(f"There is no benchmark called {name!r}; there are: {', '.join(scripts)}.")
    finished = subprocess.run([sys.executable, str(scripts[name]), *context.args], check=False)
    raise typer.Exit(finished.returncode)


def _is_script(path: Path) -> bool:
    """Whether a file can be run, rather than being a part of others."""
    return "__main__" in path.read_text(encoding="utf-8")


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete the kept embeddings.")] = False,
) -> None:
    """Show where embeddings are kept and how much space they take, or delete them."""
    from napari_her2.inference.cache import cache_folder, cache_size, clear_cache, limit_bytes

    if clear:
        typer.echo(f"{clear_cache() / 1e6:,.1f} MB were freed in {cache_folder()}")
        return
    typer.echo(f"{cache_folder()}: {cache_size() / 1e6:,.1f} MB of at most {limit_bytes() / 1e6:,.0f} MB")
    typer.echo("NAPARI_HER2_CACHE sets another folder, NAPARI_HER2_CACHE_GB another limit.")


def _as_progress(
    steps: Generator[tuple[int, int], None, Path], stage: str, unit: str
) -> Generator[Progress, None, Path]:
    from napari_her2.steps import Progress

    return passed_on(steps, lambda step: Progress(stage, *step, unit))
