"""What is drawn once for a case: its morphology, its membrane staining and its two stains.

The four IHC scores follow ASCO/CAP 2018 (affirmed 2023; Wolff et al., J Clin Oncol 2023;41:3867):
percentages are drawn at random inside the rule of the class. The morphology shifts with the score
and carries a random effect of the case, so that the score can be learned from H&E, but not read
off one number. That link is an invention of this phantom and says nothing about patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_her2.phantom.counter import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

Score = Literal["0", "1+", "2+", "3+"]
SCORES: tuple[Score, ...] = ("0", "1+", "2+", "3+")


@dataclass(frozen=True, slots=True)
class Morphology:
    """Tumour cells of a case; lengths in µm.

    Attributes
    ----------
    radius_um : float
        Median nuclear radius.
    pleomorphism : float
        Standard deviation of the natural logarithm of the nuclear radius.
    spacing_um : float
        Distance between neighbouring cells (crowding).
    hyperchromasia : float
        Optical density of haematoxylin in nuclei, before the slide's own strength.
    nucleoli : float
        Share of nuclei with a prominent nucleolus.
    irregularity : float
        Relative amplitude of the nuclear outline.
    """

    radius_um: float
    pleomorphism: float
    spacing_um: float
    hyperchromasia: float
    nucleoli: float
    irregularity: float


@dataclass(frozen=True, slots=True)
class MembraneMix:
    """Shares of tumour cells by membrane staining; they sum to one."""

    none: float
    faint_incomplete: float
    weak_moderate_complete: float
    intense_complete: float


@dataclass(frozen=True, slots=True)
class MembraneLevels:
    """How strongly stained membranes are drawn: faint, weak to moderate, and intense ones.

    Attributes
    ----------
    name : str
        As files of truth have it.
    density : 3 tuples (least, spread)
        Density of DAB x 100 (natural logarithm) of each.
    half_um : 4 floats
        Half the width of a wall, of cells without staining (not drawn) and of each.
    faint_complete : (least, spread)
        Share of its outline that a faint membrane stains.
    """

    name: str
    density: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    half_um: tuple[float, float, float, float]
    faint_complete: tuple[float, float]


PLAIN = MembraneLevels(
    "plain", ((10.0, 10.0), (34.0, 28.0), (115.0, 70.0)), (0.4, 0.42, 0.52, 0.72), (0.25, 0.35)
)
GRADED = MembraneLevels(
    "graded", ((54.0, 18.0), (82.0, 38.0), (56.0, 136.0)), (0.4, 0.50, 0.62, 0.72), (0.5, 0.35)
)
"""Masses of membranes about as 1 : 2 : 2.7, each in the middle of its class by the criteria of cells, and
intense cells differ among themselves; in the plain levels they are 1 : 5 : 18, told apart by eye at once."""
LEVELS = {levels.name: levels for levels in (PLAIN, GRADED)}


@dataclass(frozen=True, slots=True)
class Stain:
    """One slide's two dyes, light and optics.

    Attributes
    ----------
    first, second : (3,) tuples
        Unit optical-density vectors in R, G, B: haematoxylin, and eosin or DAB.
    strength : (2,) tuple
        Strength of the two dyes (1 is usual).
    white : (3,) tuple
        Grey value of empty glass in R, G, B.
    blur_um : float
        Standard deviation of the optical blur in µm.
    noise : float
        Standard deviation of the sensor noise at white, in grey values.
    """

    first: tuple[float, float, float]
    second: tuple[float, float, float]
    strength: tuple[float, float]
    white: tuple[float, float, float]
    blur_um: float
    noise: float


@dataclass(frozen=True, slots=True)
class Case:
    """Everything about a case that does not depend on position."""

    seed: int
    score: Score
    morphology: Morphology
    membranes: MembraneMix
    he: Stain
    ihc: Stain
    levels: MembraneLevels = PLAIN


def draw_morphology(seed: int, score: Score) -> Morphology:
    """Draw the tumour cells of a case: a shift with the score, and the case's own deviation."""
    deviation = generator(seed, "morphology").normal(size=7)
    # One deviation moves all properties of the case along the grade, as tumours do; it is what
    # keeps the classes from being told apart perfectly, however many cells are looked at.
    grade = SCORES.index(score) + 0.29 * deviation[6]
    radius = 3.3 + 0.6 * grade + 0.02 * grade**2 + 0.13 * deviation[0]
    pleomorphism = 0.065 * np.exp(0.42 * grade + 0.13 * deviation[1])
    packing = 2.02 - 0.16 * grade + 0.06 * deviation[2]
    return Morphology(
        radius_um=float(radius),
        pleomorphism=float(pleomorphism),
        spacing_um=float(np.clip(2 * radius * packing, 11.0, 18.0)),
        hyperchromasia=float(0.86 + 0.08 * grade + 0.06 * deviation[3]),
        nucleoli=float(np.clip(0.05 + 0.2 * grade + 0.07 * deviation[4], 0.0, 1.0)),
        irregularity=float(np.clip(0.03 + 0.022 * grade + 0.01 * deviation[5], 0.01, 0.2)),
    )


def draw_membranes(seed: int, score: Score) -> MembraneMix:
    """Draw the percentages of stained cells at random inside the rule of the score."""
    random = generator(seed, "membranes")
    none = faint = moderate = intense = 0.0
    if score == "0":
        faint = 0.0 if random.random() < 0.5 else float(random.uniform(0.01, 0.085))
    elif score == "1+":
        faint = float(random.uniform(0.25, 0.85))
        moderate = float(random.uniform(0.0, 0.05))
    elif score == "2+":
        moderate = float(random.uniform(0.25, 0.8))
        intense = float(random.uniform(0.0, 0.06))
        faint = float(random.uniform(0.3, 0.9)) * (1 - moderate - intense)
    else:
        intense = float(random.uniform(0.45, 0.95))
        moderate = float(random.uniform(0.3, 0.8)) * (1 - intense)
        faint = float(random.uniform(0.2, 0.8)) * (1 - intense - moderate)
    none = 1 - faint - moderate - intense
    return MembraneMix(none, faint, moderate, intense)


def _unit(vector: NDArray[np.float64]) -> tuple[float, float, float]:
    scaled = vector / np.linalg.norm(vector)
    return float(scaled[0]), float(scaled[1]), float(scaled[2])


def _draw_stain(
    seed: int, stream: str, second: tuple[float, float, float], strength: tuple[float, float]
) -> Stain:
    random = generator(seed, stream)
    first = np.array((0.66, 0.69, 0.30)) + random.normal(0, 0.018, 3)
    other = np.array(second) + random.normal(0, 0.015, 3)
    white = random.uniform(238, 247) + random.normal(0, 1.5, 3)
    return Stain(
        first=_unit(first),
        second=_unit(np.maximum(other, 0.02)),
        strength=(
            float(strength[0] * np.exp(random.normal(0, 0.08))),
            float(strength[1] * np.exp(random.normal(0, 0.08))),
        ),
        white=(float(white[0]), float(white[1]), float(white[2])),
        blur_um=float(random.uniform(0.3, 0.42)),
        noise=float(random.uniform(1.2, 2.2)),
    )


def draw_case(seed: int, score: Score, levels: MembraneLevels = PLAIN) -> Case:
    """Draw a case; the same seed and score give the same case on any machine."""
    return Case(
        seed=seed,
        score=score,
        morphology=draw_morphology(seed, score),
        membranes=draw_membranes(seed, score),
        he=_draw_stain(seed, "stain-he", (0.14, 0.92, 0.36), (1.35, 0.8)),
        ihc=_draw_stain(seed, "stain-ihc", (0.30, 0.57, 0.76), (0.72, 1.0)),
        levels=levels,
    )
