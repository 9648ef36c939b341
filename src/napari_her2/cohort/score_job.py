"""A slide or a case from its path to its result: the one way, on this machine and on a worker."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path  # noqa: TC003 - jobs travel
from typing import TYPE_CHECKING, Any

from napari_her2.cohort.facts import scored_facts
from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.errors import JobFailed
from napari_her2.inference.options import ScoringOptions
from napari_her2.version import __version__

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_her2.export.request import Request
    from napari_her2.inference.result import CaseOf
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.slide.reader import Slide
    from napari_her2.steps import Progress


@dataclass(frozen=True, slots=True)
class Further:
    """Another slide of a case, in one bag with those of its stain.

    Parameters
    ----------
    path : Path
    stain : str
        "H&E" or "IHC".
    regions : Path or None
        On it.
    mpp : float or None
        µm per level-0 pixel, where the file does not say it or says it wrongly.
    mpp_source : str
        How that is known, in words; empty where the user gives it.
    """

    path: Path
    stain: str
    regions: Path | None = None
    mpp: float | None = None
    mpp_source: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """What is scored together: a slide, or the H&E and the IHC slide of a case.

    Parameters
    ----------
    path : Path
        Of the slide; of the H&E slide where there are two.
    ihc : Path or None
        Of the IHC slide.
    regions : Path or None
        GeoJSON; only tiles inside are scored.
    mpp, ihc_mpp : float or None
        µm per level-0 pixel, where the files do not say it or say it wrongly.
    further : tuple of Further
        More slides of the case.
    of : CaseOf or None
        The case, where somebody named it.
    mpp_source, ihc_mpp_source : str
        How these are known, in words; empty where the user gives them.
    """

    path: Path
    ihc: Path | None = None
    regions: Path | None = None
    mpp: float | None = None
    ihc_mpp: float | None = None
    further: tuple[Further, ...] = ()
    of: CaseOf | None = None
    mpp_source: str = ""
    ihc_mpp_source: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        more = [path for one in self.further for path in (one.path, one.regions)]
        return tuple(path for path in (self.path, self.ihc, self.regions, *more) if path is not None)


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """Score a slide or a case, and write its result.

    Parameters
    ----------
    case : Case
    out : Path
        Folder for the folder of the result.
    options : ScoringOptions
    device, backend : str
        As of `choose_device` and `open_slide`.
    skip_finished : bool
        Leave it alone where this very request was answered before.
    """

    case: Case
    out: Path
    options: ScoringOptions = field(default_factory=ScoringOptions)
    device: str = "auto"
    backend: str = "auto"
    skip_finished: bool = False

    @property
    def path(self) -> Path:
        """File of the slide."""
        return self.case.path

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return self.case.files

    def unless_finished(self) -> ScoreJob:
        """Return the same job that leaves a finished slide alone."""
        return replace(self, skip_finished=True)

    def steps(self, bundle: ModelBundle) -> Generator[Progress, None, SlideOutcome]:
        """Score and write.

        Parameters
        ----------
        bundle : ModelBundle

        Yields
        ------
        Progress

        Returns
        -------
        SlideOutcome

        Raises
        ------
        SlideError, ModelError, JobFailed
        """
        from napari_her2.export.result_files import finished_result, result_folder
        from napari_her2.export.tables import write_result
        from napari_her2.inference.unchanged import identified
        from napari_her2.methods.scoring import score_steps

        case = self.case
        with ExitStack() as stack:
            slide = stack.enter_context(self._open(case.path, case.mpp, case.mpp_source))
            ihc = None
            if case.ihc is not None:
                ihc = stack.enter_context(self._open(case.ihc, case.ihc_mpp, case.ihc_mpp_source))
            more = [
                stack.enter_context(self._open(one.path, one.mpp, one.mpp_source)) for one in case.further
            ]
            yield from identified(slide, ihc)
            for one in more:
                yield from identified(one)
            folder = result_folder(slide.name, slide.fingerprint, slide.identity.head, self.out)
            request = self._request(slide, ihc, bundle, more)
            finished = finished_result(folder, request) if self.skip_finished else None
            if finished is not None:
                return _skipped(case.path, slide.name, finished, folder, bundle)
            readers = dict.fromkeys(opened.backend for opened in (slide, ihc) if opened is not None)
            options = {of.name: getattr(self.options, of.name) for of in fields(self.options)}
            result = yield from score_steps(
                slide,
                bundle,
                ihc,
                case.regions,
                self.device,
                further=[
                    (opened, one.stain, one.regions) for opened, one in zip(more, case.further, strict=True)
                ],
                case=case.of,
                **options,
            )
        folder = write_result(result, self.out, request)
        facts = scored_facts(result, ", ".join(readers), self.out)
        title, hidden = f"{result.slide}: {result.label}", result.doubt.hidden
        return SlideOutcome(case.path, "done", title, folder, facts, withheld=hidden)

    def _open(self, path: Path, mpp: float | None, source: str) -> Slide:
        from napari_her2.slide.facts import GIVEN_BY_USER
        from napari_her2.slide.reader import open_slide

        return open_slide(
            path,
            mpp=mpp,
            backend=self.backend,  # type: ignore[arg-type]  # checked there
            mpp_source=source or GIVEN_BY_USER,
        )

    def _request(
        self, slide: Slide, ihc: Slide | None, bundle: ModelBundle, more: Sequence[Slide]
    ) -> Request:
        from napari_her2.cells.rules_file import rules_values
        from napari_her2.export.request import Request
        from napari_her2.inference.precision import AUTO, wanted_precision

        chosen = self.options
        options: dict[str, str | float | bool | None] = {
            "backend": self.backend,
            "mpp": self.case.mpp,
            "ihc_mpp": self.case.ihc_mpp,
            "regions_sha256": _digest(self.case.regions),
            "tissue": chosen.preset,
            "stain": chosen.stain,
            "min_tissue": chosen.min_tissue,
            "min_confidence": chosen.min_confidence,
            "override_fit": chosen.override_fit,
            "coverage": chosen.coverage,
            "min_familiarity": chosen.min_familiarity,
            "show_withheld": chosen.show_withheld,
        }
        if (wanted := wanted_precision()) != AUTO:  # of which older results say nothing
            options["precision"] = wanted
        if chosen.leaves_out_poor(bundle.card):  # likewise
            options["leave_out_poor"] = True
            options["quality_limits"] = json.dumps(chosen.quality_limits.values(), sort_keys=True)
        if chosen.overlap:  # likewise
            options["overlap"] = chosen.overlap
        if chosen.of_cells:
            options |= {"calibration": chosen.calibration, "gain": chosen.gain}
            options["rules"] = json.dumps(rules_values(chosen.cell_rules()), sort_keys=True)
        if (of := self.case.of) is not None:  # likewise
            options["case"] = json.dumps([of.case_id, of.scorings, of.way, of.rule])
        if self.case.further:
            given = [[one.stain, one.mpp, _digest(one.regions)] for one in self.case.further]
            options["further"] = json.dumps(given)
        slides = tuple(opened.fingerprint for opened in (slide, ihc, *more) if opened is not None)
        return Request(slides, bundle.sha256, options, __version__)


def _skipped(
    path: Path, slide: str, finished: dict[str, Any], folder: Path, bundle: ModelBundle
) -> SlideOutcome:
    card = bundle.card
    facts = (
        ("task", finished["task"]),
        ("result", finished["label"]),
        *((("doubt", finished["doubt"]),) if finished["doubt"] else ()),
        ("model", f"{card.name} (SHA-256 {bundle.sha256[:12]})"),
        ("finished", "by an earlier run, with the same slide, model and options"),
        *(("warning", text) for text in finished["warnings"]),
        ("written to", str(folder)),
        ("notice", card.notice),
    )
    title = f"{slide}: {finished['label']}"
    return SlideOutcome(path, "skipped", title, folder, facts, withheld=finished["hidden"])


def _digest(path: Path | None) -> str | None:
    """SHA-256 of a file; empty where it cannot be read, which whoever reads it says in words."""
    if path is None:
        return None
    from napari_her2.inference.regions import REGION_FILES

    try:
        return hashlib.sha256(REGION_FILES.raw(path)).hexdigest()
    except JobFailed:
        return ""
