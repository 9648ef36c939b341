"""What travels between a worker and whoever asked it: plain text, checked, and nothing that runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from napari_her2.cohort import cluster as cluster_room
from napari_her2.cohort.answer import MOST_CHARACTERS, WorkerUnfit, answer_of, read_answer
from napari_her2.cohort.cluster import Cluster
from napari_her2.cohort.loop import running_loop
from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.errors import JobFailed, ModelError, ModelMisfit, SlideError

OUT = Path("/results")


@dataclass(frozen=True)
class Job:
    path: Path = Path("/slides/a.svs")
    out: Path = OUT


def fail(error):
    def work():
        raise error

    return work


def test_an_outcome_comes_back_as_it_was():
    facts = (("result", "2+ (equivocal, ISH required)"), ("warning", "ragged µm"))
    given = SlideOutcome(Job.path, "done", "a: 2+", OUT / "a", facts)
    answer = answer_of(lambda: given)
    assert type(answer) is str
    found = read_answer(answer, Job())
    assert (found.path, found.state, found.title) == (given.path, given.state, given.title)
    assert (found.written, found.facts, found.error) == (given.written, given.facts, None)


class OtherMisfit(ModelMisfit):
    """Of a version that is not here."""


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (SlideError("a.svs is damaged."), SlideError, "a.svs is damaged."),
        (OtherMisfit("wrong stain"), ModelMisfit, "wrong stain"),
        (ModelError("no model"), ModelError, "no model"),
        (WorkerUnfit("does not see x"), WorkerUnfit, "does not see x"),
        (
            OSError(28, "No space left on device", "/results/a"),
            JobFailed,
            "No space left on device (/results/a)",
        ),
        (MemoryError(), JobFailed, "memory of the worker is too short"),
        (RuntimeError("CUDA error"), JobFailed, "fault of its own (RuntimeError: CUDA error)"),
    ],
)
def test_an_error_travels_as_its_kind_and_its_words(error, kind, words):
    answer = answer_of(fail(error))
    assert set(json.loads(answer)) == {"error", "text"}
    found = read_answer(answer, Job())
    assert type(found) is kind
    assert words in str(found)


class Trap:
    """Does harm when it is looked at, as what a pickle builds may."""

    def __getattribute__(self, name):
        raise AssertionError("an object from outside was used")


GOOD = {"state": "done", "title": "a", "written": "/results/a", "facts": [["a", "b"]], "withheld": True}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"{}",
        SlideOutcome(Job.path, "done", "a"),
        SimpleNamespace(state="done"),
        "",
        "[]",
        "[" * 100_000,
        "{",
        "x" * (MOST_CHARACTERS + 1),
        json.dumps({"error": "SystemExit", "text": "a"}),
        json.dumps({"error": "SlideError"}),
        json.dumps({"error": ["SlideError"], "text": "a"}),
        json.dumps({"error": "SlideError", "text": "x" * 30_000}),
        json.dumps(GOOD | {"state": "failed"}),
        json.dumps(GOOD | {"title": 3}),
        json.dumps(GOOD | {"written": "/etc/passwd"}),
        json.dumps(GOOD | {"written": "/results/../etc"}),
        json.dumps(GOOD | {"written": ["/results/a"]}),
        json.dumps(GOOD | {"facts": {"a": "b"}}),
        json.dumps(GOOD | {"facts": [["a"]]}),
        json.dumps(GOOD | {"facts": [["a", 1]]}),
        json.dumps(GOOD | {"facts": ["ab"]}),
        json.dumps(GOOD | {"facts": [["a", "b"]] * 2000}),
        json.dumps(GOOD | {"withheld": "no"}),
        json.dumps({name: value for name, value in GOOD.items() if name != "withheld"}),
    ],
)
def test_an_answer_that_is_none_is_a_failed_slide_in_words(answer):
    found = read_answer(answer, Job())
    assert type(found) is JobFailed
    assert "an answer that cannot be read" in str(found)
    assert read_answer(json.dumps(GOOD), Job()).withheld


class Task:
    def __init__(self, found, status="finished"):
        self.found, self.status = found, status

    def add_done_callback(self, call):
        call(self)


class Client:
    status = "running"

    def __init__(self, *, loop=None, answers=(), checks=None, addresses=()):
        self.loop, self.answers, self.checks, self.addresses = loop, list(answers), checks or {}, addresses
        self.scheduler = SimpleNamespace(address="tcp://127.0.0.1:8786")

    def submit(self, *_, **__):
        return self.answers.pop(0)

    async def gather(self, task, *, asynchronous):
        assert asynchronous
        if task.status == "error":
            raise task.found
        return task.found

    def run(self, function, *_, on_error):
        return self.checks if function is cluster_room.prepare_aside else {}

    def scheduler_info(self):
        return {"address": self.scheduler.address}

    def nthreads(self):
        return dict.fromkeys(self.addresses, 1)


def test_what_a_task_returns_is_checked_and_what_it_raises_becomes_words():
    pytest.importorskip("distributed")
    answers = [Task(json.dumps(GOOD)), Task(Trap()), Task(ZeroDivisionError("odd"), "error")]
    with running_loop(120) as loop:
        cluster = Cluster(Client(loop=loop, answers=answers), "here")
        found = [cluster.result(cluster.submit(Job(), None, "worker")) for _ in range(3)]
    assert isinstance(found[0], SlideOutcome)
    assert [type(item) for item in found[1:]] == [JobFailed, JobFailed]
    assert "cannot be read" in str(found[1])
    assert "dask could not run the slide (ZeroDivisionError: odd)" in str(found[2])


@pytest.mark.parametrize(
    ("said", "words"),
    [("does not see /x.", "does not see /x"), ("y" * 9000, "y" * 1000), (ValueError("z"), "cannot start: z")],
)
def test_what_a_worker_lacks_is_told_with_its_address(said, words):
    cluster = Cluster(Client(checks={"tcp://a:1": "", "tcp://b:1": said, "tcp://c:1": OSError()}), "here")
    needs = SimpleNamespace(version="1")
    with pytest.raises(JobFailed, match=f"The worker at tcp://b:1 {words}"):
        cluster.admit(needs)


def test_a_loop_that_is_slow_to_start_is_waited_for_and_ends():
    import threading

    pytest.importorskip("tornado")
    before = threading.active_count()
    with running_loop(120) as loop:
        done = threading.Event()
        loop.add_callback(done.set)
        assert done.wait(120)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("workers", "warned"),
    [
        ([], False),
        (["tcp://127.0.0.1:4000", "tcp://[::1]:4000", "inproc://10.0.0.5/1/2", "tcp://localhost:1"], False),
        (["tls://10.0.0.5:4000"], False),
        (["tcp://10.0.0.5:4000"], True),
        (["tcp://0.0.0.0:4000"], True),
        (["tcp://[fe80::1]:4000"], True),
        (["ws://node7:4000"], True),
        (["tcp://localhost.example.org:4000"], True),
    ],
)
def test_a_cluster_that_others_can_reach_without_tls_is_warned_of(workers, warned):
    text = Cluster(Client(addresses=workers), "here").warning()
    assert bool(text) == warned
    if warned:
        assert text.startswith(workers[0])
        for word in ("run programs", "--tls-ca", "127.0.0.1"):
            assert word in text
