"""The pictures of a report: curves, calibration, what answers cost when the unsure ones are withheld."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from napari_her2_training.measures.calibration import Reliability, RiskCoverage
    from napari_her2_training.measures.predictions import Predictions
    from napari_her2_training.reporting.sets import SetRow

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#000000")
"""Of Okabe and Ito: told apart by people who do not see all colours."""
_SIZE = (4.4, 3.6)
_LEAST_DRAWN = -6
"""Power of ten of the least familiarity that is told from lesser ones."""


def new_axes(width: float = _SIZE[0], height: float = _SIZE[1]) -> tuple[Figure, Axes]:
    """Make a figure that no window knows of."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def draw_figure(path: Path, size: tuple[float, float], draw: Callable[[Axes], None]) -> Path:
    """Draw a figure of one pair of axes into a PNG file, whole or not at all.

    Parameters
    ----------
    path : Path
    size : tuple of float
        Width and height, inches.
    draw : callable
        Draws on the axes that it is given.
    """
    figure, axes = new_axes(*size)
    draw(axes)
    with whole_file(path) as file:
        figure.savefig(file, format="png")
    return path


def as_image(figure: Figure, *, dpi: int = 110) -> str:
    """Return a figure as the address of a picture that is part of a page."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def draw_roc(predictions: Predictions, classes: Sequence[str]) -> str:
    """Draw the ROC curve of each class against the others."""
    figure, axes = new_axes()
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linestyle="--", linewidth=1)
    for number, name in _present(predictions, classes):
        false, true, _ = roc_curve(predictions.labels == number, predictions.calibrated[:, number])
        axes.step(false, true, where="post", color=_colour(number), label=name)
    axes.set(
        xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01)
    )
    return _legend(figure, axes)


def draw_precision_recall(predictions: Predictions, classes: Sequence[str]) -> str:
    """Draw the precision-recall curve of each class against the others."""
    figure, axes = new_axes()
    for number, name in _present(predictions, classes):
        precision, recall, _ = precision_recall_curve(
            predictions.labels == number, predictions.calibrated[:, number]
        )
        axes.step(recall, precision, where="post", color=_colour(number), label=name)
    axes.set(xlabel="recall", ylabel="precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    return _legend(figure, axes)


def draw_confusion(table: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Draw true against predicted classes: counts, on the share of each true class."""
    side = 0.8 * len(classes) + 1.5
    figure, axes = new_axes(side, side)
    confusion_axes(axes, table, classes)
    return as_image(figure)


def save_confusion(path: Path, table: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Path:
    """Draw the same into a PNG file."""

    def draw(axes: Axes) -> None:
        confusion_axes(axes, table, classes)
        axes.set_title(title, fontsize="medium")

    side = 0.9 * len(classes) + 1.6
    return draw_figure(path, (side, side), draw)


def confusion_axes(axes: Axes, table: Sequence[Sequence[int]], classes: Sequence[str]) -> None:
    """Draw a confusion matrix, (C, C) counts by true (rows) and predicted class (columns), on axes."""
    counts = np.array(table)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        dark = shares[row, column] > 0.5
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            color="white" if dark else "black",
        )
    broken = [name.replace(" (", "\n(") for name in classes]
    axes.set_xticks(range(len(classes)), broken)
    axes.set_yticks(range(len(classes)), broken)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def draw_reliability(before: Reliability, after: Reliability) -> str:
    """Draw how often answers of a probability are right, before and after calibration."""
    figure, axes = new_axes()
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linestyle="--", linewidth=1)
    for found, colour, name in ((before, COLOURS[1], "as trained"), (after, COLOURS[0], "calibrated")):
        there = found.slides > 0
        sizes = 12 + 60 * found.slides[there] / found.slides.sum()
        label = f"{name} (ECE {found.error:.3f})"
        axes.plot(found.probability[there], found.right[there], color=colour, linewidth=1, label=label)
        axes.scatter(found.probability[there], found.right[there], s=sizes, color=colour)
    axes.set(
        xlabel="probability of the answer", ylabel="share that is right", xlim=(0, 1.02), ylim=(-0.02, 1.02)
    )
    return _legend(figure, axes, "lower right")


def draw_risk(risk: RiskCoverage, threshold: float | None) -> str:
    """Draw the share of wrong answers against the share of slides that are answered."""
    figure, axes = new_axes()
    axes.step(risk.coverage, risk.risk, where="post", color=COLOURS[0])
    if threshold is not None and (risk.threshold >= threshold).any():
        place = int(np.flatnonzero(risk.threshold >= threshold)[-1])
        axes.plot(risk.coverage[place], risk.risk[place], "o", color=COLOURS[5])
        axes.annotate(
            f"from {threshold:.0%} on", (risk.coverage[place], risk.risk[place]),
            textcoords="offset points", xytext=(-4, 8), ha="right",
        )  # fmt: skip
    axes.set(xlabel="share of slides answered", ylabel="share of wrong answers", xlim=(0, 1.02))
    axes.set_ylim(bottom=-0.01)
    return as_image(figure)


def draw_promises(rows: Mapping[str, Sequence[SetRow]]) -> str:
    """Draw how often sets hold the truth against how often they were to, with intervals.

    Returns
    -------
    str
        Empty where there are none.
    """
    if not rows:
        return ""
    figure, axes = new_axes()
    axes.plot([0.7, 1], [0.7, 1], color="#bbbbbb", linestyle="--", linewidth=1)
    for number, (name, points) in enumerate(rows.items()):
        beside = 0.004 * (number - (len(rows) - 1) / 2)  # so that intervals do not hide each other
        held = np.array([point.measured.coverage for point in points])
        ends = np.array([[point.measured.low, point.measured.high] for point in points]).T
        at = [point.promise + beside for point in points]
        colour = "#000000" if number == 0 else _colour(number - 1)
        axes.errorbar(
            at, held, abs(ends - held), fmt="o", markersize=4, color=colour, label=name, linewidth=1
        )
    axes.set(xlabel="promised", ylabel="holds the truth", xlim=(0.77, 0.98), ylim=(None, 1.02))
    return _legend(figure, axes, "lower right")


def draw_familiarity(judged: NDArray[np.floating], strange: NDArray[np.floating], limit: float) -> str:
    """Draw how familiar judged and strange slides are, and below what answers are withheld."""
    figure, axes = new_axes(6.4, 3.2)
    bins = np.linspace(_LEAST_DRAWN, 0, 25).tolist()
    for values, colour, name in ((judged, COLOURS[0], "judged"), (strange, COLOURS[5], "strange")):
        logs = np.log10(np.maximum(values, 10.0**_LEAST_DRAWN))
        axes.hist(logs, bins=bins, color=colour, alpha=0.6, label=f"{name} ({len(values)})")
    axes.axvline(
        np.log10(limit), color="#555555", linestyle="--", linewidth=1, label=f"withheld below {limit:g}"
    )
    ticks = range(_LEAST_DRAWN, 1)
    words = [f"{10.0**tick:g}" for tick in ticks]
    axes.set_xticks(list(ticks), [f"≤ {words[0]}", *words[1:]])
    axes.set(xlabel="familiarity", ylabel="slides")
    return _legend(figure, axes)


def draw_curves(curves: Mapping[str, NDArray[np.float64]], ylabel: str) -> str:
    """Draw measures over the epochs.

    Parameters
    ----------
    curves : mapping of str to (epochs, 2) float64
        (epoch, value), by what is measured.
    ylabel : str
    """
    figure, axes = new_axes(6.4, 3.2)
    for number, (name, points) in enumerate(curves.items()):
        axes.plot(points[:, 0], points[:, 1], color=_colour(number), label=name)
    axes.set(xlabel="epoch", ylabel=ylabel)
    return _legend(figure, axes)


def _present(predictions: Predictions, classes: Sequence[str]) -> list[tuple[int, str]]:
    """Classes that some of the slides are of, and some are not."""
    return [
        (number, name)
        for number, name in enumerate(classes)
        if 0 < int((predictions.labels == number).sum()) < len(predictions.labels)
    ]


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _legend(figure: Figure, axes: Axes, place: str = "best") -> str:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", frameon=False, loc=place)
    return as_image(figure)
