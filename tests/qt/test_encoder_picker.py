"""The encoder of a training is chosen by name; nothing is fetched, and what is missing says how it is had."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import save_file
from torch import zeros

from napari_her2._qt.training.encoder_picker import EncoderPicker
from napari_her2._qt.training.form import TrainingForm
from napari_her2.training_runs.processes import RunRequest, train_command
from napari_her2.training_runs.work import ConfigChoice, MethodChoice

CONFIGS = (ConfigChoice("protocol", "as published"),)
METHODS = (
    MethodChoice("tiles", "of tiles", CONFIGS, encoder=True),
    MethodChoice("pixels", "of pixels", CONFIGS),
)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """UNI is installed, as far as its record says."""
    monkeypatch.setenv("NAPARI_HER2_ENCODERS", str(tmp_path / "encoders"))
    path = tmp_path / "encoders" / "uni.safetensors"
    path.parent.mkdir()
    save_file({"a": zeros(1)}, path)
    record = {"digest": "a" * 64, "size": path.stat().st_size}
    path.with_suffix(".json").write_text(json.dumps(record))
    return path.parent


def test_installed_encoders_come_first_and_others_say_how_they_are_had(qtbot, folder):
    picker = EncoderPicker()
    qtbot.addWidget(picker)
    assert (picker.name, picker.weights, picker.missing) == ("", "", "")
    assert picker.list.itemText(1) == "UNI (ViT-L/16): installed"
    with qtbot.waitSignal(picker.changed):
        picker.list.setCurrentIndex(1)
    assert (picker.name, picker.weights, picker.missing) == ("uni", "installed", "")
    assert "CC-BY-NC-ND-4.0 (as of 2026)" in picker.words.text()
    picker.list.setCurrentIndex(picker.list.findData("virchow2"))
    assert "not here" in picker.missing
    assert "encoders fetch virchow2" in picker.words.text()
    assert picker.list.findData("conch") < 0  # it is not built here
    picker.choose("virchow2", "/data/virchow2.bin")
    assert (picker.weights, picker.missing) == ("/data/virchow2.bin", "")
    assert "virchow2.bin" in picker.words.text()
    picker.list.setCurrentIndex(1)
    assert picker.weights == "installed"  # not the file of the other one


def test_what_was_added_meanwhile_is_listed(qtbot, folder):
    picker = EncoderPicker()
    qtbot.addWidget(picker)
    picker.list.setCurrentIndex(1)
    for path in folder.iterdir():
        path.unlink()
    picker.look_again()
    assert (picker.name, picker.list.itemText(1)) == ("uni", "UNI (ViT-L/16): not here")
    assert picker.missing


def test_the_training_is_asked_for_with_the_encoder_where_its_method_has_one(qtbot, folder, tmp_path):
    table = tmp_path / "cases.csv"
    table.write_text("case_id,he,score\n")
    form = TrainingForm()
    qtbot.addWidget(form)
    form.set_methods(METHODS)
    form.data.edit.setText(str(table))
    form.encoder.choose("uni", "")
    assert form.missing == ""
    assert (form.request.encoder, form.request.weights) == ("uni", "installed")
    command = train_command(form.request)
    assert command[command.index("--encoder") + 1] == "uni"
    form.encoder.choose("gigapath", "")
    assert "Prov-GigaPath" in form.missing
    form.method.setCurrentIndex(1)
    assert not form.encoders.isVisibleTo(form)
    assert (form.request.encoder, form.missing) == ("", "")
    assert "--encoder" not in train_command(form.request)
    form.set_request(RunRequest("tiles", "protocol", str(table), "out", "auto", "uni", "/data/uni.bin"))
    assert (form.request.encoder, form.request.weights) == ("uni", "/data/uni.bin")
