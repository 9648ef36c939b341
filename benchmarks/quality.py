"""Sensitivity and false alarms of each reason of poor quality, on slides whose faults are known.

    python benchmarks/quality.py --slides DIR --phantoms DIR [--repeats 2]

Real slides and phantoms are blurred by a known amount, and then given the noise of a camera and the losses of
JPEG, which a real scan has after its blur; pens of the colours of the real thumbnails are painted on them,
folds are laid over (the densities of a strip and of tissue beside it add up), and bubbles drawn by an optical
model (a dark colourless rim, blurred tissue within). Then the processor seconds for 1,000 tiles.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from napari_her2.slide.ink import optical_density, white_point
from napari_her2.slide.quality import quality_steps
from napari_her2.slide.quality_limits import BUBBLE, FLAGS, FOCUS, FOLD, PEN, QUALITY_LIMITS, REASONS
from napari_her2.slide.quality_measures import overview_masks
from napari_her2.slide.reader import open_slide
from napari_her2.steps import finished

SIGMAS_UM = (0.0, 1.0, 2.0, 4.0)
TILE_UM = 48
NOISE, JPEG = 1.5, 85
GIVEN_MPP = {"tcga_cr_7395_no_mpp": 0.5}
PENS = {"blue": (1.1, 0.45, 0.12), "green": (1.0, 0.6, 0.75), "black": (0.9, 0.9, 0.9)}
OVER = {PEN: QUALITY_LIMITS.most_pen, FOLD: QUALITY_LIMITS.most_fold, BUBBLE: QUALITY_LIMITS.most_bubble}


@dataclass
class Tally:
    """Tiles with a fault and how many were found; tiles without and how many were called faulty."""

    faulty: int = 0
    found: int = 0
    sound: int = 0
    alarms: int = 0

    def line(self, name: str) -> str:
        """Write a row of the table."""
        sensitivity = f"{self.found / self.faulty:.1%}" if self.faulty else "-"
        alarms = f"{self.alarms / self.sound:.2%}" if self.sound else "-"
        return f"| {name} | {self.faulty:,} | {sensitivity} | {self.sound:,} | {alarms} |"


@dataclass
class View:
    """A slide from afar, and where its tissue is."""

    name: str
    rgb: np.ndarray
    um: float
    tissue: np.ndarray
    tallies: dict[str, Tally] = field(default_factory=dict)


def slides_of(folder: Path, phantoms: Path) -> list[tuple[str, Path, float | None]]:
    """Kind, path and given µm/px of each slide."""
    found = [
        (f"real {'IHC' if 'ki67' in path.name else 'H&E'}", path, GIVEN_MPP.get(path.stem))
        for path in sorted((folder / "slides").glob("*"))
        if path.suffix in (".svs", ".tif")
    ]
    found += [("real IHC", path, 0.23) for path in sorted((folder / "her2_ihc_cores").glob("*.jpg"))]
    made = sorted(phantoms.glob("*.svs"))[:6]
    return found + [(f"phantom {'IHC' if 'HER2' in path.name else 'H&E'}", path, None) for path in made]


def scanned(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add the noise of a camera, which comes after the blur."""
    noise = rng.standard_normal(rgb.shape, np.float32) * NOISE
    return np.clip(np.rint(rgb + noise), 0, 255).astype(np.uint8)


def focus_rows(paths: list[tuple[str, Path, float | None]], folder: Path) -> dict[str, Tally]:
    """Tiles called out of focus of slides that are blurred as a whole, or not."""
    tallies: dict[str, Tally] = {}
    rng = np.random.default_rng(0)
    for kind, path, given in paths:
        with open_slide(path, mpp=given) as slide:
            mpp = slide.known_mpp[0]
            rgb = slide.read(0, 0, 0, *slide.shape)
        for sigma in SIGMAS_UM:
            image = folder / "blurred.jpg"
            soft = scanned(cv2.GaussianBlur(rgb, (0, 0), sigma / mpp), rng) if sigma else rgb
            quality = JPEG if sigma else 95
            cv2.imwrite(str(image), soft[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
            with open_slide(image, mpp=mpp) as slide:
                grid = slide.tile_grid(round(TILE_UM / 0.5), 0.5)
                found = finished(quality_steps(slide, grid, slide.tissue(), QUALITY_LIMITS))
            tiles = int(found.counted.sum())
            poor = int((found.counted & ((found.reasons & FLAGS[FOCUS]) != 0)).sum())
            tally = tallies.setdefault(
                f"{kind}, blurred by {sigma:g} µm" if sigma else f"{kind}, as it is", Tally()
            )
            if sigma:
                tally.faulty, tally.found = tally.faulty + tiles, tally.found + poor
            else:
                tally.sound, tally.alarms = tally.sound + tiles, tally.alarms + poor
    return dict(sorted(tallies.items()))


def painted(rgb: np.ndarray, white: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Lay more density over a picture."""
    total = optical_density(rgb, white) + density
    return np.clip(np.rint(white * 10.0**-total), 0, 255).astype(np.uint8)


def strip(view: View, rng: np.random.Generator, width_um: float) -> tuple[np.ndarray, float]:
    """Draw a curved strip across tissue, (h, w) bool; return it and its direction."""
    places = np.argwhere(view.tissue)
    best, angle = np.zeros(view.tissue.shape, bool), 0.0
    for _ in range(20):
        start = places[rng.integers(len(places))][::-1].astype(float)
        turn, length = rng.uniform(0, 2 * np.pi), rng.uniform(500, 1000) / view.um
        end = start + length * np.array([np.cos(turn), np.sin(turn)])
        middle = (start + end) / 2 + rng.normal(0, 0.15 * length, 2)
        t = np.linspace(0, 1, 60)[:, None]
        line = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t * t * end
        mask = np.zeros(view.tissue.shape, np.uint8)
        points = [np.round(16 * line).astype(np.int32)]
        cv2.polylines(mask, points, False, 1, max(1, round(width_um / view.um)), cv2.LINE_8, 4)
        within = (mask > 0) & view.tissue
        if within.sum() > best.sum():
            best, angle = within, turn
    return best, angle


def folded(view: View, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lay a strip of the tissue beside it over the tissue."""
    width = rng.uniform(30, 120)
    mask, turn = strip(view, rng, width)
    white = white_point(view.rgb)
    density = optical_density(view.rgb, white)
    apart = (width + rng.uniform(10, 60)) / view.um
    dx, dy = apart * np.cos(turn + np.pi / 2), apart * np.sin(turn + np.pi / 2)
    move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    other = cv2.warpAffine(density, move, density.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(0.3, 3 / view.um))
    return painted(view.rgb, white, soft[..., None] * other), mask


def penned(view: View, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw with a felt pen of 0.2 to 0.6 mm."""
    mask, _ = strip(view, rng, rng.uniform(200, 600))
    ink = np.array(list(PENS.values())[rng.integers(len(PENS))], np.float32) * rng.uniform(0.7, 1.3)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(0.3, 12 / view.um))
    return painted(view.rgb, white_point(view.rgb), soft[..., None] * ink), mask


def bubbled(view: View, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a bubble of 0.24 to 1 mm: a dark rim, seen on most of the circle, and blurred tissue within."""
    places = np.argwhere(view.tissue)
    cy, cx = places[rng.integers(len(places))]
    radius, thick, dark = rng.uniform(120, 500), rng.uniform(12, 30), rng.uniform(0.3, 1.0)
    y, x = np.mgrid[: view.rgb.shape[0], : view.rgb.shape[1]]
    away = np.hypot(y - cy, x - cx) * view.um
    turned = (np.arctan2(y - cy, x - cx) - rng.uniform(-np.pi, np.pi)) % (2 * np.pi)
    seen = turned < 2 * np.pi * rng.uniform(0.7, 1)
    rim = dark * np.exp(-0.5 * ((away - radius) / (thick / 2)) ** 2) * seen
    white, inside = white_point(view.rgb), away < radius
    soft = cv2.GaussianBlur(view.rgb, (0, 0), max(0.3, 3 / view.um))
    within = np.where(inside[..., None], soft, view.rgb)
    return painted(within, white, rim[..., None].astype(np.float32)), inside


def overview_rows(view: View, repeats: int, rng: np.random.Generator) -> None:
    """Fill the tallies of a view: faults that were painted on it, and alarms on it as it is."""
    side = max(1, round(TILE_UM / view.um))
    height, width = (length // side * side for length in view.rgb.shape[:2])

    def shares(mask: np.ndarray) -> np.ndarray:
        cut = mask[:height, :width].astype(np.float32)
        return cut.reshape(height // side, side, width // side, side).mean(axis=(1, 3))

    tissue = shares(view.tissue) >= 0.5
    plain = overview_masks(view.rgb, view.um, QUALITY_LIMITS.fold_times, view.tissue)
    for name, make in ((PEN, penned), (FOLD, folded), (BUBBLE, bubbled)):
        tally = view.tallies[name] = Tally()
        called = shares(plain[name]) > OVER[name]
        tally.sound, tally.alarms = int(tissue.sum()), int((called & tissue).sum())
        for _ in range(repeats):
            altered, truth = make(view, rng)
            found = overview_masks(altered, view.um, QUALITY_LIMITS.fold_times, view.tissue)[name]
            faulty = (shares(truth) > 0.5) & tissue
            tally.faulty += int(faulty.sum())
            tally.found += int(((shares(found) > OVER[name]) & faulty).sum())


def view_of(path: Path, mpp: float | None) -> View:
    """Read a slide at 4 µm/px."""
    with open_slide(path, mpp=mpp) as slide:
        um = 4.0
        size = tuple(
            max(1, round(side * own / um)) for side, own in zip(slide.shape, slide.known_mpp, strict=True)
        )
        rgb = cv2.resize(slide.read(0, 0, 0, *slide.shape), size[::-1], interpolation=cv2.INTER_AREA)
        pixel = (slide.shape[0] / size[0], slide.shape[1] / size[1])
        return View(path.name, rgb, um, slide.tissue().shares((0.0, 0.0), pixel, size) >= 0.5)


def thumbnails(folder: Path) -> None:
    """Share of the real thumbnails with pens that is called pen."""
    for path in sorted((folder / "tissue").glob("thumbnail_*_pen.png")):
        rgb = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
        um = 25_000 / max(rgb.shape)  # the longer side of a slide's scanned area
        masks = overview_masks(rgb, um, QUALITY_LIMITS.fold_times, np.ones(rgb.shape[:2], bool))
        print(f"{path.name}: {masks[PEN].mean():.1%} of the thumbnail is pen")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=Path, required=True, help="folder of real images")
    parser.add_argument("--phantoms", type=Path, required=True, help="folder of phantom slides")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    paths = slides_of(options.slides, options.phantoms)
    print("| fault | faulty tiles | found | sound tiles | called faulty |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, tally in focus_rows(paths, Path(folder)).items():
            print(tally.line(f"{REASONS[FOCUS]}, {name}"), flush=True)
    rng, summed = np.random.default_rng(1), dict[tuple[str, str], Tally]()
    for kind, path, mpp in paths:
        view = view_of(path, mpp)
        if min(view.rgb.shape[:2]) < 150:
            continue  # a field of a quarter of a millimetre shows no fold or bubble
        overview_rows(view, options.repeats, rng)
        for name, tally in view.tallies.items():
            total = summed.setdefault((name, kind), Tally())
            for item in ("faulty", "found", "sound", "alarms"):
                setattr(total, item, getattr(total, item) + getattr(tally, item))
    for (name, kind), tally in sorted(summed.items()):
        print(tally.line(f"{REASONS[name]}, {kind}"))
    thumbnails(options.slides)
    for kind, path, mpp in paths:
        with open_slide(path, mpp=mpp) as slide:
            grid, tissue = slide.tile_grid(96, 0.5), slide.tissue()
            begun = time.process_time()
            quality = finished(quality_steps(slide, grid, tissue, QUALITY_LIMITS))
            spent = time.process_time() - begun
            tiles = int(quality.counted.sum())
            each = 1000 * spent / max(1, tiles)
            focus = float(((quality.reasons & FLAGS[FOCUS]) != 0).mean())
            print(
                f"{kind} {path.name}: {tiles:,} tiles, {spent:.1f} s of processor, {each:.2f} s for 1,000;"
                f" poor {quality.share:.1%}, out of focus {focus:.1%}"
            )


if __name__ == "__main__":
    main()
