"""Cohorts: slides from their paths to the files of their results, here or on a dask cluster."""

from __future__ import annotations

from napari_her2.cohort.outcome import CohortProgress, CohortReport, SlideOutcome
from napari_her2.cohort.run import embed_cohort_steps, score_cohort_steps
from napari_her2.cohort.score_job import Case
from napari_her2.cohort.sources import EncoderSource
from napari_her2.cohort.tls import TlsFiles

__all__ = [
    "Case",
    "CohortProgress",
    "CohortReport",
    "EncoderSource",
    "SlideOutcome",
    "TlsFiles",
    "embed_cohort_steps",
    "score_cohort_steps",
]
