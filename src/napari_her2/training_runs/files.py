"""Names of the files in the folder of a training: written by the training package, read from outside."""

from __future__ import annotations

RUN_FILE, PREDICTIONS_FILE, REPORT_FILE = "run.json", "predictions.csv", "report.html"
PROGRESS_FILE, PROCESS_FILE, LOCK_FILE, STOP_FILE = "progress.jsonl", "process.json", "run.lock", "stop"
