"""Workers of a dask cluster that sleep over a slide as long as it would take: used by cohort_cluster.py."""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.cohort import worker as worker_room
from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.errors import JobFailed, SlideError

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_her2.steps import Progress


@dataclass(frozen=True)
class Nothing:
    """The source of no model."""

    identity: str = "nothing"

    def load(self) -> None:
        """Load nothing."""


@dataclass(frozen=True)
class Sleeper:
    """A slide that is slept over.

    Parameters
    ----------
    path : Path
    out : Path
    seconds : float
    fate : str
        As of `cohort_plan.MadeUp`.
    """

    path: Path
    out: Path
    seconds: float
    fate: str

    @property
    def files(self) -> tuple[Path, ...]:
        """None: nothing is read."""
        return ()

    def steps(self, _tool: None) -> Generator[Progress, None, SlideOutcome]:
        """Sleep, or fail."""
        if self.fate == "damaged":
            raise SlideError("The slide is damaged.")
        time.sleep(self.seconds)
        mark = self.out / self.path.name
        if self.fate == "fails once" and not mark.exists():
            mark.touch()
            raise JobFailed("The memory of the worker was too short.")
        yield from ()
        return SlideOutcome(self.path, "done", self.path.name)

    def unless_finished(self) -> Sleeper:
        """Return the same."""
        return self


async def sleep_for(scheduler_file: str, count: int) -> None:
    """Be so many workers, in this process, until the scheduler is gone."""
    import dask
    from distributed import Worker

    # Hundreds of workers that look at every thread a hundred times a second each do nothing else; nor do they
    # where each counts the open files of all twice a second.
    dask.config.set(
        {"distributed.worker.profile.enabled": False, "distributed.admin.system-monitor.interval": "1h"}
    )
    workers = [
        Worker(
            scheduler_file=scheduler_file,
            nthreads=1,
            memory_limit=0,
            dashboard=False,
            local_directory=str(Path(scheduler_file).parent),  # which goes with the benchmark
        )
        for _ in range(count)
    ]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scheduler_file")
    parser.add_argument("count", type=int)
    chosen = parser.parse_args()
    # Workers of one process wait for each other, for a device is one: these have none.
    setattr(worker_room, "alone", lambda _wanted: nullcontext())  # noqa: B010 - of another type
    asyncio.run(sleep_for(chosen.scheduler_file, chosen.count))


if __name__ == "__main__":
    main()
