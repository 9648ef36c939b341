"""A scoring done again as it was recorded, and what differs: on the same machine nothing, bit for bit."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.errors import JobFailed
from napari_her2.inference.device import choose_device
from napari_her2.inference.loaded import loaded_bundle
from napari_her2.inference.precision import CHOICES, VARIABLE
from napari_her2.inference.withheld import without_answer
from napari_her2.methods.catalogue import METHODS, model_named
from napari_her2.methods.scoring import score_steps
from napari_her2.reports.at_hand import model_at_hand, result_at, sha256_of, slides_steps
from napari_her2.version import __version__

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from napari_her2.inference.asked import Asked
    from napari_her2.inference.result import SlideResult
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.slide.reader import Slide
    from napari_her2.steps import Progress

_NOT_COMPARED = frozenset(
    {
        *("asked", "seconds", "processor_seconds", "device", "version"),
        *("path", "name", "slide_id", "mpp_source", "regions"),
    }
)
"""Fields that say when and how long, and what things are called; nothing of the answer."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that came out otherwise.

    Parameters
    ----------
    what : str
        "probabilities of 3+", "map attention of case-7".
    before, after : str
        Values, or what is said of them.
    magnitude : float
        The largest difference of two numbers; NaN of what are no numbers.
    """

    what: str
    before: str
    after: str
    magnitude: float = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """What came of a replay.

    Parameters
    ----------
    result : SlideResult
        Of the new scoring, as it may be seen.
    found : tuple of Difference
        Empty where every number and word is the same.
    compared : int
        How many values were compared, those of arrays each.
    notes : tuple of str
        In what the two scorings were not alike: version, device, PyTorch.
    """

    result: SlideResult
    found: tuple[Difference, ...]
    compared: int
    notes: tuple[str, ...]


def replay_steps(
    result: Path, *, slides: Sequence[Path] = (), model: Path | None = None, device: str = "recorded"
) -> Generator[Progress, None, Differences]:
    """Score again what was recorded, and compare.

    Parameters
    ----------
    result : Path
        The folder of a result, or its result.json.
    slides : sequence of Path
        Where the slides lie now, if they were moved; they are known by their content.
    model : Path, optional
        File of the model, where it is not found by itself.
    device : str
        As of `choose_device`; "recorded" takes the one that was used.

    Yields
    ------
    Progress
        Of the scoring. No kept features are used: all are computed again.

    Returns
    -------
    Differences

    Raises
    ------
    SlideError, ModelError, JobFailed
        If it cannot be scored again: a slide or the model is missing, or has changed.
    """
    before = result_at(result)
    asked = before.asked
    if asked is None:
        raise JobFailed(f"{result} does not say what was asked, as older ones do not: score the slide again.")
    wanted = asked.device if device == "recorded" else device
    with ExitStack() as stack:
        opened = yield from slides_steps(before, stack, slides)
        given = [(_opened(each.fingerprint, each.path, opened), each) for each in asked.slides]
        stack.enter_context(_precision(_wished(before, asked, wanted)))
        bundle = _bundle(before, model, wanted)
        after = yield from score_steps(
            given[0][0],
            bundle,
            next((slide for slide, of in given[1:] if not of.further), None),
            further=[
                (slide, of.further, None if of.regions is None else [each.region() for each in of.regions])
                for slide, of in given
                if of.further
            ],
            case=before.case,
            regions=None if asked.regions is None else [region.region() for region in asked.regions],
            device=wanted,
            **_options(asked),
        )
    return compared(before, without_answer(after))


def compared(before: SlideResult, after: SlideResult) -> Differences:
    """Compare two results.

    Parameters
    ----------
    before, after : SlideResult
        Both as they may be seen.

    Returns
    -------
    Differences
    """
    comparison = _Comparison()
    found = tuple(comparison.of(before, after, ()))
    return Differences(after, found, comparison.values, tuple(_notes(before, after)))


def _options(asked: Asked) -> dict[str, Any]:
    options = {field.name: getattr(asked.options, field.name) for field in fields(asked.options)}
    return options | {"cache": False}


def _opened(fingerprint: str, path: Path, opened: dict[str, Slide]) -> Slide:
    if fingerprint in opened:
        return opened[fingerprint]
    if path.exists():
        raise JobFailed(
            f"{path} has another content than the slide that was scored: say with --slide where that lies."
        )
    raise JobFailed(f"{path} is not there any more: say with --slide where the slide lies.")


def _bundle(before: SlideResult, model: Path | None, device: str) -> ModelBundle:
    """Load the very model that scored."""
    runs_on = choose_device(device)
    load = partial(loaded_bundle, device=runs_on)
    if not METHODS[before.method].needs_weights:
        bundle = model_named(before.model, load)
    else:
        path = model_at_hand(before) if model is None else model
        if path is None:
            raise JobFailed(
                f"The model {before.model} (SHA-256 {before.model_sha256[:16]}) is not among the models: "
                "say with --model where its file lies."
            )
        if model is not None and sha256_of(model) != before.model_sha256:
            raise JobFailed(
                f"{model} is not the file that scored, which was {before.model} (SHA-256 "
                f"{before.model_sha256[:16]}): give that one."
            )
        bundle = load(path)
    if bundle.sha256 != before.model_sha256:
        raise JobFailed(
            f"{before.model} of this version is not the one that scored: replay it with napari-her2 "
            f"{before.version}."
        )
    return bundle


def _wished(before: SlideResult, asked: Asked, device: str) -> str:
    """Return the precision to replay in: that of then, whatever the processor of now would take by itself.

    The wish of then counts where that cannot be forced: float16, several precisions, another kind of device.
    """
    return before.precision if before.precision in CHOICES and device == asked.device else asked.precision


@contextmanager
def _precision(wanted: str) -> Iterator[None]:
    """Compute in a precision, whatever is set."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = wanted
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _notes(before: SlideResult, after: SlideResult) -> Iterator[str]:
    if before.version != __version__:
        yield f"scored by napari-her2 {before.version}, replayed by {__version__}"
    if before.asked is None or after.asked is None:
        return
    if before.asked.device != after.asked.device:
        yield f"scored on {before.device}, replayed on {after.device}"
    if before.asked.torch != after.asked.torch:
        yield f"scored with PyTorch {before.asked.torch}, replayed with {after.asked.torch}"
    if before.asked.threads != after.asked.threads:
        yield (
            f"scored in {before.asked.threads} threads, replayed in {after.asked.threads}: sums may differ "
            "in their last digits"
        )


class _Comparison:
    """Walks two results side by side, field by field.

    Attributes
    ----------
    values : int
        How many were compared.
    """

    def __init__(self) -> None:
        self.values = 0

    def of(self, before: Any, after: Any, place: tuple[str, ...]) -> Iterator[Difference]:  # noqa: ANN401
        """Yield what differs."""
        if type(before) is not type(after):
            yield Difference(_words(place), _short(before), _short(after))
        elif isinstance(before, np.ndarray):
            self.values += before.size
            yield from _array_difference(before, after, place)
        elif is_dataclass(before):
            for field in fields(before):
                if field.name not in _NOT_COMPARED:
                    own = getattr(before, field.name), getattr(after, field.name)
                    yield from self.of(*own, (*place, _named(before, field.name)))
        elif isinstance(before, dict):
            for key in [*before, *(key for key in after if key not in before)]:
                if key not in _NOT_COMPARED:
                    yield from self.of(before.get(key), after.get(key), (*place, str(key)))
        elif isinstance(before, list | tuple):
            if len(before) != len(after):
                yield Difference(_words(place), f"{len(before):,} of them", f"{len(after):,}")
            for number, (one, other) in enumerate(zip(before, after, strict=False)):
                yield from self.of(one, other, (*place, f"{number + 1}"))
        else:
            self.values += 1
            if before != after and not (before != before and after != after):
                size = abs(after - before) if isinstance(before, int | float) else float("nan")
                yield Difference(_words(place), _short(before), _short(after), size)


def _array_difference(
    before: np.ndarray,
    after: np.ndarray,
    place: tuple[str, ...],
) -> Iterator[Difference]:
    if before.shape != after.shape or before.dtype != after.dtype:
        yield Difference(_words(place), f"{before.dtype} {before.shape}", f"{after.dtype} {after.shape}")
    elif before.tobytes() != after.tobytes():
        differs = (before != after) & ~((before != before) & (after != after))
        if not differs.any():  # 0 and -0, or NaN of other bits
            return
        sizes = np.abs(after[differs].astype(np.float64) - before[differs].astype(np.float64))
        known = sizes[np.isfinite(sizes)]
        yield Difference(
            _words(place),
            f"{before.size:,} values",
            f"{int(differs.sum()):,} differ",
            float(known.max()) if known.size else float("nan"),
        )


def _named(holder: Any, field: str) -> str:  # noqa: ANN401 - any value of a result
    """Name a field, of a map by its own name."""
    return f"{field} of {holder.name}" if field == "values" and hasattr(holder, "name") else field


def _words(place: tuple[str, ...]) -> str:
    return " > ".join(place) or "the result"


def _short(value: object) -> str:
    text = f"{value:.9g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
