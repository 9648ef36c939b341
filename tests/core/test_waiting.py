"""No test waits on a clock of its own that a busy machine could outlast."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from patience import PatientBot

TESTS = Path(__file__).resolve().parents[1]
LEAST_S = 60
IN_MILLISECONDS = {"waitSignal", "waitSignals", "waitUntil", "waitCallback", "waitExposed"}
BY_POSITION = {"wait", "join", "communicate", "acquire"}


def waits(text):
    """Line and seconds of every wait that has an end."""
    tree = ast.parse(text)
    known = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        given = [item.value for item in node.keywords if item.arg == "timeout"]
        # qtbot.wait is a pause: it waits for nothing that could be late.
        if (name in BY_POSITION and owner != "qtbot") or (owner.endswith("mark") and name == "timeout"):
            given += node.args[:1]
        for value in given:
            seconds = getattr(value, "value", known.get(getattr(value, "id", "")))
            if isinstance(seconds, int | float) and not isinstance(seconds, bool):
                yield node.lineno, seconds / 1000 if name in IN_MILLISECONDS else seconds


def test_the_search_finds_what_it_should():
    text = "SLOW_MS = 5_000\nqtbot.waitUntil(f, timeout=SLOW_MS)\nevent.wait(10)\nqtbot.wait(20)\nt.join()\n"
    text += "run(a, timeout=3)\n', '.join(b)\n@pytest.mark.timeout(9)\ndef f(): pass\n"
    assert sorted(waits(text)) == [(2, 5.0), (3, 10), (6, 3), (8, 9)]


def test_every_wait_is_a_minute_at_least():
    files = [path for path in TESTS.rglob("*.py") if path != Path(__file__)]
    assert len(files) > 100
    short = [
        f"{path.relative_to(TESTS)}:{line} waits {seconds:g} s"
        for path in files
        for line, seconds in waits(path.read_text(encoding="utf-8"))
        if seconds < LEAST_S
    ]
    assert short == []


def test_windows_and_jobs_are_waited_for_with_patience():
    assert issubclass(PatientBot, QtBot)
    for name in IN_MILLISECONDS:
        own = getattr(PatientBot, name)
        assert own is not getattr(QtBot, name)
        assert own.__kwdefaults__["timeout"] >= 1000 * LEAST_S


def test_a_test_may_take_longer_than_it_waits(pytestconfig):
    assert float(pytestconfig.getini("timeout")) >= 2 * 600


@pytest.mark.parametrize("value", ["CONNECT_S", "_GATHER_S"])
def test_a_scheduler_on_a_busy_machine_is_waited_for(value):
    from napari_her2.cohort import cluster

    assert getattr(cluster, value) >= LEAST_S
