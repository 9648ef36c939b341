"""Progress of long work on standard error: a bar where that is a terminal."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from napari_her2.commands.console import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from rich.progress import Task

    from napari_her2.steps import Progress as Step

T = TypeVar("T")


class _Rate(ProgressColumn):
    """Units a second, or a minute where they are slow."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields.get("unit") or ""
        if not speed or not unit:
            return Text("")
        return Text(f"{speed:,.0f} {unit}/s" if speed >= 1 else f"{speed * 60:,.1f} {unit}/min")


def drive(
    steps: Generator[Step, None, T],
    title: str = "",
    tell: Callable[[Step], Callable[[], object] | None] | None = None,
) -> T:
    """Run long work to its end, with a progress bar where standard error is a terminal.

    Parameters
    ----------
    steps : generator of Progress
        Closed in any case.
    title : str
        Shown before the stage.
    tell : callable, optional
        Given every step; where it has something to print it returns what prints it, and that is called
        while no bar is in the way.

    Returns
    -------
    object
        What the generator returns.
    """
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar, stage, start = bars.add_task(title, total=None, unit="", note=""), "", 0
        try:
            while True:
                step = next(steps)
                news = None if tell is None else tell(step)
                if news is not None:
                    with _aside(bars):
                        news()
                if step.title != stage:
                    # A new bar: the speed of one stage says nothing about the next. What came from the
                    # cache before the first batch is not speed either.
                    bars.remove_task(bar)
                    name = escape(plain(f"{title}: {step.title}" if title else step.title))
                    bar = bars.add_task(name, total=None, unit="", note="")
                    stage, start = step.title, step.done
                bars.update(
                    bar,
                    completed=step.done - start,
                    total=(step.total - start) if step.total else None,
                    unit=step.unit,
                    note=escape(plain(step.note)),
                )
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            steps.close()


@contextmanager
def _aside(bars: Progress) -> Iterator[None]:
    """Take the bars off the terminal for a moment."""
    if bars.disable:
        yield
        return
    bars.stop()
    yield
    bars.start()
