"""What the user set in napari's Preferences, as one typed value."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from napari_her2.slide.quality_limits import QUALITY_LIMITS, QualityLimits

PLUGIN = "napari-her2"
AS_LEARNT, ALWAYS, NEVER = "as the model learnt", "always", "never"
_QUALITY = (
    "most_blur_um",
    "most_pen_percent",
    "most_fold_percent",
    "most_bubble_percent",
    "least_stained_percent",
    "fold_times",
)
_VARIABLES = {
    "model_folder": "NAPARI_HER2_MODELS",
    "cache_folder": "NAPARI_HER2_CACHE",
    "precision": "NAPARI_HER2_PRECISION",
}
# napari builds the settings of all plugins at the first call; two threads would get two different ones.
_reading = threading.Lock()
# What the environment holds from here: Preferences may change it again.
_set_here: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the plugin, as the manifest declares them.

    Parameters
    ----------
    device : str
        "auto", "cuda", "mps" or "cpu".
    precision : str
        Of features: "auto", "float32" or "bfloat16"; see `napari_her2.inference.precision`.
    batch_size : int
        Tiles an encoder takes at once; 0 takes what suits the device.
    model_folder, cache_folder : str
        Empty for the usual folder.
    default_opacity : float
        Of new overlays, in [0, 1].
    coverage_percent : int
        How often a set of scores is to hold the truth, 80 to 99 %; `coverage` has it as a share.
    min_familiarity : float
        Below it an answer is withheld, see `napari_her2.inference.options.ScoringOptions`; 0 withholds none.
    leave_out_poor : str
        "as the model learnt", "always" or "never": how the tick in the dock begins.
    most_blur_um, most_pen_percent, most_fold_percent, most_bubble_percent, least_stained_percent, fold_times
        Limits of quality, see `quality_limits`.
    offer_reader : bool
        Whether to offer that napari always opens slides with this plugin.
    keep_work : bool
        Whether the work on slides is kept, and brought back when they are opened again.
    """

    device: str = "auto"
    precision: str = "auto"
    batch_size: int = 0
    model_folder: str = ""
    cache_folder: str = ""
    default_opacity: float = 0.6
    coverage_percent: int = 90
    min_familiarity: float = 0.01
    leave_out_poor: str = AS_LEARNT
    most_blur_um: float = QUALITY_LIMITS.most_blur_um
    most_pen_percent: float = 100 * QUALITY_LIMITS.most_pen
    most_fold_percent: float = 100 * QUALITY_LIMITS.most_fold
    most_bubble_percent: float = 100 * QUALITY_LIMITS.most_bubble
    least_stained_percent: float = 100 * QUALITY_LIMITS.least_stained
    fold_times: float = QUALITY_LIMITS.fold_times
    offer_reader: bool = True
    keep_work: bool = True

    @property
    def quality_limits(self) -> QualityLimits:
        """From where on tissue is poor."""
        return QualityLimits(
            self.most_blur_um,
            self.most_pen_percent / 100,
            self.most_fold_percent / 100,
            self.most_bubble_percent / 100,
            self.least_stained_percent / 100,
            self.fold_times,
        )

    @property
    def coverage(self) -> float:
        """How often a set of scores is to hold the truth, 0.8 to 0.99."""
        return self.coverage_percent / 100


def read_settings() -> Settings:
    """Read the settings from napari; defaults where napari does not know the plugin."""
    from napari.settings import get_plugin_settings

    try:
        with _reading:
            scoring: Any = get_plugin_settings(PLUGIN).scoring
    except (KeyError, AttributeError):  # run from a source tree that was never installed
        return Settings()
    return Settings(
        device=str(scoring.device),
        precision=str(scoring.precision),
        batch_size=int(scoring.batch_size),
        model_folder=str(scoring.model_folder).strip(),
        cache_folder=str(scoring.cache_folder).strip(),
        default_opacity=float(scoring.default_opacity),
        coverage_percent=int(scoring.coverage_percent),
        min_familiarity=float(scoring.min_familiarity),
        leave_out_poor=str(scoring.leave_out_poor),
        **{name: float(getattr(scoring, name)) for name in _QUALITY},
        offer_reader=bool(scoring.offer_reader),
        keep_work=bool(scoring.keep_work),
    )


def stop_offering_reader() -> None:
    """Remember that the user was asked, in napari's Preferences."""
    from napari.settings import get_plugin_settings

    with suppress(KeyError, AttributeError):  # run from a source tree that was never installed
        get_plugin_settings(PLUGIN).scoring.offer_reader = False


def apply_settings(settings: Settings) -> None:
    """Hand the folders of models and caches, and the precision, to those who read them.

    They read the environment, so that the command line and napari agree; what it said before napari is
    stronger than Preferences.
    """
    for name, variable in _VARIABLES.items():
        value = getattr(settings, name)
        found = os.environ.get(variable)
        if found is not None and found != _set_here.get(variable):
            continue  # somebody else's
        if value in ("", "auto"):
            os.environ.pop(variable, None)
            _set_here.pop(variable, None)
        else:
            os.environ[variable] = _set_here[variable] = value
