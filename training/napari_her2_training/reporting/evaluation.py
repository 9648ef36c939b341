"""What a finished run says of its models: read from its folder, measured fold by fold and pooled.

Nothing is computed from slides here: ``predictions.csv`` holds what was said of each, ``metrics.json`` how
the run went.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed
from napari_her2.models.case_slides import EACH
from napari_her2.outside import expanded, is_regular
from napari_her2.training_runs.files import PREDICTIONS_FILE
from napari_her2_training.config_sections import MeasureConfig
from napari_her2_training.files import OWN_FILES
from napari_her2_training.measures.arms import METRICS_FILE, Measured, measure
from napari_her2_training.measures.calibration import reliability, risk_coverage
from napari_her2_training.measures.predictions import pooled, read_predictions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_her2_training.measures.calibration import Reliability, RiskCoverage
    from napari_her2_training.measures.predictions import Predictions, PredictionsByPart


@dataclass(frozen=True, slots=True, eq=False)
class FinishedRun:
    """A run that is finished.

    Parameters
    ----------
    folder : Path
    record : mapping
        ``metrics.json``.
    predictions : dict of Part to Predictions
    classes : tuple of str
    """

    folder: Path
    record: Mapping[str, Any]
    predictions: PredictionsByPart
    classes: tuple[str, ...]

    @property
    def reading(self) -> str:
        """How the bundle reads a slide."""
        return str(self.record.get("reading", ""))

    @property
    def case_slides(self) -> str:
        """What several slides of a case were: one of `napari_her2.models.case_slides.WAYS`."""
        return str(self.record.get("config", {}).get("cases", {}).get("slides", EACH))

    @property
    def named(self) -> dict[str, str]:
        """Each class with what it is called for a person."""
        return {name: name for name in self.classes} | dict(self.record.get("named", {}))

    @property
    def judged(self) -> str:
        """The part that the model is judged on: "test", or "validation" without one."""
        return str(self.record["judged"])

    @property
    def readings(self) -> tuple[str, ...]:
        """All readings, that of the bundle first."""
        every = dict.fromkeys(part.reading for part in self.predictions)
        return tuple(sorted(every, key=lambda reading: reading != self.reading))

    @property
    def folds(self) -> tuple[int, ...]:
        """Numbers of the folds."""
        return tuple(sorted({part.fold for part in self.predictions}))

    def of(self, part: str, reading: str | None = None) -> dict[int, Predictions]:
        """Return what each fold said of a part."""
        wanted = self.reading if reading is None else reading
        return {
            key.fold: given
            for key, given in sorted(self.predictions.items(), key=lambda item: item[0].fold)
            if (key.part, key.reading) == (part, wanted)
        }

    def settings(self) -> MeasureConfig:
        """How intervals are made: as the run did."""
        return MeasureConfig(**self.record.get("config", {}).get("measure", {}))


def read_run(folder: Path) -> FinishedRun:
    """Read a finished run.

    Raises
    ------
    JobFailed
        If there is none, or it is not finished.
    """
    folder = expanded(folder)
    try:
        record = OWN_FILES.json_object(folder / METRICS_FILE)
    except JobFailed as error:
        if is_regular(folder / METRICS_FILE):
            raise
        inside = sorted(str(file.parent) for file in folder.glob(f"*/*/{METRICS_FILE}"))
        if inside:
            raise JobFailed(f"{folder} holds several models: choose one of {', '.join(inside)}.") from error
        raise JobFailed(
            f"{folder} holds no finished training: choose the folder of one, or resume the one in it."
        ) from error
    if not (folder / PREDICTIONS_FILE).exists():
        raise JobFailed(
            f"The training in {folder} judged no slides by itself, so there is nothing to report: choose "
            f"the folder of a model, or of an arm."
        )
    predictions, classes = read_predictions(folder / PREDICTIONS_FILE)
    return FinishedRun(folder, record, predictions, classes)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All that is measured of one reading on the judged part.

    Parameters
    ----------
    reading : str
    folds : mapping of int to Measured
        Each fold by itself, without intervals.
    mean : Measured
        Over the folds, with intervals.
    pooled : Measured
        Of all judged slides together, with intervals.
    together : Predictions
        What was said of them, calibrated.
    before, after : Reliability
        Of all of them together, as the networks say it and calibrated.
    risk : RiskCoverage
        Calibrated.
    temperatures : mapping of int to float
        Of each fold.
    """

    reading: str
    folds: Mapping[int, Measured]
    mean: Measured
    pooled: Measured
    together: Predictions
    before: Reliability
    after: Reliability
    risk: RiskCoverage
    temperatures: Mapping[int, float]


def evaluate(run: FinishedRun, reading: str, part: str | None = None) -> Evaluation:
    """Measure one reading.

    Parameters
    ----------
    run : FinishedRun
    reading : str
    part : str, optional
        By default the judged one.
    """
    given = run.of(part or run.judged, reading)
    settings = run.settings()
    plain = replace(settings, resamples=0)
    together = pooled(list(given.values()))
    raw = pooled([replace(own, temperature=1.0) for own in given.values()])
    return Evaluation(
        reading=reading,
        folds={fold: measure([own], run.classes, plain) for fold, own in given.items()},
        mean=measure(list(given.values()), run.classes, settings),
        pooled=measure([together], run.classes, settings),
        together=together,
        before=reliability(raw.labels, raw.probabilities),
        after=reliability(together.labels, together.probabilities),
        risk=risk_coverage(together.labels, together.probabilities),
        temperatures={fold: own.temperature for fold, own in given.items()},
    )


def in_words(reading: str, record: Mapping[str, Any]) -> str:
    """Say what a reading is: a head, a way to join tiles, or the model."""
    heads: Mapping[str, str] = record.get("heads", {})
    return heads.get(reading, reading) or "the model"


def rows_of(evaluations: Sequence[Evaluation], record: Mapping[str, Any]) -> list[dict[str, object]]:
    """Return all measures as rows of a table: each fold, the mean over them, and pooled."""
    rows: list[dict[str, object]] = []
    for found in evaluations:
        named: dict[str, Measured] = {f"fold {fold + 1}": own for fold, own in found.folds.items()}
        if len(named) > 1:
            named["mean over the folds"] = found.mean
        named = {**named, "pooled": found.pooled} if len(found.folds) > 1 else {"all": found.pooled}
        for what, measured in named.items():
            for name, value in measured.measures.items():
                rows.append(
                    {
                        "what": in_words(found.reading, record),
                        "over": what,
                        "measure": name,
                        "value": value.value,
                        "sd": value.sd,
                        "low": value.low,
                        "high": value.high,
                        "slides": measured.slides,
                        "cases": measured.cases,
                    }
                )
    return rows
