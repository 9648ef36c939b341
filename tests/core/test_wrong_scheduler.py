"""A scheduler that is not there, not there yet, or silent."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from contextlib import ExitStack, contextmanager

import pytest

from napari_her2.cohort import cluster, knock
from napari_her2.cohort.loop import running_loop
from napari_her2.errors import JobFailed

distributed = pytest.importorskip("distributed")
PATIENCE_S = 300.0


@pytest.fixture
def closed_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))  # nobody listens, and nobody else gets it meanwhile
        yield place.getsockname()[1]


@contextmanager
def silent(*, accepts):
    """The port of a listener that takes connections, or leaves them in the queue, and never says a word."""
    with ExitStack() as stack:
        place = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port, ended = place.getsockname()[1], threading.Event()

        def take():
            while True:
                taken = stack.enter_context(place.accept()[0])
                if ended.is_set():
                    return
                assert taken

        thread = threading.Thread(target=take)
        if accepts:
            thread.start()
        try:
            yield port
        finally:
            ended.set()
            if accepts:
                socket.create_connection(("127.0.0.1", port)).close()
                thread.join()


@contextmanager
def scheduler_at(port):
    """A scheduler without workers."""

    async def start():
        return await distributed.Scheduler(
            host="127.0.0.1", port=port, dashboard=False, dashboard_address=":0"
        )

    with running_loop(PATIENCE_S) as loop:
        room = loop.asyncio_loop
        running = asyncio.run_coroutine_threadsafe(start(), room).result(PATIENCE_S)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(running.close(), room).result(PATIENCE_S)


def written(address, folder):
    """The file of a scheduler."""
    file = folder / "scheduler.json"
    file.write_text(json.dumps({"address": address}))
    return str(file)


def connected(steps, stages):
    """What waiting ends with; the stages that it told go to the list."""
    while True:
        try:
            stages.append(next(steps).stage)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{}", "127.0.0.1:{}", "tcp://localhost:{}", "file"])
def test_a_refused_connection_is_told_before_dask_begins_to_wait(closed_port, address, tmp_path, monkeypatch):
    def client(_):
        raise AssertionError("dask would wait here for a minute")

    monkeypatch.setattr(cluster, "_client_class", client)
    monkeypatch.setattr(knock, "LISTENS_WITHIN_S", 0.5)
    if address == "file":
        address = written(f"tcp://127.0.0.1:{closed_port}", tmp_path)
    address = address.format(closed_port)
    stages = []
    refused = pytest.raises(JobFailed, match="the connection was refused: check the address")
    with ExitStack() as stack, refused as told:
        connected(cluster.connect(address, None, stack), stages)
    assert set(stages) == {"Waiting for the scheduler"}
    assert address in str(told.value)


@pytest.mark.parametrize(("text", "told"), [(None, "cannot be read"), ("{}", "does not hold its address")])
def test_a_file_in_which_no_scheduler_stands_is_told(text, told, tmp_path, monkeypatch):
    monkeypatch.setattr(knock, "LISTENS_WITHIN_S", 0.5)
    file = tmp_path / "scheduler.json"
    if text is not None:
        file.write_text(text)
    with ExitStack() as stack, pytest.raises(JobFailed, match=told):
        list(cluster.connect(str(file), None, stack))


@pytest.mark.parametrize("by", ["address", "file"])
def test_a_scheduler_that_is_started_a_moment_later_is_waited_for(by, tmp_path, monkeypatch):
    monkeypatch.setattr(knock, "LISTENS_WITHIN_S", PATIENCE_S)
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    given = address if by == "address" else str(tmp_path / "scheduler.json")
    with ExitStack() as stack:
        steps = cluster.connect(given, None, stack)
        assert next(steps).stage == "Waiting for the scheduler"
        stack.enter_context(scheduler_at(port))
        written(address, tmp_path)
        assert connected(steps, []).workers() == frozenset()


@pytest.mark.parametrize("accepts", [True, False])
def test_a_silent_scheduler_is_given_up(accepts, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_S", 2.0)
    before = set(threading.enumerate())
    with silent(accepts=accepts) as port:
        address = f"tcp://127.0.0.1:{port}"
        given_up = pytest.raises(JobFailed, match=f"answers at {address} within 2 s: check the address")
        stages = []
        with ExitStack() as stack, given_up as told:
            connected(cluster.connect(address, None, stack), stages)
        assert set(stages) == {"Waiting for the scheduler"}
        assert str(told.value).count(".") == address.count(".") + 1  # one sentence
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("accepts", [True, False])
def test_waiting_for_a_silent_scheduler_can_be_cancelled(accepts):
    before = set(threading.enumerate())
    with silent(accepts=accepts) as port, ExitStack() as stack:
        steps = cluster.connect(f"tcp://127.0.0.1:{port}", None, stack)
        assert next(steps).stage == "Waiting for the scheduler"
        steps.close()
    assert set(threading.enumerate()) <= before
