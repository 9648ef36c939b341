"""The measures of an arm: over folds, with intervals from resampled cases, and as tables.

Of one fold the measure is that of its slides; of several, the mean over the folds, with their standard
deviation. The interval is the percentile bootstrap over cases of that very number.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2_training.files import OWN_FILES
from napari_her2_training.measures.bootstrap import resample_cases, resampled_measures
from napari_her2_training.measures.metrics import class_recalls, confusion, slide_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2_training.config_sections import MeasureConfig
    from napari_her2_training.measures.predictions import Predictions, PredictionsByPart

METRICS_FILE = "metrics.json"
DDOF = 1
"""Standard deviations are those of a sample: folds are few. With one fold there is none."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number with what is known of its spread.

    Parameters
    ----------
    value : float
        Of the fold, or the mean over the folds that tell it.
    sd : float or None
        Over the folds; None with one.
    low, high : float or None
        Interval from resampled cases; None where none was asked for, or too few resamples tell the measure.
    """

    value: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one reading of an arm on one part of the cases.

    Parameters
    ----------
    slides, cases : int
        Different ones, over all folds.
    folds : int
    measures : mapping of str to Measure
    confusion : list of list of int
        Slides by true class (rows) and predicted class (columns), summed over the folds.
    """

    slides: int
    cases: int
    folds: int
    measures: Mapping[str, Measure] = field(default_factory=dict)
    confusion: Sequence[Sequence[int]] = ()

    def to_json(self) -> dict[str, object]:
        """Nested mappings, for JSON."""
        return asdict(self)

    @classmethod
    def of_json(cls, content: Mapping[str, object]) -> Measured:
        """Read what `to_json` gave."""
        measures = {name: Measure(**values) for name, values in content["measures"].items()}  # type: ignore[attr-defined]
        return cls(**{**content, "measures": measures})  # type: ignore[arg-type]


def all_measures(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], classes: Sequence[str]
) -> dict[str, float]:
    """Return `slide_metrics` and the recall of each class."""
    return slide_metrics(labels, probabilities, classes) | class_recalls(labels, probabilities, classes)


def measure(folds: Sequence[Predictions], classes: Sequence[str], config: MeasureConfig) -> Measured:
    """Measure predictions of one or several folds.

    Parameters
    ----------
    folds : sequence of Predictions
        Of one part of the cases and one reading; a slide may be in several, as test slides are.
    classes : sequence of str
    config : MeasureConfig
    """
    values = _by_name([all_measures(fold.labels, fold.calibrated, classes) for fold in folds])
    intervals = _intervals(folds, classes, config)
    measures = {
        name: Measure(
            float(np.mean(of_folds)),
            float(np.std(of_folds, ddof=DDOF)) if len(of_folds) > DDOF else None,
            *intervals.get(name, (None, None)),
        )
        for name, of_folds in values.items()
    }
    tables = [np.array(confusion(fold.labels, fold.calibrated)) for fold in folds]
    names = [fold.cases for fold in folds]
    alike = all(cases == names[0] for cases in names)  # the test part, which every fold judges
    return Measured(
        slides=len(names[0]) if alike else sum(map(len, names)),
        cases=len({case for cases in names for case in cases}),
        folds=len(folds),
        measures=measures,
        confusion=np.sum(tables, axis=0).tolist(),
    )


def measure_predictions(
    predictions: PredictionsByPart, classes: Sequence[str], config: MeasureConfig
) -> dict[str, dict[str, Measured]]:
    """Measure all predictions of an arm: reading, part, what was measured.

    Intervals are computed of the judged part alone; see `judged_part`.
    """
    judged = judged_part(predictions)
    without = replace(config, resamples=0)
    found: dict[str, dict[str, Measured]] = {}
    for reading, part in dict.fromkeys((key.reading, key.part) for key in predictions):
        folds = [given for key, given in predictions.items() if (key.reading, key.part) == (reading, part)]
        wanted = config if part == judged else without
        found.setdefault(reading, {})[part] = measure(folds, classes, wanted)
    return found


def judged_part(predictions: PredictionsByPart) -> str:
    """Return the part that arms are judged on: "test" where there is one."""
    return "test" if any(key.part == "test" for key in predictions) else "validation"


def _by_name(folds: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    names = dict.fromkeys(name for fold in folds for name in fold)
    return {name: [fold[name] for fold in folds if name in fold] for name in names}


def _intervals(
    folds: Sequence[Predictions], classes: Sequence[str], config: MeasureConfig
) -> dict[str, tuple[float, float]]:
    if not config.resamples:
        return {}
    counts = resample_cases([fold.cases for fold in folds], resamples=config.resamples, seed=config.seed)
    drawn = [
        resampled_measures(fold.labels, fold.calibrated, classes, own)
        for fold, own in zip(folds, counts, strict=True)
    ]
    found = {}
    tail = (1 - config.confidence) / 2
    for name in drawn[0]:
        values = np.stack([of_fold[name] for of_fold in drawn])
        known = np.isfinite(values)
        # The mean over the folds that tell it, as of the measure itself.
        of_resample = np.where(known, values, 0).sum(axis=0)[known.any(axis=0)]
        of_resample = of_resample / known.sum(axis=0)[known.any(axis=0)]
        if len(of_resample) >= config.resamples / 2:
            low, high = np.quantile(of_resample, [tail, 1 - tail]).tolist()
            found[name] = (low, high)
    return found


def read_measured(folder: Path) -> dict[str, dict[str, Measured]]:
    """Read what was measured of a finished run: reading, part."""
    readings = OWN_FILES.json_object(folder / METRICS_FILE, "measured")["measured"]
    return {
        reading: {part: Measured.of_json(values) for part, values in parts.items()}
        for reading, parts in readings.items()
    }
