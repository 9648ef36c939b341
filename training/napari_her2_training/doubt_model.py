"""Familiarity and sets for a model that exists: an older one, or one that a site calibrates anew.

The model is written to a new file, whole or not at all, its weights byte for byte as they were.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.inference.device import choose_device
from napari_her2.models.bundle import load_bundle, with_doubt
from napari_her2.models.bundle_card import SUFFIX
from napari_her2.models.card import PAIR, SLIDE
from napari_her2.models.class_scores import (
    EQUIVOCAL,
    NO_POSITIVE_ISH,
    POSITIVE_ISH,
    SCORES,
    findings_of,
)
from napari_her2.models.familiarity import LEAST_SLIDES
from napari_her2.models.registry import load_model, model_file
from napari_her2.number_words import counted
from napari_her2.outside import expanded
from napari_her2.whole_files import check_writable
from napari_her2_training.classes import ClassMapping
from napari_her2_training.cohort.contents import content_faults, real
from napari_her2_training.cohort.manifest import (
    CALIBRATION,
    PARTS,
    STAINS,
    named_slides,
    read_manifest,
)
from napari_her2_training.cohort.splits import Split, check_ish, make_splits
from napari_her2_training.config import CasesRunConfig, find_config, read_config
from napari_her2_training.config_sections import DoubtConfig
from napari_her2_training.doubt.counting import cases_in_words
from napari_her2_training.doubt.fit import doubt_steps
from napari_her2_training.methods import METHODS, find_method

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.card import ModelCard
    from napari_her2.steps import Progress
    from napari_her2_training.cohort.manifest import Case, Stain
    from napari_her2_training.doubt.fit import FittedDoubt


_MOST_FAULTS = 20


@dataclass(frozen=True, slots=True)
class DoubtRequest:
    """What is to be made.

    Parameters
    ----------
    model : str
        Name of a model, or its file.
    data : Path
        Manifest of cases; its column split says what each was to the model. Without one all are calibration.
    out : Path
        The new file.
    config : Path or None
        Configuration of the training, which splits the cases as the training did.
    method : str
        Of that configuration; empty where its name, or the model, tells.
    fold : int or None
        Which fold of it the model is of, counted from 0 as in the names of the models of a run.
    calibration : Path or None
        Manifest of further calibration cases.
    keep_familiarity : bool
        Whether the model keeps what it has seen, and gets new sets alone.
    slides : int
        Training slides that are looked at, at most.
    seed : int
    device : str
    any_stain : bool
        Whether slides that do not look like their stain are taken all the same.
    force : bool
        Whether a file that is there is replaced.
    """

    model: str
    data: Path
    out: Path
    config: Path | None = None
    method: str = ""
    fold: int | None = None
    calibration: Path | None = None
    keep_familiarity: bool = False
    slides: int = 200
    seed: int = 0
    device: str = "auto"
    any_stain: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class DoubtedModel:
    """A model with what it keeps of cases.

    Parameters
    ----------
    path : Path
    facts : tuple of (str, str)
        What was found, as names and values.
    remarks : tuple of str
        What had to be left out, and why, a sentence each.
    """

    path: Path
    facts: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


def doubt_model_steps(request: DoubtRequest) -> Generator[Progress, None, DoubtedModel]:
    """Fit familiarity and sets of a model to cases, and write it with them.

    Parameters
    ----------
    request : DoubtRequest

    Yields
    ------
    Progress
        Counts cases. Closing the generator stops it, and nothing is written.

    Returns
    -------
    DoubtedModel

    Raises
    ------
    JobFailed, ModelError
        Naming what is missing; nothing is written then.
    """
    out = expanded(str(request.out))
    _check_out(out, force=request.force)
    bundle, path = load_model(request.model), model_file(request.model)
    mapping = mapping_of(bundle.card)
    split = _split(request, bundle.card, mapping)
    _refuse_too_few(request, bundle, split)
    remarks: list[str] = []
    fitted = yield from doubt_steps(
        path,
        split.train,
        split.validation,
        split.calibration,
        mapping,
        choose_device(request.device),
        seed=request.seed,
        config=DoubtConfig(familiarity=not request.keep_familiarity, slides=request.slides),
        any_stain=request.any_stain,
        remarks=remarks,
    )
    if request.keep_familiarity:
        fitted = fitted._replace(familiarity=bundle.familiarity, familiarity_card=bundle.card.familiarity)
    if fitted.familiarity is None or fitted.answer_sets is None:
        raise JobFailed(f"Nothing was written. {' '.join(remarks)}")
    with_doubt(path, out, *fitted)
    load_bundle(out)
    return DoubtedModel(out, tuple(_facts(fitted, mapping)), tuple(remarks))


def mapping_of(card: ModelCard) -> ClassMapping:
    """Return which scores make which class of a model.

    Raises
    ------
    JobFailed
        If its card leaves a score out.
    """
    held = {name: findings_of(name, card.class_scores) for name in card.classes}
    of_score: dict[str, str] = {}
    for score in SCORES:
        wanted = (score, NO_POSITIVE_ISH) if score == EQUIVOCAL else (score,)
        names = [name for name, findings in held.items() if any(one in findings for one in wanted)]
        if not names:
            raise JobFailed(
                f"The card of {card.name} does not say which of its classes {', '.join(card.classes)} holds "
                f"the score {score}, so that no case can be compared with its answers: train it anew."
            )
        of_score[score] = names[0]
    ish = next((name for name, findings in held.items() if POSITIVE_ISH in findings), "")
    return ClassMapping(card.classes, of_score, ish)


def _check_out(out: Path, *, force: bool) -> None:
    if out.suffix != SUFFIX:
        raise JobFailed(f"A model is saved as {SUFFIX}, not as {out.name!r}: rename it.")
    if out.exists() and not force:
        raise JobFailed(f"{out} exists already: choose another name, or add --force to replace it.")
    check_writable(out.parent)


def _needed(card: ModelCard) -> tuple[Stain, ...]:
    return () if card.stain == PAIR else tuple(column for column in STAINS if STAINS[column] == card.stain)


def _split(request: DoubtRequest, card: ModelCard, mapping: ClassMapping) -> Split:
    """Say what the cases were to the model."""
    cases = read_manifest(request.data, _needed(card))
    check_ish(cases, mapping)
    if request.config is not None:
        split = _as_trained(request, card, mapping, cases)
    elif any(case.split is not None for case in cases):
        parts = {part: tuple(case for case in cases if case.split == part) for part in PARTS}
        split = Split(parts["train"], parts["validation"], calibration=parts[CALIBRATION])
    else:
        split = Split((), (), calibration=cases)
    if request.calibration is not None:
        more = _further(request, card, cases)
        split = replace(split, calibration=(*split.calibration, *more))
    return split


def _as_trained(
    request: DoubtRequest, card: ModelCard, mapping: ClassMapping, cases: Sequence[Case]
) -> Split:
    """Split cases as the training of a configuration does."""
    config = _training_config(request, card)
    if config.data.mapping.names != mapping.names:
        raise JobFailed(
            f"{request.config} learns {', '.join(config.data.mapping.names)}, and {card.name} answers with "
            f"{', '.join(mapping.names)}: give the configuration that the model was trained with."
        )
    splits = make_splits(cases, config.data)
    if len(splits) == 1:
        return splits[0]
    if request.fold is None or request.fold >= len(splits):
        raise JobFailed(
            f"{request.config} makes {len(splits)} folds: say with --fold of which the model is, 0 to "
            f"{len(splits) - 1}, as in the names of the models of its run."
        )
    return splits[request.fold]


def _training_config(request: DoubtRequest, card: ModelCard) -> CasesRunConfig:
    """Read a configuration as that of the method that it names, or that the model is of."""
    file = find_config(request.config or "")
    if request.method:
        methods = [find_method(request.method)]
    else:
        # Ours are of the method that lists them; a file of anyone's is tried as that of the model first.
        own = [
            method
            for method in METHODS.values()
            if file == method.file(Path(file.stem)) and file.stem in method.configs
        ]
        others = sorted(METHODS.values(), key=lambda method: method.name != card.method)
        methods = own or others
    problem = JobFailed(
        f"{file.name} is no configuration of a training on cases: give the one that made the model."
    )
    for number, method in enumerate(methods):
        try:
            config = read_config(file, method.config)
        except JobFailed as error:
            problem = error if number == 0 else problem
            continue
        if isinstance(config, CasesRunConfig):
            return config
    raise problem


def _further(request: DoubtRequest, card: ModelCard, cases: Sequence[Case]) -> tuple[Case, ...]:
    """Read the manifest of further calibration cases, which must not hold a slide of the first one."""
    assert request.calibration is not None
    name = request.calibration.name
    more = read_manifest(request.calibration, _needed(card))
    chosen = tuple(case for case in more if case.split in (None, CALIBRATION))
    if not chosen:
        raise JobFailed(
            f"{name} has no case to calibrate with: leave its column split empty, or write {CALIBRATION}."
        )
    known = {real(slide.path): slide for slide in named_slides(cases)}
    for slide in named_slides(chosen):
        if real(slide.path) in known:
            raise JobFailed(
                f"Row {slide.row} of {name}: {slide.path.name} is in row {known[real(slide.path)].row} of "
                f"{request.data.name} too. A calibration case must be new to the model."
            )
    faults = content_faults((*named_slides(cases), *named_slides(chosen)))
    if faults:
        raise JobFailed(f"{request.data.name} and {name} share slides. {' '.join(faults[:_MOST_FAULTS])}")
    # Case 1 of one table is not case 1 of the other.
    return tuple(replace(case, case_id=f"{case.case_id} of {name}") for case in chosen)


def _refuse_too_few(request: DoubtRequest, bundle: ModelBundle, split: Split) -> None:
    """Refuse cases that cannot say what the model has seen, or what it can promise."""
    name = bundle.card.name
    held = len({case.case_id for case in split.validation}) + len(
        {case.case_id for case in split.calibration}
    )
    if request.keep_familiarity and bundle.familiarity is None:
        raise JobFailed(
            f"{name} keeps nothing of what it has seen: leave --keep-familiarity out, and give the cases "
            f"that it learnt from, with split train."
        )
    if not split.train and not request.keep_familiarity:
        keep = " Add --keep-familiarity to renew its sets alone." if bundle.familiarity is not None else ""
        raise JobFailed(
            f"{request.data.name} has no case that {name} learnt from (split train), which tell what it has "
            f"seen.{keep}"
        )
    least = 1 if request.keep_familiarity else LEAST_SLIDES
    if held < least:
        raise JobFailed(
            f"{counted(held, 'validation or calibration case')} cannot tell what {name} can promise"
            f"{'' if request.keep_familiarity else ', or which slides are unlike'}: give at least {least}, "
            f"with split validation or calibration."
        )


def _facts(fitted: FittedDoubt, mapping: ClassMapping) -> list[tuple[str, str]]:
    """Say what was found, as names and values."""
    facts = []
    if fitted.familiarity is not None and fitted.familiarity_card is not None:
        facts.append(("knows", fitted.familiarity_card.made_from))
        for (stain, kind), space in fitted.familiarity.spaces.items():
            facts.append(
                (
                    f"limit, {stain} {kind}",
                    f"99 % of the tiles of {counted(len(space.slides), 'slide')} lie within "
                    f"{space.tile_limit:.3g}; {len(space.components)} directions, "
                    f"{counted(len(space.references), 'representative tile')}",
                )
            )
    if fitted.answer_sets is not None and fitted.answer_sets_card is not None:
        facts.append(("sets from", fitted.answer_sets_card.made_from))
        for head, cases in fitted.answer_sets.heads.items():
            name = "sets" if head == SLIDE else f"sets of {head}"
            facts.append((name, cases_in_words(Counter(cases.labels.tolist()), mapping)))
    return facts
