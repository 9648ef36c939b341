"""A scheduler at a wrong address: a closed port is told at once."""

from __future__ import annotations

import json
import socket

import pytest

from napari_her2.cohort import cluster
from napari_her2.errors import JobFailed

pytest.importorskip("distributed")


@pytest.fixture
def closed_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))  # nobody listens, and nobody else gets it meanwhile
        yield place.getsockname()[1]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{}", "127.0.0.1:{}", "tcp://localhost:{}", "file"])
def test_a_refused_connection_is_told_before_dask_begins_to_wait(closed_port, address, tmp_path, monkeypatch):
    def client(_):
        raise AssertionError("dask would wait here for a minute")

    monkeypatch.setattr(cluster, "_client_class", client)
    if address == "file":
        address = str(tmp_path / "scheduler.json")
        (tmp_path / "scheduler.json").write_text(json.dumps({"address": f"tcp://127.0.0.1:{closed_port}"}))
    address = address.format(closed_port)
    refused = pytest.raises(JobFailed, match="the connection was refused: check the address")
    with refused as told, cluster.connect(address):
        pass
    assert address in str(told.value)
