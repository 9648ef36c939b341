"""A day's list of synthetic slides, one of them damaged, its program killed once: all rows, and one reason.

    python benchmarks/day_list.py [--slides 100] [--size-px 1536] [--model demo-attention-mil]
    python benchmarks/day_list.py --slides 100 --take FOLDER [FOLDER ...] [--keep OUT]

The command line scores a folder of H&E slides, made for it or linked from other folders. When a third of them
is done the process is killed (SIGKILL), and the same command goes on. Prints the rows by their state, the
reasons, how long a slide took, and whether anything that was finished was scored twice.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from napari_her2.cohort.day_file import DAY_FILE
from napari_her2.cohort.day_queue import DayQueue
from napari_her2.export.result_files import RESULT_FILE
from napari_her2.phantom import make_pair

SCORES = ("0", "1+", "2+", "3+")
POLL_S = 0.05


def made_slides(folder: Path, count: int, size_px: int) -> None:
    """H&E slides of synthetic cases, of every score in turn."""
    for number in range(count):
        name = f"case_{number + 1:03}"
        pair = make_pair(folder, name, score=SCORES[number % 4], seed=5000 + number, size_px=size_px, mpp=0.5)
        pair.ihc.unlink()


def linked_slides(folder: Path, sources: list[Path], count: int) -> None:
    """Links to H&E slides of other folders, each folder by itself: names may come twice."""
    found = [path for source in sources for path in sorted(source.glob("*_HE.svs"))][:count]
    for path in found:
        place = folder / path.parent.name
        place.mkdir(exist_ok=True)
        (place / path.name).symlink_to(path.resolve())


def damage(folder: Path) -> Path:
    """Put a copy with a damaged header in the place of the middle slide."""
    slides = sorted(folder.rglob("*_HE.svs"))
    chosen = slides[len(slides) // 2]
    data = bytearray(chosen.read_bytes())
    data[:64] = os.urandom(64)
    chosen.unlink()
    chosen.write_bytes(data)
    return chosen


def done_in(out: Path) -> int:
    """How many slides the file of the list calls done; the file may be being written."""
    try:
        return (out / DAY_FILE).read_text().count('"done"')
    except OSError:
        return 0


def killed(command: list[str], out: Path, after: int) -> None:
    """Run a command, and kill it when so many slides are done."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and done_in(out) < after:
        time.sleep(POLL_S)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=100)
    parser.add_argument("--size-px", type=int, default=1536)
    parser.add_argument("--model", default="demo-attention-mil")
    parser.add_argument("--take", type=Path, nargs="+", help="folders with slides, instead of making some")
    parser.add_argument("--keep", type=Path, help="folder for the results, which stay there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch) / "slides", arguments.keep or Path(scratch) / "out"
        folder.mkdir()
        if arguments.take:
            linked_slides(folder, arguments.take, arguments.slides)
        else:
            made_slides(folder, arguments.slides, arguments.size_px)
        broken = damage(folder)
        os.environ["NAPARI_HER2_CACHE"] = str(Path(scratch) / "cache")
        score = [sys.executable, "-m", "napari_her2", "score", str(folder)]
        command = [*score, "--model", arguments.model, "--out", str(out)]
        began = time.monotonic()
        killed(command, out, arguments.slides // 3)
        queue = DayQueue(out)
        before = {item.folder: written(out, item.folder) for item in queue.items if item.folder}
        print(f"killed after {time.monotonic() - began:.0f} s: {len(before)} of {len(queue.items)} rows done")
        began = time.monotonic()
        code = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        print(
            f"the same command went on and ended after {time.monotonic() - began:.0f} s with exit code {code}"
        )
        report(DayQueue(out), out, before, broken)


def written(out: Path, place: str) -> int:
    return (out / place / RESULT_FILE).stat().st_mtime_ns


def report(queue: DayQueue, out: Path, before: dict[str, int], broken: Path) -> None:
    """Print what became of the list."""
    states = Counter(item.state for item in queue.items)
    print(f"rows: {len(queue.items)} ({', '.join(f'{count} {state}' for state, count in states.items())})")
    reasons = Counter(item.reason for item in queue.items if item.state in ("failed", "skipped"))
    print(f"damaged: {broken.name}")
    for reason, count in reasons.items():
        print(f"  {count} x {reason}")
    again = sum(written(out, place) != when for place, when in before.items())
    print(f"results that were there when it was killed: {len(before)}, of them written again: {again}")
    took = [item.seconds for item in queue.items if item.state == "done" and item.seconds is not None]
    tenths = statistics.quantiles(took, n=10)
    print(
        f"seconds a slide: median {statistics.median(took):.2f}, 10 % {tenths[0]:.2f}, 90 % {tenths[-1]:.2f}"
    )
    print(f"answers: {dict(Counter(queue_answers(queue)))}")


def queue_answers(queue: DayQueue) -> list[str]:
    from napari_her2.cohort.day_rows import row_facts

    folders = (queue.folder_of(item) for item in queue.items if item.state == "done")
    facts = (row_facts(folder) for folder in folders if folder is not None)
    return [row.score or row.answer.partition(":")[0] for row in facts if row is not None]


if __name__ == "__main__":
    main()
