"""The slides of a cohort as bags of the features of their tiles: embedded here, or read from files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.steps import Progress
from napari_her2_training.cohort.bags import SlideBag, joined_bag
from napari_her2_training.cohort.contents import real
from napari_her2_training.cohort.counting import Counted, median_taken
from napari_her2_training.cohort.embedding import embed_cases, read_cases
from napari_her2_training.cohort.feature_file import MadeBy, joined
from napari_her2_training.cohort.features import from_files
from napari_her2_training.cohort.manifest import STAINS, in_cases, label_of
from napari_her2_training.encoder.counting import add_slide_facts, count_tiles, encoder_at_hand
from napari_her2_training.encoder.make import frozen_encoder, keep_outside
from napari_her2_training.encoder.of_files import (
    UNKNOWN_ENCODER,
    FileEncoder,
    encoder_of_files,
    remark_of,
)
from napari_her2_training.encoder_choice import scale_warning
from napari_her2_training.findings import Enough, noted
from napari_her2_training.running.ranks import first_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from napari_her2.inference.device import Device
    from napari_her2.models.card import EncoderSpec
    from napari_her2.models.patch_encoder import PatchEncoder
    from napari_her2_training.cohort.manifest import Case, Stain
    from napari_her2_training.config_sections import DataConfig, EncoderConfig
    from napari_her2_training.findings import Findings

OF_FILES = (
    "Its cases are files of features: what it has seen is not kept, and nothing is promised of its answers."
)
_DIFFERENT = 1024
"""Tiles of made-up bags that differ."""


@dataclass(slots=True, eq=False)
class EmbeddedSlides:
    """Slides as bags, made when they are first asked for; arms with the same tiles and encoder may share one.

    Parameters
    ----------
    config : EncoderConfig
    data : DataConfig
    seed : int
        Of an encoder with random weights.
    regions : callable, optional
        Gives the GeoJSON file of a case's tumour; the bags then tell which tiles are tumour.
    made : PatchEncoder, optional
        The encoder, where it learnt before; otherwise that of the configuration is made where it is needed.
    least : int
        Tiles of a bag at least, where bags are made up because nothing is embedded.
    joined : bool
        Whether all slides of a case, of one stain, are one bag.

    Attributes
    ----------
    bags : dict of (stain, row of the manifest) to SlideBag
    tiles : dict of (stain, row of the manifest) to int
        How many the slide holds. Made-up bags have as many as a slide in the middle.
    case_bags : dict of (stain, rows of the manifest) to SlideBag
        Those of several slides; ``bags`` then holds views of them.
    from_files : bool
        Whether any features were read from files.
    stated : dict of stain to MadeBy
        How those were made, as they state it.
    """

    config: EncoderConfig
    data: DataConfig
    seed: int
    regions: Callable[[Case], Path] | None = None
    made: PatchEncoder | None = None
    least: int = 1
    joined: bool = False
    bags: dict[tuple[Stain, int], SlideBag] = field(default_factory=dict)
    tiles: dict[tuple[Stain, int], int] = field(default_factory=dict)
    from_files: bool = False
    case_bags: dict[tuple[Stain, tuple[int, ...]], SlideBag] = field(default_factory=dict)
    stated: dict[Stain, MadeBy] = field(default_factory=dict)

    @property
    def encoder(self) -> PatchEncoder | None:
        """What embedded all slides; None where features came from files, or nothing was embedded yet."""
        return None if self.from_files else self.made

    @property
    def known(self) -> FileEncoder:
        """What is known of the encoder behind all features, and of their tiles."""
        if not self.from_files:
            spec = None if self.made is None else self.made.spec
            return FileEncoder(spec, self.data.tile_px, self.data.mpp)
        if self.made is not None:  # one stain was embedded here, the other comes from files
            return FileEncoder(unknown=UNKNOWN_ENCODER)
        return encoder_of_files(self.stated, {stain: self.width(stain) for stain in self.stated}, self.config)

    @property
    def spec(self) -> EncoderSpec | None:
        """What a card says of the encoder; None where slides cannot be scored."""
        return self.known.spec

    @property
    def no_bundle(self) -> str:
        """Why slides cannot be scored with what learns from these, empty where they can."""
        return self.known.unknown

    @property
    def no_doubt(self) -> str:
        """Why a model keeps nothing of these cases, empty where it may."""
        return OF_FILES if self.from_files else ""

    @property
    def note(self) -> str:
        """What a card is to say of them."""
        return self.known.remark

    @property
    def min_tissue(self) -> float | None:
        """Share of a tile that had to be tissue; None where others chose the tiles."""
        return None if self.from_files else self.data.min_tissue

    def prepare(
        self,
        cases: Sequence[Case],
        stains: Sequence[Stain],
        device: Device,
        findings: Findings | None = None,
        *,
        folds: int = 0,
    ) -> Generator[Progress, None, None]:
        """Embed, or read, the slides that are not there yet.

        Parameters
        ----------
        cases : sequence of Case
            Those without a slide of a stain are passed over.
        stains : sequence of {"he", "ihc"}
        device : Device
        findings : Findings, optional
            Slides are counted, and bags are made up.
        folds : int
            Where slides are counted: folds in each of which another encoder will embed them; 0: one for all.
        """
        given = {stain: [case for case in cases if getattr(case, stain) is not None] for stain in stains}
        read = {stain: from_files(own, stain) for stain, own in given.items()}
        missing = {
            stain: [case for case in own if (stain, case.row) not in self.bags]
            for stain, own in given.items()
        }
        self.from_files |= any(read.values())
        if findings is not None:
            yield from self._count(missing, read, findings, folds)
            return
        for stain, own in missing.items():
            if not own:
                continue
            word, found = STAINS[stain], list[SlideBag]()
            if read[stain]:
                stage = f"Reading the features of the {word} slides"
                found, stated = yield from read_cases(own, stain, stage, self._bag)
                self.stated[stain] = joined(self.stated.get(stain, MadeBy()), stated)
            else:
                stage = f"Embedding the {word} slides"
                if self.made is None:
                    self.made = frozen_encoder(self.config, self.data.tile_px, self.seed)
                    yield from self._note_encoder(stage, self.made)
                with first_alone():  # the others find the features in the cache
                    found = yield from embed_cases(
                        own, self.made, self.data, device, stage=stage, stain=stain, regions=self.regions
                    )
            self.bags |= {(stain, case.row): bag for case, bag in zip(own, found, strict=True)}
        self.tiles = {key: len(bag.features) for key, bag in self.bags.items()}
        if self.from_files and (remark := remark_of(self.known)):
            yield Progress("Reading the features", note=remark)

    def _note_encoder(self, stage: str, encoder: PatchEncoder) -> Generator[Progress, None, None]:
        """Keep weights that no bundle will hold, and say what is worth knowing of the encoder."""
        with first_alone():
            kept = keep_outside(self.config, encoder)
        for note in (scale_warning(self.config.name, self.data.mpp), kept):
            if note:
                yield Progress(stage, note=note)

    def of(self, cases: Sequence[Case], stain: Stain) -> list[SlideBag]:
        """Return the bags of cases that were prepared: one a row, or one a case where they are joined."""
        return [bag for own in self.together(cases) if (bag := self.bag_of(own, stain)) is not None]

    def together(self, cases: Sequence[Case]) -> list[tuple[Case, ...]]:
        """Return the rows whose slides are one bag."""
        return in_cases(cases) if self.joined else [(case,) for case in cases]

    def bag_of(self, rows: Sequence[Case], stain: Stain) -> SlideBag | None:
        """Return the one bag of rows that are `together`; None where none of them has the stain."""
        held = [row.row for row in _different(rows, stain) if (stain, row.row) in self.bags]
        if len(held) < 2:
            return self.bags[stain, held[0]] if held else None
        key = (stain, tuple(held))
        if key not in self.case_bags:
            bag = self.case_bags[key] = joined_bag([self.bags[stain, row] for row in held])
            end = 0
            for row in held:  # views: the tiles are held once
                one = self.bags[stain, row]
                begin, end = end, end + len(one.features)
                self.bags[stain, row] = replace(one, features=bag.features[begin:end])
        return self.case_bags[key]

    def sizes(self, cases: Sequence[Case], stain: Stain) -> dict[int, int]:
        """Return by row how many tiles the bag holds that it is in; without rows that lack the stain."""
        found: dict[int, int] = {}
        for own in self.together(cases):
            tiles = [
                self.tiles[key] for row in _different(own, stain) if (key := (stain, row.row)) in self.tiles
            ]
            found |= {row.row: sum(tiles) for row in own if (stain, row.row) in self.tiles}
        return found

    def width(self, stain: Stain) -> int:
        """Length of the features of a stain."""
        return next((int(bag.features.shape[1]) for (own, _), bag in self.bags.items() if own == stain), 0)

    def _bag(self, case: Case, features: np.ndarray) -> SlideBag:
        return SlideBag(case.case_id, label_of(case, self.data.mapping), features)

    def _count(
        self,
        missing: dict[Stain, list[Case]],
        read: dict[Stain, bool],
        findings: Findings,
        folds: int,
    ) -> Generator[Progress, None, None]:
        """Count tiles, and make bags up that are as large as a slide in the middle."""
        known, widths = False, dict.fromkeys(missing, 0)
        counted: dict[Stain, list[Counted]] = {}
        if self.made is None and any(missing[stain] and not read[stain] for stain in missing):
            self.made, known = encoder_at_hand(self.config, self.data.tile_px, self.seed, findings)
            note = scale_warning(self.config.name, self.data.mpp)
            if note:
                findings.warn(note)
        for stain, own in missing.items():
            if own and read[stain]:
                counted[stain], widths[stain] = yield from self._count_features(own, stain, findings)
            elif own:
                counted[stain] = yield from count_tiles(
                    own, self.made, self.data, stain, findings, known=known and not folds, times=folds or 1
                )
                widths[stain] = 0 if self.made is None else self.made.spec.dim
        middle = max(self.least, median_taken([one for found in counted.values() for one in found]))
        for stain, own in missing.items():
            self.tiles |= {(stain, one.case.row): one.taken for one in counted.get(stain, ())}
            some = np.random.default_rng(0).normal(size=(min(middle, _DIFFERENT), widths[stain]))
            features = np.resize(some.astype(np.float16), (middle, widths[stain]))
            self.bags |= {(stain, case.row): self._bag(case, features) for case in own}
        if not all(self.width(stain) for stain in missing):
            raise Enough

    def _count_features(
        self, cases: Sequence[Case], stain: Stain, findings: Findings
    ) -> Generator[Progress, None, tuple[list[Counted], int]]:
        stage = f"Reading the features of the {STAINS[stain]} slides"
        widths: list[int] = []

        def count(case: Case, features: np.ndarray) -> Counted:
            widths.append(features.shape[1])
            return Counted(case, len(features), len(features))

        found, stated = yield from read_cases(cases, stain, stage, count, findings)
        self.stated[stain] = joined(self.stated.get(stain, MadeBy()), stated)
        if found:
            add_slide_facts(found, stain, findings, "as files of features")
            findings.memory_bytes += sum(one.taken for one in found) * widths[0] * 2
            with noted(findings):
                known = encoder_of_files(self.stated, {stain: widths[0]}, self.config)
                if words := known.unknown or remark_of(known):
                    findings.warn(words)
        return found, widths[0] if widths else 0


def _different(rows: Sequence[Case], stain: Stain) -> list[Case]:
    """Rows whose slide of a stain is no other row's: an IHC slide may serve several H&E slides of a case."""
    found: dict[Path, Case] = {}
    for row in rows:
        path = row.he if stain == "he" else row.ihc
        if path is not None:
            found.setdefault(real(path), row)
    return list(found.values())
