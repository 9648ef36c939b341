"""The dialog that imports a checkpoint: what was read is shown, the rest is asked, bad input told."""

from __future__ import annotations

import pytest
import torch
from qtpy.QtCore import Qt

import published_heads as published
from napari_her2._qt.scoring.import_dialog import ImportDialog
from napari_her2.models.registry import list_models, load_model

WAIT_MS = 60_000


@pytest.fixture
def dialog(qtbot, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_HER2_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("NAPARI_HER2_ENCODERS", str(tmp_path / "encoders"))
    found = ImportDialog()
    qtbot.addWidget(found)
    found.ask(tuple(list_models()))
    return found


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "Our Best.pt"
    torch.save(published.PlainAttentionMIL().state_dict(), path)
    return path


def choose(dialog, qtbot, path, kind: str) -> None:
    dialog.kind.setCurrentIndex(dialog.kind.findData(kind))
    dialog.file.edit.setText(str(path))
    with qtbot.waitSignal(
        dialog.inspect_job.running_changed, timeout=WAIT_MS, check_params_cb=lambda on: not on
    ):
        dialog.file.edit.editingFinished.emit()


def test_a_checkpoint_becomes_a_model_by_keyboard(dialog, qtbot, checkpoint):
    choose(dialog, qtbot, checkpoint, "attention-mil")
    assert "features of a tile: 1,024 numbers" in dialog.facts.text()
    assert "SHA-256" in dialog.facts.text()
    listed = {
        dialog.encoder.itemText(at): dialog.encoder.itemData(at) for at in range(dialog.encoder.count())
    }
    assert listed["uni"] == 224  # gives 1024 features, as the file wants
    assert listed["model:demo-attention-mil"] == 96
    assert "virchow2" not in listed
    assert dialog.name.text() == "our-best"
    assert dialog.classes.text() == "0, 1+, 2+, 3+"
    dialog.encoder.setCurrentText("model:demo-attention-mil")
    with qtbot.waitSignal(dialog.imported, timeout=WAIT_MS) as made:
        qtbot.keyClick(dialog.make, Qt.Key.Key_Space)
    entry, remark = made.args
    assert (entry.name, remark) == ("our-best", "")
    assert not dialog.isVisible()
    card = load_model("our-best").card
    assert card.training_data.startswith("unknown: imported from Our Best.pt (Attention MIL")
    assert (card.stain, card.tile_px, card.mpp) == ("H&E", 96, 0.5)


def test_an_encoder_that_is_not_installed_is_named_and_the_user_hears_how_to_get_it(
    dialog, qtbot, checkpoint
):
    choose(dialog, qtbot, checkpoint, "attention-mil")
    dialog.encoder.setCurrentText("uni")
    dialog.tile_px.setValue(224)
    with qtbot.waitSignal(dialog.imported, timeout=WAIT_MS) as made:
        dialog.make.click()
    assert "napari-her2 encoders fetch uni" in made.args[1]
    assert made.args[0].card.encoder.weights == "named"


def test_another_kind_is_named_below_the_file(dialog, qtbot, checkpoint):
    asked = (dialog.encoder, dialog.tile_px, dialog.mpp, dialog.classes, dialog.name)
    assert not any(widget.isVisible() for widget in asked)  # nothing is asked before something is read
    choose(dialog, qtbot, checkpoint, "clam")
    assert "choose the kind attention-mil" in dialog.file.problem
    assert not any(widget.isVisible() for widget in asked)
    assert not dialog.make.isEnabled()
    with qtbot.waitSignal(dialog.inspect_job.returned, timeout=WAIT_MS):
        dialog.kind.setCurrentIndex(dialog.kind.findData("attention-mil"))
        dialog.inspect()
    assert dialog.file.problem == ""
    assert dialog.make.isEnabled()
    assert all(widget.isVisible() for widget in asked)


def test_what_is_missing_is_told_and_a_name_that_is_taken_can_be_replaced(dialog, qtbot, checkpoint):
    choose(dialog, qtbot, checkpoint, "attention-mil")
    with qtbot.waitSignal(dialog.import_job.failed, timeout=WAIT_MS):
        dialog.make.click()
    assert "name the encoder" in dialog.message.text.text()
    dialog.encoder.setCurrentText("model:demo-attention-mil")
    dialog.classes.setText("0, low, mid, high")
    with qtbot.waitSignal(dialog.import_job.failed, timeout=WAIT_MS):
        dialog.make.click()
    assert "'mid'" in dialog.message.text.text()
    dialog.scores.setText("mid=2+, low=1+")
    with qtbot.waitSignal(dialog.imported, timeout=WAIT_MS):
        dialog.make.click()
    assert load_model("our-best").card.class_scores == {"mid": ("2+",), "low": ("1+",)}
    dialog.ask(tuple(list_models()))
    dialog.licence.setText("CC-BY-4.0")
    with qtbot.waitSignal(dialog.import_job.failed, timeout=WAIT_MS):
        dialog.make.click()
    assert dialog.message.action.text() == "Replace it"
    with qtbot.waitSignal(dialog.imported, timeout=WAIT_MS):
        dialog.message.action.click()
    assert load_model("our-best").card.licence == "CC-BY-4.0"


def test_a_model_of_pixels_asks_for_no_encoder(dialog, qtbot, tmp_path):
    import timm

    path = tmp_path / "convnext.pth"
    torch.save(timm.create_model("convnext_atto", pretrained=False, num_classes=4).state_dict(), path)
    choose(dialog, qtbot, path, "low-resolution")
    assert not dialog.encoder.isVisible()
    assert dialog.also.text() == "mode=fit, whiten=false"
    dialog.stain.setCurrentText("IHC")
    with qtbot.waitSignal(dialog.imported, timeout=WAIT_MS):
        dialog.make.click()
    card = load_model("convnext").card
    assert card.arguments["mode"] == "fit"
    assert (card.stain, card.tile_px) == ("IHC", 1024)


def test_every_field_has_a_name_for_those_who_hear_it(dialog):
    for widget in (
        dialog.kind, dialog.encoder, dialog.stain, dialog.tile_px, dialog.mpp, dialog.classes, dialog.scores,
        dialog.also, dialog.name, dialog.licence,
    ):  # fmt: skip
        assert widget.accessibleName()
