"""Dry runs: what a training would find and take, without beginning it."""

from napari_her2_training.dry_run.check import check_steps
from napari_her2_training.dry_run.findings import TrainingCheck

__all__ = ["TrainingCheck", "check_steps"]
