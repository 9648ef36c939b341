"""Cohorts on a dask cluster of two worker processes, one of which is killed at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time

import dask
import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from doubtful_bundles import doubtful_bundle
from napari_her2.cli import app
from napari_her2.cohort import cluster as cluster_room
from napari_her2.cohort import dispatch, knock, score_cohort_steps, worker
from napari_her2.cohort.answer import NotWanted, WorkerUnfit
from napari_her2.cohort.day_queue import DayQueue
from napari_her2.cohort.day_run import Workers, score_day_steps
from napari_her2.cohort.entry import Entry
from napari_her2.cohort.loop import running_loop
from napari_her2.cohort.sources import ModelSource
from napari_her2.cohort.worker import Needs, prepare
from napari_her2.errors import ClusterLost, JobFailed
from napari_her2.models.bundle import load_bundle
from napari_her2.models.card import NOTICE
from napari_her2.phantom import make_pair
from napari_her2.steps import finished

distributed = pytest.importorskip("distributed")
WAIT_S = 300.0

pytestmark = [
    pytest.mark.slow,  # three processes import PyTorch
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Folder of the workers' cache."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def two_workers(shared):
    """A scheduler with two workers, each a process of its own."""
    environment = {"NAPARI_HER2_CACHE": str(shared), "OMP_NUM_THREADS": "1"}
    with (
        running_loop(WAIT_S) as loop,  # dask itself gives its loop ten seconds to start, and workers 30
        dask.config.set({"distributed.comm.timeouts.connect": WAIT_S}),
        distributed.LocalCluster(
            n_workers=2,
            loop=loop,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            env=environment,
        ) as cluster,
    ):
        yield cluster


@pytest.fixture
def address(two_workers):
    return two_workers.scheduler_address


@pytest.fixture
def no_workers():
    with (
        running_loop(WAIT_S) as loop,
        dask.config.set({"distributed.comm.timeouts.connect": WAIT_S}),
        distributed.LocalCluster(n_workers=0, loop=loop, dashboard_address=":0", processes=False) as cluster,
    ):
        yield cluster


def copies(slide, folder, count):
    """Slides of the same pixels with different fingerprints."""
    paths = [folder / f"case-{number}.svs" for number in range(count)]
    for number, path in enumerate(paths):
        shutil.copy(slide, path)
        with path.open("ab") as file:
            file.write(bytes([number + 1]) * 16)
    return paths


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Four slides of 64 tiles."""
    folder = tmp_path_factory.mktemp("slides")
    return copies(make_pair(folder, "he", score="3+", seed=5, size_px=768, mpp=0.5).he, folder, 4)


@pytest.fixture(scope="module")
def alone(slides, tiny_model, tmp_path_factory):
    """Folder of their results without a cluster."""
    out = tmp_path_factory.mktemp("alone")
    report, _ = finish(score_cohort_steps(slides, tiny_model, out, device="cpu", cache=False))
    assert len(report.of("done")) == 4
    return out


def finish(steps):
    """The report, and the outcomes in the order in which they were told."""
    told = []
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value, told
        told += [step.outcome] if step.outcome is not None else []


def test_a_day_list_is_scored_by_the_workers_as_on_this_machine(address, slides, alone, tiny_model, tmp_path):
    models = [(tiny_model, ModelSource(tiny_model).card())]
    gone = slides[0].with_name("gone.svs")
    entries = [Entry(path.stem, path) for path in (*slides, gone)]
    queue = DayQueue.begin(tmp_path / "out", entries, models)
    running = set()
    for step in score_day_steps(queue, Workers(address, retries=0)):
        running |= {number for number, item in enumerate(queue.items) if item.state == "running"}
        if step.outcome is not None and queue.counts()["done"] == 2:
            queue.pause()
    assert running
    paused = queue.counts()
    assert paused["running"] == 0
    finished(score_day_steps(queue, Workers(address, retries=0)))
    assert [item.state for item in queue.items] == ["done"] * 4 + ["failed"]
    assert "no file" in queue.items[4].reason
    for path in slides:
        ours = result_of(tmp_path / "out/tiny" / path.stem)
        assert ours["probabilities"] == result_of(alone / path.stem)["probabilities"]


def result_of(folder):
    return json.loads((folder / "result.json").read_text("utf-8"))


def assert_same_result(one, other):
    """Two result folders say the same, but for how long it took."""
    first, second = (json.loads((folder / "result.json").read_text("utf-8")) for folder in (one, other))
    assert first["probabilities"] == pytest.approx(second["probabilities"], abs=1e-4)
    for name in ("seconds", "probabilities", "confidence", "margin", "uncertainty"):
        del first[name], second[name]
    assert first == second
    with np.load(one / "maps.npz") as a, np.load(other / "maps.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_allclose(a[name], b[name], atol=2e-3)


def test_nothing_answers_at_a_wrong_address(slides, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_room, "CONNECT_S", 0.5)  # nothing will ever answer
    monkeypatch.setattr(knock, "LISTENS_WITHIN_S", 0.5)
    for wrong in ("tcp://127.0.0.1:9", "nonsense://x", str(tmp_path / "absent.json")):
        with pytest.raises(JobFailed, match=r"No dask scheduler (answers|runs) at .*: check the address"):
            finish(score_cohort_steps(slides, tiny_model, tmp_path / "out", scheduler=wrong))
    assert not (tmp_path / "out").exists()


def test_without_its_extra_it_says_what_to_install(slides, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(JobFailed, match=r"napari-her2\[cluster\]"):
        finish(score_cohort_steps(slides, tiny_model, tmp_path, scheduler="tcp://127.0.0.1:9"))


def test_a_cluster_without_workers_is_not_waited_for_for_ever(
    no_workers, slides, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setattr(dispatch, "PATIENCE_S", 0.1)
    steps = score_cohort_steps(slides, tiny_model, tmp_path, scheduler=no_workers.scheduler_address)
    with pytest.raises(ClusterLost, match="no worker for the 4 slides that are left"):
        finish(steps)
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_that_goes_away_is_told(no_workers, slides, tiny_model, tmp_path):
    steps = score_cohort_steps(slides, tiny_model, tmp_path, scheduler=no_workers.scheduler_address)
    assert next(step for step in steps if step.stage == "Scoring slides").note == "waiting for a worker"
    no_workers.close()
    with pytest.raises(ClusterLost, match="is gone: start it again"):
        finish(steps)


@pytest.fixture
def needs(slides, tiny_model, tmp_path):
    word = tmp_path.name  # of this test alone: a worker checks once
    (tmp_path / "token").write_text(word, "utf-8")
    source = ModelSource(tiny_model).pinned(load_bundle(tiny_model))
    return {
        "source": source,
        "files": (slides[0],),
        "out": tmp_path,
        "token": tmp_path / "token",
        "word": word,
        "version": cluster_room.__version__,
    }


def test_a_worker_with_all_it_needs_loads_the_model_once(needs):
    assert prepare(Needs(**needs)) is prepare(Needs(**needs))


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        ({"version": "9.9"}, "here it is 9.9: install the same version"),
        ({"word": "another disk"}, "does not see the same folder"),
        ({"files": "absent"}, "does not see .*absent.*: slides and results must lie on"),
        ({"source": ModelSource("tiny", identity="0")}, "cannot load the model: There is no model"),
        ({"source": None}, "cannot load the model: .* has the SHA-256 .* there and 000000000000 here"),
    ],
)
def test_an_unfit_worker_says_what_it_lacks(needs, tiny_model, tmp_path, lacking, words):
    if "files" in lacking:
        lacking = {"files": (tmp_path / "absent" / "a.svs",)}
    if lacking.get("source", "") is None:
        lacking = {"source": ModelSource(tiny_model, tiny_model, "0" * 64)}
    with pytest.raises(WorkerUnfit, match=words):
        prepare(Needs(**(needs | lacking)))


def test_a_worker_with_more_threads_computes_one_slide_at_a_time():
    inside, at_once = [], []

    def compute():
        with worker.alone(lambda: True):
            inside.append(1)
            at_once.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=compute) for _ in range(4)]
    with worker.alone(lambda: True):
        for thread in threads:
            thread.start()
        with pytest.raises(NotWanted), worker.alone(lambda: False):
            pass
        assert at_once == []
    for thread in threads:
        thread.join()
    assert at_once == [1] * 4


def test_workers_of_another_version_are_refused(address, slides, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_room, "__version__", "9.9")
    with pytest.raises(JobFailed, match=r"The worker at tcp://.* runs napari-her2 .*, here it is 9\.9"):
        finish(score_cohort_steps(slides, tiny_model, tmp_path / "out", scheduler=address))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_broken_slide_is_tried_elsewhere_and_stops_no_other(address, slides, alone, tiny_model, tmp_path):
    broken = tmp_path / "broken.svs"
    broken.write_text("text")
    command = ["score", broken, *slides, "--model", tiny_model, "--out", tmp_path / "out"]
    command += ["--device", "cpu", "--scheduler", address]
    result = CliRunner().invoke(app, [str(item) for item in command])
    assert result.exit_code == 1, result.output
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("napari-her2: broken.svs: ")
    assert result.stderr.endswith("(2 tries)\n")
    assert result.stdout.count(NOTICE) == 4
    assert "5 slides: 4 done, 0 skipped, 1 failed" in result.stdout
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [*(path.stem for path in slides), "scores.csv"]
    for path in slides:
        assert_same_result(tmp_path / "out" / path.stem, alone / path.stem)


def test_finished_slides_are_skipped_on_the_cluster_too(address, slides, alone, tiny_model, tmp_path):
    out = shutil.copytree(alone, tmp_path / "out")
    shutil.rmtree(out / slides[2].stem)
    report, _ = finish(
        score_cohort_steps(slides, tiny_model, out, scheduler=address, device="cpu", skip_finished=True)
    )
    assert [outcome.state for outcome in report.outcomes] == ["skipped", "skipped", "done", "skipped"]
    assert_same_result(out / slides[2].stem, alone / slides[2].stem)


def test_wishes_reach_the_workers_and_their_doubt_comes_back(address, slides, tiny_model, tmp_path):
    model, keys = doubtful_bundle(tiny_model, tmp_path / "strange.safetensors", strange=True), []
    for shown in (False, True):
        wishes = {"coverage": 0.95, "min_familiarity": 0.02, "show_withheld": shown}
        for out, more in (("here", {}), ("there", {"scheduler": address})):
            steps = score_cohort_steps(slides[:2], model, tmp_path / out, device="cpu", **wishes, **more)
            report, _ = finish(steps)
            assert [outcome.withheld for outcome in report.outcomes] == [not shown] * 2
            assert all("unlike" in dict(outcome.facts)["doubt"] for outcome in report.outcomes)
            values = json.loads((tmp_path / out / slides[0].stem / "result.json").read_text("utf-8"))
            assert values["familiarity_value"] == pytest.approx(0, abs=1e-3)
            asked = {name: values["request"]["options"][name] for name in wishes}
            told = ("set", "coverage", "withheld", "shown_anyway", "doubt", "label", "score")
            keys.append((asked, {name: values[name] for name in told}))
            assert asked == wishes
        assert keys[-1] == keys[-2]
        assert keys[-1][1]["coverage"] == (0.95 if shown else None)


def test_features_from_the_cluster_are_those_from_here(address, slides, tiny_model, tmp_path):
    for out, more in ((tmp_path / "here", []), (tmp_path / "there", ["--scheduler", address])):
        command = [
            "embed",
            *slides[:2],
            "--encoder",
            tiny_model,
            "--out",
            out,
            "--device",
            "cpu",
            "--no-cache",
        ]
        result = CliRunner().invoke(app, [str(item) for item in [*command, *more]])
        assert result.exit_code == 0, result.output
        assert ("worker" in result.stdout) == bool(more)
    for path in slides[:2]:
        name = f"{path.stem}.h5"
        with h5py.File(tmp_path / "here" / name) as here, h5py.File(tmp_path / "there" / name) as there:
            assert dict(here.attrs) == dict(there.attrs)
            assert here["coords"][:].tolist() == there["coords"][:].tolist()
            np.testing.assert_allclose(here["features"][:], there["features"][:], atol=2e-3)


def embedded_bytes(shared):
    return sum(path.stat().st_size for path in shared.rglob("*.features"))


def wait_for(condition):
    limit = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_cancelling_stops_what_runs_on_the_workers(address, he_slide, tiny_model, tmp_path, shared):
    before, out = embedded_bytes(shared), tmp_path / "out"
    paths = copies(he_slide, tmp_path, 3)
    steps = score_cohort_steps(paths, tiny_model, out, scheduler=address, device="cpu", batch_size=1)
    assert next(step for step in steps if "case" in step.note).done == 0
    wait_for(lambda: embedded_bytes(shared) > before)
    steps.close()
    sizes = [0]

    def still():
        time.sleep(1)
        sizes.append(embedded_bytes(shared))
        return sizes[-1] == sizes[-2]

    wait_for(still)
    assert sizes[-1] - before < 256 * 2 * 1024  # of one slide, without the headers; two had begun
    assert list(out.iterdir()) == []


def test_a_worker_killed_in_the_midst_costs_no_slide(
    two_workers, address, slides, alone, tiny_model, tmp_path, shared
):
    """The last test, for what is killed here stays dead: to start it again would load PyTorch once more."""

    async def stays_dead():
        return None

    for nanny in two_workers.workers.values():
        # Dask would close the new worker too, some seconds after it took a slide.
        nanny.instantiate = stays_dead
    with distributed.Client(address, set_as_default=False) as client:
        pids = client.run(os.getpid)
    shutil.rmtree(shared / "embeddings", ignore_errors=True)  # what earlier tests embedded
    out = tmp_path / "out"
    steps = score_cohort_steps(slides, tiny_model, out, scheduler=address, device="cpu", batch_size=2)
    assert next(step for step in steps if "case" in step.note).done == 0
    # Every worker has a slide now; nothing they say is heard before the next step.
    lost, pid = next(iter(pids.items()))
    wait_for(lambda: embedded_bytes(shared) > 0)
    os.kill(pid, signal.SIGKILL)
    report, told = finish(steps)
    assert sorted(outcome.path.name for outcome in told) == [path.name for path in slides]
    assert [outcome.state for outcome in told] == ["done"] * 4
    assert sorted(outcome.tries for outcome in told) == [1, 1, 1, 2]
    assert lost not in {outcome.worker for outcome in told}
    assert [outcome.written for outcome in report.outcomes] == [out / path.stem for path in slides]
    for path in slides:
        assert_same_result(out / path.stem, alone / path.stem)
