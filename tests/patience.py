"""How long tests wait for windows and jobs."""

from __future__ import annotations

from typing import Any

from pytestqt.qtbot import QtBot

WAIT_MS = 300_000
"""How long tests wait for a window or a job: it costs nothing where it comes, and a busy machine is slow."""


class PatientBot(QtBot):
    """Waits longer than the five seconds of pytest-qt, unless a test says how long."""

    def waitSignal(self, signal: Any, *, timeout: int = WAIT_MS, **options: Any) -> Any:
        return super().waitSignal(signal, timeout=timeout, **options)

    def waitSignals(self, signals: Any, *, timeout: int = WAIT_MS, **options: Any) -> Any:
        return super().waitSignals(signals, timeout=timeout, **options)

    def waitUntil(self, callback: Any, *, timeout: int = WAIT_MS) -> None:
        super().waitUntil(callback, timeout=timeout)

    def waitCallback(self, *, timeout: int = WAIT_MS, **options: Any) -> Any:
        return super().waitCallback(timeout=timeout, **options)

    def waitExposed(self, widget: Any, *, timeout: int = WAIT_MS) -> Any:
        return super().waitExposed(widget, timeout=timeout)
