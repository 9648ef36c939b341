"""Whether a model notices slides that it was not made for: how familiar they are, and the judged cases.

Both are scored with the bundle of the run by the ordinary way of scoring, so that what is measured is what a
user gets. A slide that looks like another stain is scored all the same: its strangeness is the question.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binomtest

from napari_her2.errors import Her2Error, JobFailed
from napari_her2.methods.scoring import score_steps
from napari_her2.models.bundle import load_bundle
from napari_her2.models.bundle_card import read_card
from napari_her2.models.case_slides import EACH
from napari_her2.models.familiarity import NOT_KNOWN, UNLIKE
from napari_her2.number_words import counted
from napari_her2.slide.names import SUFFIXES
from napari_her2.steps import Progress
from napari_her2_training.cohort.contents import holds_dicom, real
from napari_her2_training.cohort.features import holds_features
from napari_her2_training.measures.separation import separation
from napari_her2_training.reporting.slides import rows_by_case, slides_of

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.inference.result import SlideResult
    from napari_her2.models.bundle import ModelBundle
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.measures.arms import Measure
    from napari_her2_training.reporting.evaluation import FinishedRun

JUDGED, STRANGE = "judged", "strange"


@dataclass(frozen=True, slots=True)
class FamiliaritySeen:
    """How familiar a slide was to the model.

    Parameters
    ----------
    group : str
        `JUDGED` or `STRANGE`.
    slide : str
    case : str
        Empty of a strange one.
    stain : str
        As it was scored.
    verdict : str
        As of `napari_her2.models.familiarity`.
    familiarity, unfamiliar_tiles : float
        As of `napari_her2.inference.doubt.SlideFamiliarity`; NaN where not known.
    reason : str
        What is strange about it, or why it could not be scored.
    answer : str
        What scoring shows.
    """

    group: str
    slide: str
    case: str = ""
    stain: str = ""
    verdict: str = NOT_KNOWN
    familiarity: float = float("nan")
    unfamiliar_tiles: float = float("nan")
    reason: str = ""
    answer: str = ""


@dataclass(frozen=True, slots=True)
class ShareUnlike:
    """How many slides of a group are called unlike, of those whose verdict is known.

    Parameters
    ----------
    count, slides : int
    low, high : float
        Interval of the share (Clopper and Pearson).
    """

    count: int
    slides: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.count} of {self.slides} ({self.low:.0%} to {self.high:.0%})"


@dataclass(frozen=True, slots=True)
class StrangeSlides:
    """Familiarity of judged and strange slides.

    Parameters
    ----------
    seen : tuple of FamiliaritySeen
    area : Measure or None
        Under the ROC curve: how often a strange slide is less familiar than a judged one. None where one of
        the groups has no value.
    unlike : mapping of str to ShareUnlike
        By group.
    missing : str
        Why nothing was measured; empty where it was.
    """

    seen: tuple[FamiliaritySeen, ...] = ()
    area: Measure | None = None
    unlike: Mapping[str, ShareUnlike] = field(default_factory=dict)
    missing: str = ""

    def of(self, group: str) -> list[FamiliaritySeen]:
        """Return the slides of a group, the least familiar first."""
        return sorted((one for one in self.seen if one.group == group), key=_strangest_first)

    def values(self, group: str) -> NDArray[np.float64]:
        """Return the known values of a group."""
        found = np.array([one.familiarity for one in self.of(group)], np.float64)
        return found[np.isfinite(found)]


def slides_in(folder: Path) -> tuple[Path, ...]:
    """Return the slides of a folder: files by their endings, and folders of DICOM.

    Raises
    ------
    JobFailed
        If there is none.
    """
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise JobFailed(
            f"The strange slides in {folder} cannot be listed ({error.strerror or error}): name their folder."
        ) from error
    found = [path for path in inside if _is_slide(path)]
    if not found:
        raise JobFailed(f"{folder} holds no slide: name the folder of the strange slides.")
    return tuple(found)


def _is_slide(path: Path) -> bool:
    if path.is_dir():
        return holds_dicom(path)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def strange_steps(
    run: FinishedRun, strange: Sequence[Path], *, device: str
) -> Generator[Progress, None, StrangeSlides]:
    """Score strange slides and the judged cases with the bundle of a run, and compare how familiar they are.

    Parameters
    ----------
    run : FinishedRun
    strange : sequence of Path
    device : str

    Yields
    ------
    Progress

    Returns
    -------
    StrangeSlides
    """
    if run.record["bundle"] != "written":
        return StrangeSlides(missing="Slides cannot be scored with this model, so none can be found strange.")
    path = run.folder / str(run.record["model"])
    if read_card(path).familiarity is None:
        return StrangeSlides(
            missing="The model keeps nothing of what it learnt from, so it cannot tell a strange slide: "
            "`napari-her2 doubt` gives it that."
        )
    bundle = load_bundle(path)
    cases = _judged_cases(run)
    if not cases:
        return StrangeSlides(missing="The slides of the judged cases are not where the manifest was.")
    own = {real(path) for case in cases for path in (case.he, case.ihc) if path is not None}
    seen: list[FamiliaritySeen] = []
    looked_at: set[Path] = set()  # an IHC slide may stand in several rows of its case, and counts once
    rows = Counter(case.case_id for case in cases)
    count = len(cases) + len(strange)
    for number, case in enumerate(cases):
        yield Progress("Measuring familiarity", number, count, "slides", case.case_id)
        found = yield from _of_case(case, bundle, str(run.record["stain"]), device, looked_at)
        if run.case_slides != EACH and rows[case.case_id] > 1:
            found = [
                replace(one, answer=f"{one.answer} (its slide alone)" if one.answer else "") for one in found
            ]
        seen += found
    for number, path in enumerate(strange, len(cases)):
        yield Progress("Measuring familiarity", number, count, "slides", path.name)
        if real(path) in own:
            seen.append(FamiliaritySeen(STRANGE, path.name, reason="It is one of the judged slides."))
        else:
            known = FamiliaritySeen(STRANGE, path.name)
            seen += yield from _scored(path, None, bundle, device, known, set())
    return compared(seen, run.settings().confidence)


def _judged_cases(run: FinishedRun) -> list[Case]:
    given = run.of(run.judged)
    names = set(given[int(run.record["fold"])].cases if given else ())
    return [case for name, rows in rows_by_case(run).items() if name in names for case in rows]


def _of_case(
    case: Case, bundle: ModelBundle, stain: str, device: str, looked_at: set[Path]
) -> Generator[Progress, None, list[FamiliaritySeen]]:
    known = FamiliaritySeen(JUDGED, case.case_id, case.case_id)
    try:
        paths = slides_of(case, stain)
    except JobFailed:  # a row without a slide of this stain was not judged
        return []
    if not paths or any(holds_features(path) for path in paths):
        return [_with(known, reason="It is given as features: there is no slide to look at.")]
    if all(real(path) in looked_at for path in paths):
        return []
    ihc = paths[1] if len(paths) > 1 else None
    return (yield from _scored(paths[0], ihc, bundle, device, known, looked_at))


def _scored(
    path: Path,
    ihc: Path | None,
    bundle: ModelBundle,
    device: str,
    known: FamiliaritySeen,
    looked_at: set[Path],
) -> Generator[Progress, None, list[FamiliaritySeen]]:
    """Score slides, and return those that were not looked at before, which ``looked_at`` then holds."""
    try:
        result: SlideResult = yield from score_steps(path, bundle, ihc, device=device, override_fit=True)
    except Her2Error as error:
        return [_with(known, reason=str(error))]
    new = [slide for slide in result.slides if real(slide.path) not in looked_at]
    looked_at |= {real(slide.path) for slide in new}
    return [
        FamiliaritySeen(
            group=known.group,
            slide=slide.path.name,
            case=known.case,
            stain=slide.stain,
            verdict=slide.familiarity.verdict,
            familiarity=slide.familiarity.value,
            unfamiliar_tiles=slide.familiarity.unfamiliar,
            reason=slide.familiarity.reason,
            answer=result.label,
        )
        for slide in new
    ]


def _with(known: FamiliaritySeen, *, reason: str) -> FamiliaritySeen:
    return FamiliaritySeen(known.group, known.slide, known.case, reason=reason)


def compared(seen: Sequence[FamiliaritySeen], confidence: float) -> StrangeSlides:
    """Compare the groups.

    Parameters
    ----------
    seen : sequence of FamiliaritySeen
    confidence : float
        Of the intervals.
    """
    found = StrangeSlides(tuple(seen))
    usual, strange = found.values(JUDGED), found.values(STRANGE)
    area = separation(-usual, -strange, confidence) if len(usual) and len(strange) else None
    unlike = {}
    for group in (JUDGED, STRANGE):
        verdicts = [one.verdict for one in found.of(group) if np.isfinite(one.familiarity)]
        if verdicts:
            count = verdicts.count(UNLIKE)
            interval = binomtest(count, len(verdicts)).proportion_ci(confidence, "exact")
            unlike[group] = ShareUnlike(count, len(verdicts), float(interval.low), float(interval.high))
    return StrangeSlides(found.seen, area, unlike)


def _strangest_first(one: FamiliaritySeen) -> tuple[bool, float]:
    known = bool(np.isfinite(one.familiarity))
    return not known, one.familiarity if known else 0.0


def strange_in_words(found: StrangeSlides, run: FinishedRun) -> str:
    """Say what was measured of familiarity, and how far it goes."""
    if found.missing:
        return found.missing
    usual, strange = (len(found.values(group)) for group in (JUDGED, STRANGE))
    if found.area is None:
        nothing = "the strange ones" if usual else "the judged ones"
        return f"How familiar {nothing} are is not known, so nothing can be compared."
    area = found.area
    sentences = [
        f"AUROC of familiarity {area.value:.3f} ({area.low:.3f} to {area.high:.3f}): of a strange and a "
        f"judged slide, how often the strange one is the less familiar; {strange} strange and {usual} judged "
        f"ones.",
        f"Called unlike, so that their answers are withheld: of the strange ones {found.unlike[STRANGE]}, of "
        f"the judged ones {found.unlike[JUDGED]}.",
        "It holds for slides as strange as these: other strange ones may look familiar.",
        "The judged slides also set the limits, so they look more familiar than others would."
        if run.judged != "test"
        else "",
    ]
    if unknown := len(found.seen) - usual - strange:
        sentences.append(f"Of {counted(unknown, 'further slide')} it is not known.")
    return " ".join(sentence for sentence in sentences if sentence)


SEEN_COLUMNS = (
    *("group", "slide", "case", "stain", "verdict", "familiarity", "unfamiliar_tiles", "answer", "reason"),
)


def seen_table(found: StrangeSlides) -> list[dict[str, object]]:
    """Return every slide as a row of a table, the strange ones first; empty where a number is not known."""
    return [
        {
            name: None if isinstance(value := getattr(one, name), float) and not np.isfinite(value) else value
            for name in SEEN_COLUMNS
        }
        for group in (STRANGE, JUDGED)
        for one in found.of(group)
    ]
