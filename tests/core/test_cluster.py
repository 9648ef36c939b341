"""Cohorts on a dask cluster of two worker processes, one of which is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_her2.cli import app
from napari_her2.cohort import cluster as cluster_room
from napari_her2.cohort import dispatch, embed_cohort_steps, score_cohort_steps
from napari_her2.cohort.sources import ModelSource
from napari_her2.cohort.worker import Needs, WorkerUnfit, prepare
from napari_her2.errors import ClusterLost, JobFailed
from napari_her2.models.card import NOTICE

distributed = pytest.importorskip("distributed")
WAIT_S = 60.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Folder of the workers' cache."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def two_workers(shared):
    """A scheduler with two workers, each a process of its own."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        env={"NAPARI_HER2_CACHE": str(shared), "OMP_NUM_THREADS": "1"},
    ) as cluster:
        yield cluster


@pytest.fixture
def address(two_workers):
    with distributed.Client(two_workers, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=WAIT_S)  # the killed one is started again
    return two_workers.scheduler_address


@pytest.fixture
def slides(he_slide, tmp_path):
    """Four slides of the same pixels, with different fingerprints."""
    paths = [tmp_path / f"case-{number}.svs" for number in range(4)]
    for number, path in enumerate(paths):
        shutil.copy(he_slide, path)
        with path.open("ab") as file:
            file.write(bytes([number + 1]) * 16)
    return paths


def finish(steps):
    told = []
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value, told
        told += [step.outcome] if step.outcome is not None else []


def same_results(one, other):
    """Whether two result folders say the same, but for how long it took."""
    first, second = (json.loads((folder / "result.json").read_text("utf-8")) for folder in (one, other))
    for values in (first, second):
        del values["seconds"]
    assert first["probabilities"] == pytest.approx(second["probabilities"], abs=1e-4)
    for name in ("probabilities", "confidence", "margin", "uncertainty"):
        del first[name], second[name]
    assert first == second
    with np.load(one / "maps.npz") as a, np.load(other / "maps.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_allclose(a[name], b[name], atol=2e-3)


def test_a_worker_killed_in_the_midst_costs_no_slide(address, slides, tiny_model, tmp_path, shared):
    with distributed.Client(address, set_as_default=False) as client:
        pids = client.run(os.getpid)
    out = tmp_path / "out"
    steps = score_cohort_steps(slides, tiny_model, out, scheduler=address, device="cpu", batch_size=4)
    assert next(step for step in steps if "case" in step.note).outcome is None
    # Both have a slide; what it embeds appears in the cache.
    limit = time.monotonic() + WAIT_S
    while not any(path.stat().st_size for path in shared.rglob("*.features")):
        assert time.monotonic() < limit
        time.sleep(0.01)
    lost, pid = next(iter(pids.items()))
    os.kill(pid, signal.SIGKILL)
    report, told = finish(steps)
    assert sorted(outcome.path.name for outcome in told) == [path.name for path in slides]
    assert [outcome.state for outcome in told] == ["done"] * 4
    assert [outcome.path for outcome in report.outcomes] == slides
    assert sorted(outcome.tries for outcome in told) == [1, 1, 1, 2]
    assert lost not in {outcome.worker for outcome in told}
    alone, _ = finish(score_cohort_steps(slides, tiny_model, tmp_path / "here", device="cpu"))
    for here, there in zip(alone.outcomes, report.outcomes, strict=True):
        same_results(here.written, there.written)
    assert sorted(path.name for path in out.iterdir()) == [path.stem for path in slides]
