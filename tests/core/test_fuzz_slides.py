"""A sample of damaged TIFF headers: each opens, or is refused in words, within time and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz.py"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_three_hundred_damaged_slides_open_or_are_refused_in_words():
    command = [sys.executable, str(FUZZ), "tiff", "--count", "300", "--seed", "7", "--seconds", "120"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
