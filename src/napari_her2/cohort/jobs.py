"""What a cohort is made of: jobs, one a slide, and the source of what they are done with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from typing import Self

    from napari_her2.cohort.outcome import SlideOutcome
    from napari_her2.steps import Progress

T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class Source(Protocol[T_co]):
    """Where a model or an encoder comes from; a worker loads it once and uses it for every slide."""

    @property
    def identity(self) -> str:
        """SHA-256 of what is loaded; empty where it is not known yet."""

    def load(self) -> T_co:
        """Load it, and check that it is the one that is meant."""


class SlideJob(Protocol[T_contra]):
    """Work on one slide, to be done with what a source loads."""

    @property
    def path(self) -> Path:
        """File of the slide."""

    @property
    def out(self) -> Path:
        """Folder that its result goes to."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""

    def steps(self, tool: T_contra) -> Generator[Progress, None, SlideOutcome]:
        """Do it; the files appear whole at the end. Closing the generator cancels."""

    def unless_finished(self) -> Self:
        """Return the same job that leaves a slide alone whose answer to this very request is there."""
