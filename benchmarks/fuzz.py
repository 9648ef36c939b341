"""Damaged and hostile files by the thousand: what is no refusal in words is a fault of ours.

Files of a kind are mutated by a seeded generator, and each is opened and used in a child process that is
held to time and memory. Fine are: it works, or it is refused with a Her2Error. Faults are: the child dies
("crash"), does not come back ("hang"), takes too much memory ("memory"), or another exception reaches the
caller ("unworded"). The exit status is 1 if there was any.

    python benchmarks/fuzz.py tiff --count 10000 --seed 0
    python benchmarks/fuzz.py tiff --only 1234 --keep /tmp/fuzz       # one case again, its file kept

A new kind of file is a module beside this one with a `KIND`, or several in `KINDS`, named in `KINDS` here.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_her2.errors import Her2Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

_FILES = ("bundle", "geojson", "table", "toml", "json", "hdf5", "pth", "picture")
KINDS = {"tiff": "fuzz_tiff", **dict.fromkeys(_FILES, "fuzz_files")}
"""Kind of file to the module beside this one that makes it."""
FINE = ("works", "refused")
_CASES_A_CHILD = 500
_START_SECONDS = 300.0
_ADDRESS_SPACE = 12 << 30  # protects the machine; the limit that is judged is of resident memory


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file to damage.

    Parameters
    ----------
    seeds : callable
        Writes small whole files into the given folder and gives their paths, always the same ones.
    mutated : callable
        (content of a seed file, random generator) to the content of a damaged one.
    use : callable
        Opens a file and uses it as the program would. Her2Error is a good answer.
    """

    seeds: Callable[[Path], list[Path]]
    mutated: Callable[[bytes, np.random.Generator], bytes]
    use: Callable[[Path], None]


class Outcome(NamedTuple):
    """What became of one case: a word, and where it went wrong."""

    word: str
    detail: str = ""


class Limits(NamedTuple):
    """What one case may take."""

    seconds: float
    bytes: int


def load(name: str) -> Kind:
    module = importlib.import_module(KINDS[name])
    kind: Kind = module.KINDS[name] if hasattr(module, "KINDS") else module.KIND
    return kind


def judged(use: Callable[[Path], None], path: Path, max_bytes: int) -> Outcome:
    """Use a file here, and say what became of it."""
    try:
        use(path)
    except Her2Error as error:
        outcome = Outcome("refused", str(error)) if str(error).strip() else Outcome("unworded", "no words")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever reaches the caller is the finding
        inner = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({Path(inner.filename).name}:{inner.lineno})"
        outcome = Outcome("unworded", text[:500])
    else:
        outcome = Outcome("works")
    taken = peak_bytes()
    return Outcome("memory", f"{taken / 2**20:,.0f} MiB; {outcome}"[:500]) if taken > max_bytes else outcome


def peak_bytes() -> int:
    """Most resident memory of this process so far; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux: what `getrusage` says begins with the peak of the process that started this one.
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def child(name: str, pipe: Connection, max_bytes: int) -> None:
    """Use the files whose paths come through the pipe, until None does."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries complain of every case
    kind = load(name)
    with tempfile.TemporaryDirectory() as own:  # what the first use imports is held against no case
        for path in kind.seeds(Path(own)):
            with suppress(Her2Error):
                kind.use(path)
    pipe.send("ready")
    while (path := pipe.recv()) is not None:
        pipe.send(judged(kind.use, Path(path), max_bytes))


class Worker:
    """A child process that is started again whenever it dies."""

    def __init__(self, name: str, limits: Limits) -> None:
        self._name, self._limits = name, limits
        self._process: SpawnProcess | None = None
        self._cases = 0

    def run(self, path: Path) -> Outcome:
        """Use one file in the child."""
        if self._process is None or self._cases >= _CASES_A_CHILD:
            self.close()
            self._start()
        assert self._process is not None
        self._cases += 1
        self._pipe.send(str(path))
        try:
            if self._pipe.poll(self._limits.seconds):
                outcome: Outcome = self._pipe.recv()
                if outcome.word == "memory":  # its peak would be held against the next case
                    self.close()
                return outcome
            outcome = Outcome("hang", f"longer than {self._limits.seconds:g} s")
        except (EOFError, ConnectionError):
            self._process.join()
            outcome = Outcome("crash", f"exit status {self._process.exitcode}")
        self.close()
        return outcome

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=child, args=(self._name, theirs, self._limits.bytes), daemon=True
        )
        self._process.start()
        theirs.close()
        self._cases = 0
        if not self._pipe.poll(_START_SECONDS) or self._pipe.recv() != "ready":
            raise RuntimeError("The child process did not start.")


def case(kind: Kind, seeds: list[bytes], seed: int, number: int) -> bytes:
    """Content of a case: the same for the same seed and number."""
    rng = np.random.default_rng([seed, number])
    return kind.mutated(seeds[int(rng.integers(len(seeds)))], rng)


def outcomes(
    name: str, numbers: list[int], seed: int, limits: Limits, folder: Path, workers: int
) -> Iterator[tuple[int, Outcome]]:
    """Run the numbered cases in child processes; in no order."""
    kind = load(name)
    whole = folder / "whole"
    whole.mkdir(exist_ok=True)
    paths = kind.seeds(whole)
    seeds = [path.read_bytes() for path in paths]
    waiting, done = iter(numbers), list[tuple[int, Outcome]]()
    lock = threading.Lock()

    def work() -> None:
        worker = Worker(name, limits)
        while True:
            with lock:
                number = next(waiting, None)
            if number is None:
                break
            path = folder / f"case-{number}{paths[0].suffix}"
            path.write_bytes(case(kind, seeds, seed, number))
            outcome = worker.run(path)
            if len(numbers) > 1 or outcome.word in FINE:
                path.unlink(missing_ok=True)
            done.append((number, outcome))
        worker.close()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    given = 0
    while any(thread.is_alive() for thread in threads) or given < len(done):
        if given < len(done):
            yield done[given]
            given += 1
        else:
            time.sleep(0.05)
    if given < len(numbers):
        raise RuntimeError(f"Only {given} of {len(numbers)} cases were run.")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--count", type=int, default=10_000, help="cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="one case alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=30.0, help="limit of one case")
    parser.add_argument("--mib", type=int, default=2048, help="limit of resident memory")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--keep", type=Path, help="folder to write the files into (with --only they stay)")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    start = chosen.first
    numbers = [chosen.only] if chosen.only is not None else list(range(start, start + chosen.count))
    limits = Limits(chosen.seconds, chosen.mib << 20)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as own:
        folder = chosen.keep or Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        for number, outcome in outcomes(chosen.kind, numbers, chosen.seed, limits, folder, chosen.workers):
            counts[outcome.word] += 1
            if outcome.word not in FINE or chosen.only is not None:
                print(f"case {number}: {outcome.word}: {outcome.detail}", flush=True)
    print(f"{chosen.kind}, seed {chosen.seed}: " + ", ".join(f"{n:,} {word}" for word, n in counts.items()))
    return 0 if set(counts) <= set(FINE) else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
