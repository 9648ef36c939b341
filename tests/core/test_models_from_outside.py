"""Model files of any origin: one bad file blocks nothing, and no card makes more of a file than it holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import timm

from napari_her2.errors import ModelError
from napari_her2.models import registry
from napari_her2.models.bundle import load_bundle
from napari_her2.models.bundle_card import BUNDLED_FOLDER
from napari_her2.models.weights_header import MAX_FILE_BYTES, read_header

DEMO = BUNDLED_FOLDER / "demo-attention-mil.safetensors"
HUGE = "9" * 400


def header_of(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(path, header, tensors=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + tensors)
    return path


def spoiled(path, **changes):
    """The demonstration model with another card; a text in < > goes in as it is."""
    header, tensors = header_of(DEMO)
    card = json.loads(header["__metadata__"]["napari_her2"])
    for name, value in changes.items():
        target, (*parents, last) = card, name.split("__")
        for parent in parents:
            target = target[parent]
        target[last] = value
    text = json.dumps(card)
    while '"<' in text:
        text = text.replace('"<', "", 1).replace('>"', "", 1)
    header["__metadata__"]["napari_her2"] = text
    return write(path, header, tensors)


BAD_FILES = {
    "long number": lambda path: spoiled(path, mpp=f"<{HUGE}>"),
    "long decimal": lambda path: spoiled(path, mpp=f"<{HUGE}.5>"),
    "very long number": lambda path: spoiled(path, mpp=f"<{'9' * 20_000}>"),
    "long number in a measure": lambda path: spoiled(path, metrics={"auc": f"<{HUGE}>"}),
    "long number in an argument": lambda path: spoiled(path, arguments={"features": f"<{HUGE}>"}),
    "half a character": lambda path: spoiled(path, training_data="\ud800"),
    "half a character in a name": lambda path: spoiled(path, **{"\ud800": 1}),
    "brackets": lambda path: write(path, b"[" * 100_000),
    "long number in the header": lambda path: write(path, b'{"a":%s}' % HUGE.encode()),
    "long shape": lambda path: write(
        path, {"a": {"dtype": "F32", "shape": [int(HUGE)], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo if hasattr(os, "mkfifo") else lambda path: path.mkdir(),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("make", BAD_FILES.values(), ids=BAD_FILES)
def test_one_bad_file_is_told_and_the_other_models_are_listed(make):
    folder = registry.models_folder()
    folder.mkdir(parents=True, exist_ok=True)
    make(folder / "bad.safetensors")
    names = [entry.name for entry in registry.list_models()]
    assert "demo-attention-mil" in names
    assert "bad" not in names
    (problem,) = registry.unreadable_models()
    assert problem.path.name == "bad.safetensors"
    problem.problem.encode()
    assert "\n" not in problem.problem
    assert len(problem.problem) < 600
    with pytest.raises(ModelError):
        registry.load_model("bad")


def no_building(*_args, **_kwargs):
    raise AssertionError("built before it was checked")


@pytest.mark.parametrize(
    "arguments",
    [
        {"depth": 16384},
        {"depth": 0},
        {"patch_size": 0},
        {"num_heads": 0},
        {"embed_dim": 16384},
        {"mlp_ratio": 1e17},
        {"mlp_ratio": -1},
        {"img_size": 10**9},
        {"img_size": "big"},
        {"init_values": True},
        {"reg_tokens": -1},
        {"checkpoint_path": "/etc/passwd"},
    ],
    ids=str,
)
def test_arguments_of_an_encoder_are_bounded_before_timm_sees_them(tmp_path, monkeypatch, arguments):
    monkeypatch.setattr(timm, "create_model", no_building)
    path = spoiled(
        tmp_path / "x.safetensors", encoder__name="timm:vit_tiny_patch16_224", encoder__arguments=arguments
    )
    with pytest.raises(ModelError, match="is not allowed"):
        load_bundle(path)


@pytest.mark.parametrize("name", ["timm:eva02_enormous_patch14_clip_224", "timm:vit_tiny_patch16_224"])
def test_an_encoder_is_compared_with_its_file_before_memory_is_taken_for_it(tmp_path, monkeypatch, name):
    """4.4 billion weights: on the meta device they weigh nothing."""
    real, devices = timm.create_model, []

    def watched(*args, **kwargs):
        model = real(*args, **kwargs)
        devices.append({parameter.device.type for parameter in model.parameters()})
        return model

    monkeypatch.setattr(timm, "create_model", watched)
    path = spoiled(
        tmp_path / "x.safetensors",
        encoder__name=name,
        encoder__tile_px=224,
        encoder__arguments={},
        tile_px=224,
    )
    with pytest.raises(ModelError, match=r"features, but it gives|do not fit"):
        load_bundle(path)
    assert devices == [{"meta"}]


def test_numbers_that_make_no_network_are_refused_in_words(tmp_path):
    """192 features do not go to 7 heads."""
    path = spoiled(
        tmp_path / "x.safetensors",
        encoder__name="timm:vit_tiny_patch16_224",
        encoder__arguments={"num_heads": 7},
    )
    with pytest.raises(ModelError, match="cannot build"):
        load_bundle(path)


def claims(path, shape, size):
    """A file that claims one tensor; what stands behind the header is never written."""
    kind = {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}
    header, _ = header_of(DEMO)
    write(path, {"__metadata__": header["__metadata__"], "head.classifier.weight": kind})
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size)
    return path


def test_a_sparse_model_of_60_gb_is_refused_by_its_size(tmp_path):
    path = claims(tmp_path / "sparse.safetensors", [15 * 2**30], 60 * 2**30)
    for read in (read_header, load_bundle):
        with pytest.raises(ModelError, match=f"at most {MAX_FILE_BYTES // 2**30} GB"):
            read(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say which parts of a file are there")
def test_a_file_that_is_mostly_holes_is_told_as_never_finished(tmp_path):
    path = claims(tmp_path / "sparse.safetensors", [2**31], 8 * 2**30)
    with pytest.raises(ModelError, match="mostly empty"):
        load_bundle(path)


@pytest.mark.parametrize(
    ("tensors", "space", "message"),
    [
        ({"a": ("F32", [2], [0, 8]), "b": ("F32", [2], [4, 12])}, 12, "overlap"),
        ({"a": ("F32", [2], [0, 8]), "b": ("F32", [2], [16, 24])}, 24, "overlap"),
        ({"a": ("F32", [2], [0, 8])}, 7, "cut off"),
        ({"a": ("F32", [2], [0, 8])}, 9, "behind its last tensor"),
        ({"a": ("F32", [3], [0, 8])}, 8, "not described"),
        ({"a": ("F32", [-2], [0, 8])}, 8, "not described"),
        ({"a": ("F32", [True, 2], [0, 8])}, 8, "not described"),
        ({"a": ("F32", [2.0], [0, 8])}, 8, "not described"),
        ({"a": ("F32", [1] * 1000 + [2], [0, 8])}, 8, "not described"),
        ({"a": ("F1024", [2], [0, 8])}, 8, "not described"),
        ({"a": ("F32", "2", [0, 8])}, 8, "not described"),
        ({"a": ("F32", [2], [8])}, 8, "not described"),
    ],
)
def test_claims_that_do_not_fill_the_file_are_refused(tmp_path, tensors, space, message):
    told = {
        name: {"dtype": kind, "shape": shape, "data_offsets": place}
        for name, (kind, shape, place) in tensors.items()
    }
    with pytest.raises(ModelError, match=message):
        read_header(write(tmp_path / "x.safetensors", told, bytes(space)))


@pytest.mark.parametrize("name", ["con", "nul", "aux", "prn", "com1", "lpt9", "nul.v2"])
@pytest.mark.parametrize("ending", [""])
def test_names_that_windows_keeps_for_devices_are_no_model_names(tmp_path, name, ending):
    with pytest.raises(ModelError, match="no model file can be called"):
        load_bundle(spoiled(tmp_path / "x.safetensors", name=name + ending))


@pytest.mark.parametrize("name", ["x.encoder", "x.safetensors", "x.pth", "x.sha256"])
def test_names_that_mean_another_file_are_no_model_names(tmp_path, name):
    with pytest.raises(ModelError, match="no model file can be called"):
        load_bundle(spoiled(tmp_path / "x.safetensors", name=name))


@pytest.mark.parametrize("name", ["x.", "x ", " x", "x\n", "../x", "x/y", "X", "", "."])
def test_names_that_a_system_would_change_are_no_model_names(tmp_path, name):
    with pytest.raises(ModelError, match="lower case"):
        load_bundle(spoiled(tmp_path / "x.safetensors", name=name))


@pytest.mark.parametrize("name", ["controls", "nullify", "com10", "encoder", "x-encoder", "auxiliary.1"])
def test_names_that_only_look_so_are_good(tmp_path, name):
    assert load_bundle(spoiled(tmp_path / "x.safetensors", name=name)).card.name == name


LISTINGS = {
    "python": (
        "from napari_her2.models.registry import list_models, unreadable_models\n"
        "found = [entry.card.name for entry in list_models()]\n"
    ),
    "command": (
        "from typer.testing import CliRunner\n"
        "from napari_her2.cli import app\n"
        "found = CliRunner().invoke(app, ['models', 'list']).output\n"
    ),
    "dock": (
        "from napari_her2._napari.settings import Settings\n"
        "from napari_her2._napari.work import finding_equipment\n"
        "steps = finding_equipment(Settings())\n"
        "next(steps)\n"
        "found = [entry.name for entry in next(steps).models]\n"
    ),
}


@pytest.mark.parametrize("how", LISTINGS)
def test_models_and_their_cards_are_listed_without_pytorch(how):
    code = (
        f"import sys\n{LISTINGS[how]}"
        "assert 'demo-attention-mil' in found, found\n"
        "print([name for name in ('torch', 'torchvision', 'timm', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
