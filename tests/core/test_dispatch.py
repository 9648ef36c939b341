"""Who gets which slide, without a cluster: workers that fail, vanish or are unfit, by a script."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from napari_her2.cohort import dispatch
from napari_her2.cohort.dispatch import Dispatcher
from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.cohort.worker import WorkerUnfit
from napari_her2.errors import ClusterLost, JobFailed, ModelError, SlideError

LOST = "lost"


@dataclass(frozen=True)
class Job:
    path: Path
    skip_finished: bool = False

    def unless_finished(self):
        return replace(self, skip_finished=True)


class Future:
    def __init__(self, found):
        self.found = found

    def done(self):
        return self.found != LOST


class Cluster:
    """Workers that answer at once, by ``behave(name of the slide, worker, how often it was tried)``."""

    address = "tcp://scheduler:8786"

    def __init__(self, workers, behave, replaced=False):
        self.present = set(workers)
        self.behave = behave
        self.replaced = replaced
        self.handed = []
        self.cancelled = []
        self.busy = {}

    def workers(self):
        return frozenset(self.present)

    def submit(self, job, needs, worker):
        assert worker not in self.busy.values(), "a worker has one slide at a time"
        tries = [path for path, _, _ in self.handed].count(job.path.name) + 1
        self.handed.append((job.path.name, worker, job.skip_finished))
        future = Future(self.behave(job.path.name, worker, tries))
        self.busy[future] = worker
        if future.found == LOST:
            self.present.discard(worker)
            if self.replaced:
                self.present.add(f"{worker}'")
        return future

    def wait(self, seconds):
        pass

    def result(self, future):
        del self.busy[future]
        return future.found

    def cancel(self, futures):
        for future in futures:
            self.busy.pop(future, None)
            self.cancelled.append(future)

    def tried_on(self, name):
        return [worker for slide, worker, _ in self.handed if slide == name]


def done(name, state="done"):
    return SlideOutcome(Path(name), state, name)


def run(cluster, names, retries=2):
    steps = Dispatcher(cluster, None, [Job(Path(name)) for name in names], retries).steps("Scoring slides")
    told = []
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value, told
        told += [step.outcome] if step.outcome is not None else []


def test_a_broken_slide_is_shown_to_one_other_worker_only():
    cluster = Cluster("abc", lambda name, *_: SlideError("no") if name == "bad" else done(name))
    outcomes, _ = run(cluster, ["bad", "1", "2", "3"], retries=9)
    assert [outcome.state for outcome in outcomes] == ["failed", "done", "done", "done"]
    assert outcomes[0].tries == 2
    assert len(set(cluster.tried_on("bad"))) == 2


def test_a_broken_slide_is_not_shown_to_the_same_worker_again():
    cluster = Cluster("a", lambda name, *_: ModelError("no"))
    outcomes, _ = run(cluster, ["bad"])
    assert cluster.tried_on("bad") == ["a"]
    assert outcomes[0].tries == 1


def test_a_failure_of_the_machine_is_retried_elsewhere_up_to_the_limit():
    cluster = Cluster("abc", lambda name, *_: RuntimeError("CUDA error"))
    outcomes, _ = run(cluster, ["1"], retries=2)
    assert sorted(cluster.tried_on("1")) == ["a", "b", "c"]
    assert outcomes[0].tries == 3
    assert str(outcomes[0].error) == "CUDA error"


def test_with_one_worker_a_failure_of_the_machine_is_retried_there():
    cluster = Cluster("a", lambda name, _, tries: JobFailed("full") if tries < 3 else done(name))
    outcomes, _ = run(cluster, ["1"], retries=2)
    assert (outcomes[0].state, outcomes[0].tries) == ("done", 3)
    assert dict(outcomes[0].facts) == {"worker": "a", "tries": "3"}


def test_without_retries_a_failure_is_final():
    outcomes, _ = run(Cluster("ab", lambda name, *_: JobFailed("full")), ["1"], retries=0)
    assert outcomes[0].tries == 1


def test_the_slide_of_a_lost_worker_goes_last_and_looks_for_what_it_left():
    def behave(name, _, tries):
        if name == "1" and tries == 1:
            return LOST
        return done(name, "skipped" if name == "1" else "done")

    cluster = Cluster("ab", behave)
    outcomes, told = run(cluster, ["1", "2", "3"])
    assert [outcome.state for outcome in outcomes] == ["done"] * 3
    assert told[-1].path == Path("1")
    assert [skip for slide, _, skip in cluster.handed if slide == "1"] == [False, True]
    assert len(cluster.cancelled) == 1


def test_a_slide_that_takes_its_workers_down_is_given_up():
    cluster = Cluster("abcd", lambda name, *_: LOST if name == "1" else done(name), replaced=True)
    outcomes, _ = run(cluster, ["1", "2", "3"], retries=2)
    assert [outcome.state for outcome in outcomes] == ["failed", "done", "done"]
    assert outcomes[0].tries == 3
    assert "was lost while it worked on 1, and 2 before it" in str(outcomes[0].error)


def test_an_unfit_worker_gets_nothing_more_and_costs_no_try():
    cluster = Cluster("ab", lambda name, worker, _: WorkerUnfit("is old.") if worker == "a" else done(name))
    outcomes, _ = run(cluster, ["1", "2", "3"], retries=0)
    assert [outcome.state for outcome in outcomes] == ["done"] * 3
    assert [outcome.tries for outcome in outcomes] == [1] * 3
    assert [worker for _, worker, _ in cluster.handed].count("a") == 1


def test_unfit_workers_alone_end_it_with_their_words(monkeypatch):
    monkeypatch.setattr(dispatch, "PATIENCE_S", 0.0)
    monkeypatch.setattr(dispatch, "_POLL_S", 0.0)
    cluster = Cluster("a", lambda *_: WorkerUnfit("is old."))
    with pytest.raises(ClusterLost, match=r"for the 2 slides that are left.*The worker at a is old\.$"):
        run(cluster, ["1", "2"])


def test_closing_takes_back_what_runs():
    cluster = Cluster("ab", lambda *_: None)
    steps = Dispatcher(cluster, None, [Job(Path(str(number))) for number in range(5)], 2).steps("s")
    assert next(steps).note == "0, 1"
    steps.close()
    assert len(cluster.cancelled) == len(cluster.handed) == 2


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_every_slide_has_one_outcome(seed, monkeypatch):
    """Workers that fail and vanish at random, and are replaced."""
    monkeypatch.setattr(dispatch, "_POLL_S", 0.0)
    chance = random.Random(seed)
    names = [str(number) for number in range(25)]
    scored = []

    def behave(name, worker, tries):
        what = chance.choice(["fine", "fine", "fine", LOST, "broken", "memory", "unfit"])
        if what == "fine":
            scored.append(name)
        found = {"fine": done(name), LOST: LOST, "broken": SlideError("no"), "memory": MemoryError()}
        if what == "unfit":
            cluster.present.add(f"{worker}+")
            return WorkerUnfit("is old")
        return found[what]

    cluster = Cluster("abcd", behave, replaced=True)
    outcomes, told = run(cluster, names)
    assert [outcome.path.name for outcome in outcomes] == names
    assert sorted(outcome.path.name for outcome in told) == sorted(names)
    good = sorted(outcome.path.name for outcome in outcomes if outcome.state == "done")
    assert sorted(scored) == good  # nothing scored twice, nothing scored and called failed
    assert all(1 <= outcome.tries <= 3 for outcome in outcomes)
    assert not cluster.busy
