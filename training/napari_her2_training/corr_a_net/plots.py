"""The figures of the table as pictures: balanced accuracy, confidence, correlation, drop in accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2_training.reporting.plots import draw_figure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

Row = tuple[str, str, "Mapping[str, Any]"]
_STRATA = ("high", "medium", "low")
_COLOURS = ("#0072b2", "#e69f00", "#999999", "#cc79a7")
"""Of Okabe and Ito: told apart by people who do not see all colours."""


def draw_plots(
    folder: Path, rows: Sequence[Row], correlations: Mapping[str, Mapping[str, NDArray[np.float64]]]
) -> tuple[Path, ...]:
    """Draw all figures that there are numbers for.

    Parameters
    ----------
    folder : Path
    rows : sequence of (input, architecture, measures)
        An arm each.
    correlations : mapping of str to mapping of str to (N,) float64
        Of each network, by what was compared.

    Returns
    -------
    tuple of Path
        PNG files.
    """
    several = len({architecture for _, architecture, _ in rows}) > 1
    names = [f"{name}\n{architecture}" if several else name for name, architecture, _ in rows]
    measured = [measures for _, _, measures in rows]
    made = [
        _draw(folder / "balanced_accuracy.png", len(rows), lambda axes: _accuracy(axes, names, measured)),
        _draw(folder / "strata.png", len(rows), lambda axes: _strata(axes, names, measured)),
        _draw(folder / "drop_in_accuracy.png", len(rows), lambda axes: _drops(axes, names, measured)),
    ]
    if correlations:
        made.append(
            _draw(
                folder / "correlations.png", len(correlations), lambda axes: _correlations(axes, correlations)
            )
        )
    return tuple(made)


def _draw(path: Path, groups: int, draw: Callable[[Axes], None]) -> Path:
    return draw_figure(path, (7, max(2.4, 0.55 * groups + 1.4)), draw)


def _bars(axes: Axes, names: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> None:
    height = 0.8 / len(series)
    places = np.arange(len(names))
    for number, (label, values) in enumerate(series.items()):
        lengths = [np.nan if value is None else value for value in values]
        axes.barh(places + (number - (len(series) - 1) / 2) * height, lengths, height, label=label,
                  color=_COLOURS[number % len(_COLOURS)])  # fmt: skip
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def _accuracy(axes: Axes, names: Sequence[str], measured: Sequence[Mapping[str, Any]]) -> None:
    _bars(axes, names, {
        "balanced accuracy": [row["balanced_accuracy"] for row in measured],
        "MEC": [row["mec"]["signed"] for row in measured],
    })  # fmt: skip
    axes.axvline(0.25, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel("balanced accuracy (dotted: chance), mean effective confidence")


def _strata(axes: Axes, names: Sequence[str], measured: Sequence[Mapping[str, Any]]) -> None:
    by_name = [{stratum["name"]: stratum for stratum in row["strata"]} for row in measured]
    _bars(axes, names, {name: [strata[name]["accuracy"] for strata in by_name] for name in _STRATA})
    axes.set_xlim(0, 1)
    axes.set_xlabel("accuracy by learnt confidence (high: from 0.9, medium: from 0.75)")


def _drops(axes: Axes, names: Sequence[str], measured: Sequence[Mapping[str, Any]]) -> None:
    _bars(axes, names, {
        "Grad-CAM": [row["drop"]["soft_percent"] for row in measured],
        "moved elsewhere": [row["drop"]["soft_control_percent"] for row in measured],
    })  # fmt: skip
    axes.set_xlabel("drop in accuracy where fields are multiplied by the map (%)")


def _correlations(axes: Axes, found: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> None:
    places = np.arange(len(found))
    for offset, name, colour in ((-0.18, "luminance", _COLOURS[0]), (0.18, "control", _COLOURS[2])):
        axes.boxplot([values[name] for values in found.values()], positions=places + offset, widths=0.3,
                     orientation="horizontal", manage_ticks=False, patch_artist=True, showfliers=False,
                     boxprops={"facecolor": colour}, medianprops={"color": "black"})  # fmt: skip
    axes.set_yticks(places, list(found))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("mean |r| with the brightness of IHC, a value a field (grey: IHC of another field)")
