"""Scoring from the command line that is ended early, finds no room, or is not alone: nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from napari_her2.cli import app
from napari_her2.export.kept_result import KEPT_NAME, read_kept, write_kept
from napari_her2.inference import embed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs the signals and limits of POSIX"),
]

# Small batches, so that there is a middle; behind the third of them it may be told to wait.
CHILD = textwrap.dedent("""
    import os, resource, signal, sys, time
    from napari_her2.cli import main
    from napari_her2.inference import embed
    from napari_her2.inference.cache import FeatureStore

    # Ignored in what is started in the background of a script, and so in all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    embed.default_batch = lambda *_: 16
    keep, kept = FeatureStore.append, []

    def append(self, index, features):
        keep(self, index, features)
        kept.append(len(index))
        if len(kept) == 3 and "WAIT" in os.environ:
            print("waiting", flush=True)
            time.sleep(600)

    FeatureStore.append = append
    if "MOST_BYTES" in os.environ:
        most = int(os.environ["MOST_BYTES"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    sys.argv = ["napari-her2", *sys.argv[1:]]
    main()
""")


def start(slide, model, out, cache, **variables):
    command = [sys.executable, "-c", CHILD, "score", str(slide), "--model", str(model), "--out", str(out)]
    environment = os.environ | {"NAPARI_HER2_CACHE": str(cache)} | variables
    return subprocess.Popen(
        [*command, "--device", "cpu"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def score(slide, model, out, cache):
    """Score to the end in this process: another one would import PyTorch first."""
    command = ["score", str(slide), "--model", str(model), "--out", str(out), "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "default_batch", lambda *_: 16)
        patch.setenv("NAPARI_HER2_CACHE", str(cache))
        done = CliRunner().invoke(app, command)
    return done.exit_code, done.output


def written(out, slide):
    """Bytes of every file of a result, without the seconds that it took."""
    folder = out / slide.stem
    found = {item.name: item.read_bytes() for item in folder.iterdir()}
    values = json.loads(found.pop("result.json"))
    assert values.pop("seconds")
    kept = read_kept(folder / KEPT_NAME)
    write_kept(replace(kept, seconds={}), out / "timeless")
    found[KEPT_NAME] = (out / "timeless").read_bytes()
    (out / "timeless").unlink()
    return found | {"result.json": json.dumps(values)}


@pytest.fixture(scope="module")
def fresh(he_slide, tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fresh")
    code, told = score(he_slide, tiny_model, folder / "out", folder / "cache")
    assert code == 0, told
    return written(folder / "out", he_slide)


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_result_and_the_next_one_gives_the_same_bytes(
    ended_by, he_slide, tiny_model, tmp_path, fresh
):
    arguments = (he_slide, tiny_model, tmp_path / "out", tmp_path / "cache")
    with start(*arguments, WAIT="1") as child:
        assert any(line.strip() == "waiting" for line in child.stdout)
        child.send_signal(ended_by)
        child.communicate()
    assert child.returncode != 0
    assert not (tmp_path / "out" / he_slide.stem / "result.json").exists()
    (store,) = (tmp_path / "cache" / "embeddings").glob("*.features")
    assert store.stat().st_size > 0
    code, told = score(*arguments)
    assert code == 0, told
    assert written(tmp_path / "out", he_slide) == fresh


def test_three_processes_on_one_cache_and_one_output_end_with_one_whole_result(
    he_slide, tiny_model, tmp_path, fresh
):
    arguments = (he_slide, tiny_model, tmp_path / "out", tmp_path / "cache")
    children = [start(*arguments) for _ in range(3)]
    told = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], told
    after = written(tmp_path / "out", he_slide)
    # Whoever could not write the cache says so in its result.
    values, expected = json.loads(after.pop("result.json")), json.loads(fresh["result.json"])
    assert after.pop(KEPT_NAME)
    values["warnings"] = [line for line in values["warnings"] if "another program" not in line.lower()]
    assert values == expected
    assert after == {name: data for name, data in fresh.items() if name not in ("result.json", KEPT_NAME)}
    code, told = score(*arguments)
    assert code == 0, told
    assert written(tmp_path / "out", he_slide) == fresh


def test_without_room_for_a_result_the_older_one_stays(he_slide, tiny_model, tmp_path, fresh):
    arguments = (he_slide, tiny_model, tmp_path / "out", tmp_path / "cache")
    assert score(*arguments)[0] == 0
    with start(*arguments, MOST_BYTES="1000") as child:
        told = "".join(child.communicate())
    assert child.returncode == 1
    assert "Traceback" not in told
    assert "cannot be written" in told
    assert written(tmp_path / "out", he_slide) == fresh
