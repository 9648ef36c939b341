"""What a dask cluster costs a slide, and where it stops scaling: measured over a real scheduler.

    python benchmarks/cohort_cluster.py strain --workers 4 16 64 256
    python benchmarks/cohort_cluster.py slides --slides 200 --workers 2

"strain": workers that sleep instead of computing, each slide a thousandth of its real time, some failing, a
sixteenth of the workers lost on the way; so the scheduler and whoever hands the slides out are asked for far
more slides a second than any site could score. Prints how long it took beside the least possible, and the
processor time of each part.

"slides": small synthetic slides, scored by worker processes of one thread each, and the same slides without a
cluster one after the other; prints the overhead of a slide.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from cohort_plan import cohort
from napari_her2.cohort.cluster import connect, shared_needs
from napari_her2.cohort.dispatch import Dispatcher
from napari_her2.errors import JobFailed
from napari_her2.steps import finished
from sleeping_workers import Nothing, Sleeper

if TYPE_CHECKING:
    from collections.abc import Iterator

TILES_PER_S = 64_000.0
"""Of a worker that sleeps: a thousand times 64."""
SHARE_LOST = 0.5
START_S = 120.0
WORKER = ("--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard", "--no-nanny", "--memory-limit", "0")
OPEN = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file")


@contextmanager
def child(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program beside this one, ended with it; what it prints is left out."""
    found = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": found.rstrip(os.pathsep)},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def started(file: Path) -> str:
    """Path of the file of a scheduler, once it is there."""
    end = time.monotonic() + START_S
    while not file.exists() or not file.read_text():
        if time.monotonic() > end:
            raise JobFailed("The scheduler does not start.")
        time.sleep(0.1)
    return str(file)


def used_s(process: psutil.Process) -> float:
    """Processor seconds of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def strained(count: int, slides: int, seed: int) -> str:
    """Row of the table: so many workers that sleep."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        out, file = Path(scratch), Path(scratch) / "scheduler.json"
        jobs = [Sleeper(one.path, out, one.tiles / TILES_PER_S, one.fate) for one in cohort(slides, seed)]
        scheduler = stack.enter_context(child("-m", "distributed.cli.dask_scheduler", *OPEN, str(file)))
        started(file)
        # Two processes of workers, one of which is ended in the middle where there are enough.
        few = max(1, count // 16) if count > 1 else 0
        stack.enter_context(child("-m", "sleeping_workers", str(file), str(count - few)))
        lost = stack.enter_context(child("-m", "sleeping_workers", str(file), str(few))) if few else None
        cluster = finished(connect(str(file), None, stack))
        needs = stack.enter_context(shared_needs(Nothing(), (), out))
        end = time.monotonic() + START_S
        while len(cluster.workers()) < count:
            if time.monotonic() > end:
                raise JobFailed("The workers do not start.")
            time.sleep(0.2)
        cluster.admit(needs)
        of_scheduler, here = psutil.Process(scheduler.pid), psutil.Process()
        before, began, failed = (used_s(of_scheduler), used_s(here)), time.monotonic(), 0
        for step in Dispatcher(cluster, needs, jobs, retries=2).steps("Sleeping"):
            failed += step.outcome is not None and step.outcome.state == "failed"
            if lost is not None and step.done > SHARE_LOST * slides:
                lost.kill()
                lost.wait()
                lost = None
        took = time.monotonic() - began
        after = (used_s(of_scheduler), used_s(here))
    least = sum(job.seconds for job in jobs if job.fate != "damaged") / count
    a_slide = [1000 * (late - early) / slides for early, late in zip(before, after, strict=True)]
    return (
        f"| {count} | {slides:,} | {took:.1f} | {least:.1f} | {slides / took:.0f} | {failed} | "
        f"{a_slide[0]:.1f} | {a_slide[1]:.1f} |"
    )


def strain(chosen: argparse.Namespace) -> None:
    """Print the table of workers that sleep."""
    print(
        "| workers | slides | s | s, at least | slides/s | failed | scheduler, ms of processor a slide | "
        "here, ms of processor a slide |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for count in chosen.workers:
        print(strained(count, min(chosen.slides, chosen.each * count), chosen.seed), flush=True)


def scored(slides: list[Path], out: Path, **where: Any) -> tuple[float, int]:  # noqa: ANN401 - of the call
    """Score slides; seconds from the first word to the last, and how many are done."""
    from napari_her2.cohort import score_cohort_steps

    began = time.monotonic()
    report = finished(
        score_cohort_steps(slides, "demo-attention-mil", out, device="cpu", cache=False, **where)
    )
    return time.monotonic() - began, len(report.of("done"))


def real(chosen: argparse.Namespace) -> None:
    """Print what small slides cost with a cluster, and without one."""
    from napari_her2.phantom import SCORES, make_pair

    (count,) = chosen.workers[:1]
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder, file = Path(scratch), Path(scratch) / "scheduler.json"
        slides = []
        for number in range(chosen.slides):
            score = SCORES[number % len(SCORES)]
            made = make_pair(
                folder, f"case_{number:04}", score=score, seed=number, size_px=chosen.size, mpp=0.5
            )
            made.ihc.unlink()
            slides.append(made.he)
        scheduler = stack.enter_context(child("-m", "distributed.cli.dask_scheduler", *OPEN, str(file)))
        started(file)
        worker = ("-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), *WORKER)
        workers = [stack.enter_context(child(*worker)) for _ in range(count)]
        with ExitStack() as until:
            cluster = finished(connect(str(file), None, until))
            while len(cluster.workers()) < count:
                time.sleep(0.2)
        warm = slides[: 2 * count]
        scored(warm, folder / "warm", scheduler=str(file))  # imports, and the model, of every worker
        processes = [psutil.Process(of.pid) for of in (scheduler, *workers)]
        before = [used_s(process) for process in (*processes, psutil.Process())]
        with_s, done = scored(slides, folder / "with", scheduler=str(file))
        used = [
            used_s(process) - early
            for process, early in zip((*processes, psutil.Process()), before, strict=True)
        ]
        command = [sys.executable, __file__, "alone", str(folder)]
        alone = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    working = sum(used[1:-1])
    print(f"{done} of {len(slides)} slides of {chosen.size} px done; load {os.getloadavg()[0]:.1f}\n")
    print("| | s | processor, s | ms of processor a slide |")
    print("|---|---|---|---|")
    rows = [
        ("without a cluster, one process of one thread", float(alone[0]), float(alone[1])),
        (f"{count} workers, together", with_s, working),
        ("the scheduler", with_s, used[0]),
        ("who hands out and writes the table", with_s, used[-1]),
    ]
    for name, seconds, processor in rows:
        print(f"| {name} | {seconds:.1f} | {processor:.1f} | {1000 * processor / len(slides):.1f} |")


def alone(folder: Path) -> None:
    """Score the slides of a folder in this process; print seconds, and processor seconds."""
    slides = sorted(folder.glob("*_HE.svs"))
    scored(slides[:2], folder / "warm alone")
    began = time.process_time()
    seconds, _ = scored(slides, folder / "alone")
    print(seconds, time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    asleep = parts.add_parser("strain")
    asleep.add_argument("--workers", type=int, nargs="+", default=[4, 16, 64, 256])
    asleep.add_argument("--slides", type=int, default=10_000, help="at most")
    asleep.add_argument("--each", type=int, default=150, help="slides for each worker, at most")
    asleep.add_argument("--seed", type=int, default=0)
    slides = parts.add_parser("slides")
    slides.add_argument("--slides", type=int, default=200)
    slides.add_argument("--size", type=int, default=1536, help="side of a slide, px at 0.5 µm/px")
    slides.add_argument("--workers", type=int, nargs=1, default=[2])
    single = parts.add_parser("alone", help="used by slides")
    single.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    match chosen.part:
        case "strain":
            strain(chosen)
        case "slides":
            real(chosen)
        case "alone":
            alone(chosen.folder)


if __name__ == "__main__":
    main()
