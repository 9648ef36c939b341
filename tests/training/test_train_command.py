"""What ``napari-her2 train`` says at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.testing import CliRunner

from napari_her2.cli import app
from napari_her2.commands import train as command

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    import pytest

    from napari_her2.steps import Progress

TABLE = """arm,judged on,cases,macro AUC,macro AUC low,macro AUC high,macro F1,macro F1 low,macro F1 high
abmil,test,40,0.9000,0.8000,0.9500,0.7000,,
"""


class Door:
    """In place of the training package."""

    def __init__(self, end: Path | BaseException) -> None:
        self.end = end

    def train_steps(self, *_: object, **__: object) -> Generator[Progress, None, Path]:
        yield from ()
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end


def test_a_table_is_shown_with_its_intervals_and_is_not_called_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(TABLE)
    monkeypatch.setattr(command, "training", lambda *_: Door(table))
    done = CliRunner().invoke(app, ["train", "compare", "--out", str(tmp_path)], env={"COLUMNS": "160"})
    assert done.exit_code == 0
    for words in ("0.9000 (0.8000 to 0.9500)", "0.7000", "abmil", "Research use only"):
        assert words in done.output
    assert "The table was written to" in done.output
    assert "model was written" not in done.output


def test_who_cancels_is_told_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "training", lambda *_: Door(KeyboardInterrupt()))
    done = CliRunner().invoke(app, ["train", "compare", "--out", str(tmp_path)])
    assert done.exit_code == 130
    assert "Cancelled. Go on with --resume." in done.output
