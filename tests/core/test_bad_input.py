"""Bad input through the command line: one plain line, exit code 1, and nothing left behind."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from napari_her2.cli import app
from small_files import make_bundle, write_flat_slide


@pytest.fixture
def refused(tiny_model, tmp_path):
    """Score with bad input; return the line on standard error."""

    def score(slide, *more, model=tiny_model, out=tmp_path / "out"):
        arguments = ["score", slide, "--model", model, "--out", out, "--device", "cpu", *more]
        result = CliRunner().invoke(app, [str(item) for item in arguments])
        assert result.exit_code == 1, result.output
        lines = result.stderr.splitlines()
        assert len(lines) == 1, result.stderr
        assert "fault of its own" not in lines[0]
        assert not out.is_dir() or not list(out.iterdir())
        return lines[0]

    return score


def test_no_such_file(refused, tmp_path):
    assert "check the path" in refused(tmp_path / "none.svs")


@pytest.mark.parametrize("content", [b"", b"this is text", b"II*\0", b"\x89PNG\r\n\x1a\n", b"\0" * 5000])
def test_files_that_are_no_slides(refused, tmp_path, content):
    (tmp_path / "a.svs").write_bytes(content)
    assert "a.svs" in refused(tmp_path / "a.svs")


def cut(source, share, path):
    content = source.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_slide_cut_off(refused, he_slide, tmp_path, share):
    line = refused(cut(he_slide, share, tmp_path / "cut.svs"))
    assert "cut.svs" in line
    assert "copy it again" in line


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_real_slide_cut_off(refused, shared_data, tmp_path, share):
    line = refused(cut(shared_data / "slides" / "cmu1_small_region.svs", share, tmp_path / "cut.svs"))
    assert "cut.svs" in line


def test_a_slide_cut_off_behind_its_pixels_is_scored_with_a_warning(shared_data, tiny_model, tmp_path):
    path = cut(shared_data / "slides" / "cmu1_small_region.svs", 0.9, tmp_path / "cut.svs")
    arguments = ["score", path, "--model", tiny_model, "--out", tmp_path / "out", "--device", "cpu"]
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    assert result.exit_code == 0, result.output
    assert "ends early" in result.stdout


def test_a_corrupt_tile_is_left_out_and_reported(damaged_slide, tiny_model, tmp_path):
    command = [sys.executable, "-m", "napari_her2", "score", str(damaged_slide), "--model", str(tiny_model)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--device", "cpu"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "damaged" in done.stdout
    assert (tmp_path / "out" / "damaged" / "result.json").is_file()


def test_no_scale_in_the_file(refused, tmp_path, shared_data):
    line = refused(shared_data / "slides" / "tcga_cr_7395_no_mpp.svs")
    assert "--mpp" in line


@pytest.mark.parametrize("mpp", ["0", "-1", "nan", "inf", "0.0001", "1e9"])
def test_an_absurd_scale(refused, he_slide, mpp):
    assert "µm/px" in refused(he_slide, "--mpp", mpp)


def test_a_scale_that_leaves_no_whole_tile(refused, he_slide):
    assert "µm" in refused(he_slide, "--mpp", "0.02")


def test_a_scale_too_coarse_for_the_model(refused, shared_data):
    pytest.importorskip("openslide")
    line = refused(shared_data / "slides" / "camelyon_node_jpeg.dcm")
    assert "28.97" in line


def test_bare_glass(refused, tmp_path):
    assert "No tissue" in refused(write_flat_slide(tmp_path / "glass.svs", (243, 242, 244)))


def test_fewer_than_100_tiles_is_an_answer_but_not_a_score(he_slide, tiny_model, tmp_path):
    square = '{"type": "Polygon", "coordinates": [[[480,480],[1000,480],[1000,1000],[480,1000],[480,480]]]}'
    (tmp_path / "r.geojson").write_text(square)
    arguments = ["score", he_slide, "--model", tiny_model, "--out", tmp_path / "out", "--device", "cpu"]
    result = CliRunner().invoke(
        app, [str(item) for item in [*arguments, "--regions", tmp_path / "r.geojson"]]
    )
    assert result.exit_code == 0, result.output
    assert "indeterminate: only" in result.stdout


def test_the_wrong_stain(refused, small_pair):
    assert "--override-fit" in refused(small_pair.ihc)


def test_an_ihc_slide_for_a_model_without_use_for_it(refused, small_pair):
    assert "leave the IHC slide out" in refused(small_pair.he, "--ihc", small_pair.ihc)


def test_regions_that_cannot_be_read(refused, he_slide, tmp_path):
    assert "could not be read" in refused(he_slide, "--regions", tmp_path / "none.geojson")


def test_a_device_that_is_not_there(refused, he_slide):
    assert "no device called" in refused(he_slide, "--device", "abacus")


def test_no_such_model(refused, he_slide):
    assert "no model called 'nothing'" in refused(he_slide, model="nothing")


def test_a_damaged_bundle(refused, he_slide, tiny_model, tmp_path):
    content = tiny_model.read_bytes()
    for name, damaged in {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "header": b"\xff" * 64 + content[64:],
    }.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(damaged)
        assert path.name in refused(he_slide, model=path)


def test_a_foreign_bundle(refused, he_slide, tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    assert "foreign.safetensors" in refused(he_slide, model=tmp_path / "foreign.safetensors")


class Trap:
    """Would be called if anybody unpickled it."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_a_pickle_is_refused_without_being_opened(refused, he_slide, tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    assert "pickle" in refused(he_slide, model=tmp_path / name)
    torch.save({"weights": torch.zeros(2)}, tmp_path / name)
    assert "pickle" in refused(he_slide, model=tmp_path / name)
    assert not Trap.sprung


def test_a_model_for_another_scale(refused, he_slide, tmp_path):
    model = make_bundle(tmp_path / "fine.safetensors", mpp=0.125)
    assert "µm/px" in refused(he_slide, model=model)


def test_an_output_folder_that_cannot_be_written_is_found_before_scoring(refused, tmp_path):
    (tmp_path / "file").write_text("in the way")
    # The slide is not there either: the folder is looked at first, before hours are spent.
    assert "choose another folder" in refused(tmp_path / "none.svs", out=tmp_path / "file")


def test_a_cache_that_cannot_be_written_is_only_a_warning(he_slide, tiny_model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NAPARI_HER2_CACHE", str(tmp_path / "file"))
    arguments = ["score", he_slide, "--model", tiny_model, "--out", tmp_path / "out", "--device", "cpu"]
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    assert result.exit_code == 0, result.output
    assert "not kept on disk" in result.stdout


def test_memory_that_suffices_for_no_tile(refused, he_slide, monkeypatch):
    def no_memory(*_arguments, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("napari_her2.models.patch_encoder.PatchEncoder.forward", no_memory)
    assert "memory" in refused(he_slide).lower()


def test_a_slide_that_shrinks_while_it_is_read(refused, he_slide, tmp_path, monkeypatch):
    from napari_her2.slide.reader import Slide

    path = tmp_path / "shrinking.svs"
    shutil.copy(he_slide, path)
    original = Slide.squares

    def squares(self, places, **options):
        with path.open("r+b") as file:
            file.truncate(1000)
        return original(self, places, **options)

    monkeypatch.setattr(Slide, "squares", squares)
    told = refused(path)
    assert "was changed" in told
    assert "damaged" in told


def test_a_stack_that_is_no_slide(refused, tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((5, 300, 300), np.uint16), photometric="minisblack")
    assert "stack.tif" in refused(tmp_path / "stack.tif")
