"""A scheduler with TLS: reached with its certificates, by nobody else, and what is missing is told."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import dask
import pytest
from typer.testing import CliRunner

from napari_her2.cli import app
from napari_her2.cohort import cluster as cluster_room
from napari_her2.cohort.loop import running_loop
from napari_her2.cohort.tls import TlsFiles, security_of, tls_files
from napari_her2.errors import JobFailed

distributed = pytest.importorskip("distributed")
PATIENCE_S = 300


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Two authorities that trust themselves alone, each with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    made = {}
    for name in ("ours", "theirs"):
        folder = tmp_path_factory.mktemp(name)
        cert, key = folder / "cert.pem", folder / "key.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-subj", f"/CN={name}", "-keyout", str(key), "-out", str(cert)]
        subprocess.run(command, check=True, capture_output=True)
        made[name] = TlsFiles(cert, cert, key)
    return made


@pytest.fixture
def scheduler(certificates):
    """A scheduler without workers that speaks TLS only."""
    own = certificates["ours"]
    files = {"tls_ca_file": str(own.ca)}
    for role in ("scheduler", "client", "worker"):
        files |= {f"tls_{role}_cert": str(own.cert), f"tls_{role}_key": str(own.key)}
    security = distributed.Security(require_encryption=True, **files)
    with (
        running_loop(PATIENCE_S) as loop,
        dask.config.set({"distributed.comm.timeouts.connect": PATIENCE_S}),
        distributed.LocalCluster(
            n_workers=0,
            loop=loop,
            processes=False,
            dashboard_address=":0",
            protocol="tls://",
            host="127.0.0.1",
            security=security,
        ) as cluster,
    ):
        yield cluster.scheduler_address


def connected(address, tls, stack):
    steps = cluster_room.connect(address, tls, stack)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_scheduler_with_tls_is_reached_with_its_certificates(scheduler, certificates):
    assert scheduler.startswith("tls://")
    with ExitStack() as stack:
        cluster = connected(scheduler, certificates["ours"], stack)
        assert cluster.workers() == frozenset()
        assert cluster.warning() == ""


def test_a_scheduler_with_tls_is_not_reached_with_those_of_others(scheduler, certificates, monkeypatch):
    monkeypatch.setattr(cluster_room, "CONNECT_S", 1.0)  # it will never answer
    for tls, told in (
        (certificates["theirs"], "No dask scheduler answers"),
        (None, "is encrypted: give the certificate of its authority"),
    ):
        with ExitStack() as stack, pytest.raises(JobFailed, match=told):
            connected(scheduler, tls, stack)


def test_certificates_that_do_not_go_together_are_told(certificates, tmp_path):
    ours, theirs = certificates["ours"], certificates["theirs"]
    assert security_of("tls://10.0.0.1:8786", ours).require_encryption
    with pytest.raises(JobFailed, match="not encrypted: give the tls:// address"):
        security_of("tcp://10.0.0.1:8786", ours)
    with pytest.raises(JobFailed, match="not encrypted"):
        security_of("10.0.0.1:8786", ours)
    (tmp_path / "text.pem").write_text("text")
    for wrong in (
        TlsFiles(ours.ca, ours.cert, theirs.key),
        TlsFiles(tmp_path / "text.pem", ours.cert, ours.key),
        TlsFiles(tmp_path / "absent.pem", ours.cert, ours.key),
    ):
        with pytest.raises(JobFailed, match=r"certificates cannot be used .*belong together"):
            security_of("tls://10.0.0.1:8786", wrong)


def test_half_of_the_files_are_refused():
    one = Path("one.pem")
    assert tls_files(None, None, None) is None
    assert tls_files(one, one, None) == TlsFiles(one, one)
    for given in ((one, None, None), (None, one, one), (None, None, one)):
        with pytest.raises(JobFailed, match="give both files"):
            tls_files(*given)


@pytest.mark.parametrize("command", ["score", "embed"])
def test_certificates_without_a_cluster_are_refused(command, he_slide, tiny_model, tmp_path):
    what = "--model" if command == "score" else "--encoder"
    values = [
        command,
        he_slide,
        what,
        tiny_model,
        "--out",
        tmp_path,
        "--tls-ca",
        "a.pem",
        "--tls-cert",
        "b.pem",
    ]
    result = CliRunner().invoke(app, [str(value) for value in values])
    assert result.exit_code == 2
    assert "give --scheduler too" in " ".join(result.output.replace("│", " ").split())
