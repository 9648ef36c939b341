"""What is kept of one slide from one sitting to the next, as one value, and as the text of its file."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from napari_her2.desk.own_score import ISH_RESULTS, SCORES, ManualScore
from napari_her2.errors import JobFailed
from napari_her2.number_words import counted
from napari_her2.outside import MiB, Reading, shown
from napari_her2.slide.facts import plausible_mpp
from napari_her2.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2.desk.kept_shapes import KeptShape

FORMAT = 1
KIND = "napari-her2 slide"
RESULT_FILE = re.compile(r"[0-9a-f]{16}\.her2")
"""Name of a kept result."""
_LONGEST_TEXT, _LONGEST_NOTE, _MOST_RESULTS, _MOST_KINDS = 300, 20_000, 200, 500
_NAME = "What is kept of this slide"
_KEPT = Reading(limit=4 * MiB, advice="it is left as it is, and what you do from now on is kept beside it")


@dataclass(frozen=True, slots=True)
class GivenScale:
    """µm/px that a person gave or measured.

    Parameters
    ----------
    mpp : tuple of float
        (y, x) µm per level-0 pixel.
    source : str
        How it is known: "measured on 3 erythrocytes".
    time : str
        When, ISO 8601 with the offset from UTC.
    """

    mpp: tuple[float, float]
    source: str
    time: str

    @property
    def words(self) -> str:
        """Source and time as every result has them: "measured on 3 erythrocytes, 2026-11-28 19:02"."""
        return f"{self.source}, {self.time[:16].replace('T', ' ')}"


@dataclass(frozen=True, slots=True)
class SlideView:
    """Where a slide was looked at.

    Parameters
    ----------
    centre_px0 : tuple of float
        (y, x) in level-0 pixels: stays right when the µm/px are corrected.
    zoom : float
        Screen pixels per level-0 pixel.
    """

    centre_px0: tuple[float, float]
    zoom: float


@dataclass(frozen=True, slots=True)
class KeptLook:
    """How overlays were shown: the opacity of the maps, in [0, 1], and which kinds were visible."""

    opacity: float
    visible: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeptSlide:
    """What is kept of one slide.

    Parameters
    ----------
    fingerprint : str
        `Slide.fingerprint`: the same content is the same slide, wherever it lies.
    time : str
        When it was kept, ISO 8601.
    scale : GivenScale or None
        µm/px where a person gave them.
    regions : tuple of KeptShape
        Drawn shapes; `KeptShape.region` says which of them are regions.
    results : mapping of str to str
        Name of a model to the name of its kept result; see `Desk.result`.
    scored : mapping of str to str
        Name of a model to when it scored, ISO 8601.
    chosen : str
        Name of the model whose result was shown.
    calibration : str
        Name of the calibration that the cells of the shown result were judged by; empty for none.
    own_score : ManualScore
    view : SlideView or None
    look : KeptLook or None
    problems : tuple of str
        What could not be read, a sentence each; never written.
    """

    fingerprint: str
    time: str = ""
    scale: GivenScale | None = None
    regions: tuple[KeptShape, ...] = ()
    results: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    scored: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    chosen: str = ""
    calibration: str = ""
    own_score: ManualScore = field(default_factory=ManualScore)
    view: SlideView | None = None
    look: KeptLook | None = None
    problems: tuple[str, ...] = ()

    @property
    def holds_work(self) -> bool:
        """Whether anything is kept that a person would miss: more than a view."""
        return bool(self.scale or self.regions or self.results or self.own_score.given)

    def words(self) -> str:
        """Say what is kept: "3 regions, results of 2 models, your own score"; empty where nothing is."""
        parts = []
        if self.regions:
            parts.append(counted(len(self.regions), "region"))
        if self.results:
            of = f"the result of {next(iter(self.results))}" if len(self.results) == 1 else ""
            parts.append(of or f"results of {counted(len(self.results), 'model')}")
        if self.scale is not None:
            parts.append("µm/px")
        if self.own_score.given:
            parts.append("your own score")
        return ", ".join(parts)


def now() -> str:
    """Return the time as it is kept."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def time_in_words(time: str) -> str:
    """Return a kept time for a person, "28 Nov, 14:02"; as it stands where it is no time."""
    try:
        at = datetime.fromisoformat(time).astimezone()
    except ValueError:
        return shown(time)
    year = "" if at.year == datetime.now().astimezone().year else f" {at.year}"
    return f"{at.day} {at:%b}{year}, {at:%H:%M}"


def slide_json(kept: KeptSlide) -> str:
    """Return a kept slide as the text of its file; its regions and results have files of their own."""
    scale, view, look = kept.scale, kept.view, kept.look
    values = {
        "kind": KIND,
        "format": FORMAT,
        "version": __version__,
        "fingerprint": kept.fingerprint,
        "time": kept.time,
        "scale": None if scale is None else asdict(scale),
        "results": dict(kept.results),
        "scored": dict(kept.scored),
        "chosen": kept.chosen,
        "calibration": kept.calibration,
        "own_score": asdict(kept.own_score),
        "view": None if view is None else asdict(view),
        "look": None if look is None else {"opacity": look.opacity, "visible": dict(look.visible)},
    }
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_slide(data: bytes, fingerprint: str) -> KeptSlide:
    """Read what `slide_json` wrote.

    Parameters
    ----------
    data : bytes
    fingerprint : str
        Of the slide that it must be of.

    Raises
    ------
    JobFailed
        If it is of a newer version, damaged, cut off, or of something else.
    """
    values = _KEPT.parsed_json(_KEPT.text_of(data, _NAME), _NAME)
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise _KEPT.refusal(_NAME, "was not written by napari-her2")
    if values.get("format") != FORMAT:
        version = shown(str(values.get("version", "")), 40)
        raise JobFailed(
            f"What is kept of this slide was written by a newer version of napari-her2 ({version}): it is "
            f"left as it is, and what you do from now on is kept beside it; update napari-her2 to bring it "
            f"back."
        )
    try:
        kept = _slide(values)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _KEPT.refusal(_NAME, "is damaged") from error
    if kept.fingerprint != fingerprint:
        raise _KEPT.refusal(_NAME, "is of another slide")
    return kept


def _slide(values: Mapping[str, Any]) -> KeptSlide:
    scale, view, look = values["scale"], values["view"], values["look"]
    results = {_text(model): _text(file) for model, file in values["results"].items()}
    if len(results) > _MOST_RESULTS or not all(RESULT_FILE.fullmatch(file) for file in results.values()):
        raise ValueError("a result that is not kept here")
    return KeptSlide(
        fingerprint=_text(values["fingerprint"]),
        time=_text(values["time"]),
        scale=None if scale is None else _scale(scale),
        results=MappingProxyType(results),
        scored=MappingProxyType(
            {model: _text(values["scored"][model]) for model in results if model in values["scored"]}
        ),
        chosen=_text(values["chosen"]),
        calibration=_text(values["calibration"]),
        own_score=_own_score(values["own_score"]),
        view=None if view is None else SlideView(_pair(view["centre_px0"]), _positive(view["zoom"])),
        look=None if look is None else _look(look),
    )


def _scale(values: Mapping[str, Any]) -> GivenScale:
    mpp = _pair(values["mpp"])
    if not plausible_mpp(mpp):
        raise ValueError("µm/px of no slide")
    return GivenScale(mpp, _text(values["source"]), _text(values["time"]))


def _own_score(values: Mapping[str, Any]) -> ManualScore:
    note = values["note"]
    own = ManualScore(_text(values["score"]), _text(values["ish"]))
    if own.score not in SCORES or own.ish not in ISH_RESULTS or not isinstance(note, str):
        raise ValueError("a score that nobody can give")
    return replace(own, note=note[:_LONGEST_NOTE])


def _look(values: Mapping[str, Any]) -> KeptLook:
    visible = {_text(kind): value is True for kind, value in values["visible"].items()}
    opacity = float(values["opacity"])
    if len(visible) > _MOST_KINDS or not 0 <= opacity <= 1:
        raise ValueError("no look of overlays")
    return KeptLook(opacity, MappingProxyType(visible))


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise TypeError("a text that is none, or too long")
    return value


def _pair(values: Any) -> tuple[float, float]:  # noqa: ANN401 - JSON
    y, x = values
    return float(y), float(x)


def _positive(value: object) -> float:
    if not isinstance(value, int | float) or not value > 0:
        raise ValueError("no positive number")
    return float(value)
