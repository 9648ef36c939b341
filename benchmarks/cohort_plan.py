"""What a cohort of ten thousand slides costs a site, worked out: hours, disk, and what is lost on the way.

The dispatcher itself, which hands slides to a dask cluster, over workers that only exist in time: each takes
as long for a slide as its tiles and its speed say, some slides fail, some workers are lost and come back.
Nothing is computed and no clock is waited for, so ten thousand slides take seconds; what dask itself costs is
measured by cohort_cluster.py.

    python benchmarks/cohort_plan.py --tiles-per-s 64               # what `benchmarks/encoders.py` measured
    python benchmarks/cohort_plan.py --tiles-per-s 1500 --workers 1 4 16 64

How quick a worker is, is yours to say: measure it with the encoder and the machine that you have.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_her2.cohort.dispatch import Dispatcher
from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.errors import JobFailed, SlideError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_her2.cohort.cluster import Cluster
    from napari_her2.cohort.worker import Needs
    from napari_her2.errors import Her2Error
    from napari_her2.steps import Progress

SECONDS_AN_HOUR = 3600.0
TILE_BYTES = 12_000
"""Of a stored tile of 256 px, JPEG of quality 80; a tile of 256 px at 0.5 µm/px is read from four at 0.25."""
STORED_A_TILE = 4


@dataclass(frozen=True)
class MadeUp:
    """A slide of so many tiles.

    Parameters
    ----------
    path : Path
        Its name; there is no file.
    tiles : int
    fate : str
        "fine", "damaged" (fails everywhere) or "fails once".
    """

    path: Path
    tiles: int
    fate: str = "fine"

    @property
    def out(self) -> Path:
        """Nothing is written."""
        return Path("out")

    @property
    def files(self) -> tuple[Path, ...]:
        """Its file."""
        return (self.path,)

    def steps(self, tool: object) -> Generator[Progress, None, SlideOutcome]:
        """Nobody asks for them."""
        raise NotImplementedError

    def unless_finished(self) -> MadeUp:
        """Return the same."""
        return self


def cohort(count: int, seed: int, damaged: float = 0.005, once: float = 0.01) -> list[MadeUp]:
    """Slides whose tissue is spread as in a clinic: half have 3,000 to 13,000 tiles, few 40,000."""
    rng = np.random.default_rng(seed)
    tiles = np.clip(rng.lognormal(np.log(6_500), 0.9, count), 50, 80_000).astype(int)
    fates = rng.choice(["damaged", "fails once", "fine"], count, p=[damaged, once, 1 - damaged - once])
    return [
        MadeUp(Path(f"case-{number:05}.svs"), int(of), str(fate))
        for number, (of, fate) in enumerate(zip(tiles, fates, strict=True))
    ]


@dataclass(eq=False)
class Promise:
    """A slide at a worker: what the dispatcher takes for a future of dask."""

    job: MadeUp
    worker: str
    ends: float
    settled: bool = False

    def done(self) -> bool:
        """Whether it is finished."""
        return self.settled


@dataclass
class Imagined:
    """Workers that only exist in time, behind what the dispatcher asks of a cluster.

    Parameters
    ----------
    speeds : dict of str to float
        Tiles a second of each worker, by its name.
    overhead_s : float
        Of each slide, beside its tiles.
    lost_at : sequence of (float, str)
        When a worker is lost, seconds, and its name; it comes back `absent_s` later.
    """

    speeds: dict[str, float]
    overhead_s: float
    lost_at: Sequence[tuple[float, str]] = ()
    absent_s: float = 600.0
    address: str = "made up"
    now: float = 0.0
    busy_s: float = 0.0
    _events: list[tuple[float, int, Promise]] = field(default_factory=list)
    _count: int = 0

    def workers(self) -> frozenset[str]:
        """Those that are there now."""
        away = {name for when, name in self.lost_at if when <= self.now < when + self.absent_s}
        return frozenset(self.speeds.keys() - away)

    def submit(self, job: MadeUp, _needs: object, worker: str) -> Promise:
        """Give a slide to a worker."""
        takes = self.overhead_s + (0.0 if job.fate == "damaged" else job.tiles / self.speeds[worker])
        promise = Promise(job, worker, self.now + takes)
        lost = min(
            (when for when, name in self.lost_at if name == worker and when >= self.now), default=np.inf
        )
        self.busy_s += min(takes, lost - self.now)
        self._count += 1
        heapq.heappush(self._events, (min(promise.ends, lost), self._count, promise))
        return promise

    def wait(self, _seconds: float) -> None:
        """Go on to when the next slide is done, or lost."""
        self.now, _, promise = heapq.heappop(self._events)
        promise.settled = promise.ends <= self.now

    def result(self, promise: Promise) -> SlideOutcome | Her2Error:
        """Say what became of it."""
        job = promise.job
        if job.fate == "damaged":
            return SlideError("The slide is damaged.")
        if job.fate == "fails once" and job.path not in FAILED:
            FAILED.add(job.path)
            return JobFailed("The memory of the worker was too short.")
        return SlideOutcome(job.path, "done", job.path.name)

    def cancel(self, promises: Sequence[Promise]) -> None:
        """Take nothing back: what was lost is over."""


FAILED: set[Path] = set()
"""Slides that fail once, and have."""


@dataclass(frozen=True)
class Plan:
    """What came of a cohort.

    Parameters
    ----------
    hours : float
        From the first slide to the last.
    least_hours : float
        The same work, shared without any loss.
    used : float
        Share of the workers' time in which they worked.
    failed : int
    process_ms : float
        Of this process for each slide: what the dispatcher costs.
    """

    hours: float
    least_hours: float
    used: float
    failed: int
    process_ms: float


def run(slides: Sequence[MadeUp], workers: int, tiles_per_s: float, overhead_s: float, seed: int) -> Plan:
    """Hand a cohort to so many workers, a fifth of them half as quick, one in twenty lost once."""
    FAILED.clear()
    rng = np.random.default_rng(seed)
    speeds = {f"worker-{n:04}": tiles_per_s * (0.5 if n % 5 == 4 else 1.0) for n in range(workers)}
    tiles = sum(slide.tiles for slide in slides if slide.fate != "damaged")
    least = (tiles + overhead_s * tiles_per_s * len(slides)) / sum(speeds.values())
    names = rng.choice(sorted(speeds), round(workers / 20), replace=False)
    lost = [(float(rng.uniform(0, least)), str(name)) for name in names]
    imagined = Imagined(speeds, overhead_s, lost)
    began = time.process_time()
    dispatcher = Dispatcher(cast("Cluster", imagined), cast("Needs", None), cast("Any", slides), retries=2)
    steps = dispatcher.steps("Scoring slides")
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            outcomes: tuple[SlideOutcome, ...] = stop.value
            break
    took = time.process_time() - began
    return Plan(
        imagined.now / SECONDS_AN_HOUR,
        least / SECONDS_AN_HOUR,
        imagined.busy_s / (workers * imagined.now),
        sum(outcome.state == "failed" for outcome in outcomes),
        1000 * took / len(slides),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=10_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 128, 256])
    parser.add_argument("--tiles-per-s", type=float, required=True, help="of one worker, slide to features")
    parser.add_argument("--overhead-s", type=float, default=0.5, help="of a slide, beside its tiles")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    slides = cohort(chosen.slides, chosen.seed)
    tiles = [slide.tiles for slide in slides]
    total = sum(tiles)
    read = total * STORED_A_TILE * TILE_BYTES
    print(
        f"{len(slides):,} slides, {total:,} tiles (median {statistics.median(tiles):,.0f}, 95 % "
        f"{np.percentile(tiles, 95):,.0f}); {read / 1e12:.1f} TB are read; features of 1,024 float16: "
        f"{total * 2048 / 1e12:.2f} TB\n"
    )
    print(
        "| workers | hours | of the least | used | failed | disk, MB/s | slides a minute "
        "| dispatcher, ms a slide |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for workers in chosen.workers:
        plan = run(slides, workers, chosen.tiles_per_s, chosen.overhead_s, chosen.seed)
        rate = read / 1e6 / (plan.hours * SECONDS_AN_HOUR)
        print(
            f"| {workers} | {plan.hours:.1f} | {plan.hours / plan.least_hours:.3f} | {plan.used:.3f} | "
            f"{plan.failed} | {rate:.0f} | {len(slides) / plan.hours / 60:.1f} | {plan.process_ms:.2f} |"
        )


if __name__ == "__main__":
    main()
