"""Renders one block of both slides of a case from one pass over its geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_her2.phantom.layers import DENSITY_UNIT, Frame, Layers, draw_layers
from napari_her2.phantom.noise import field, field_at
from napari_her2.phantom.optics import expose, noise_bank, soften, transmit
from napari_her2.phantom.stroma import Collagen, make_collagen, sample

if TYPE_CHECKING:
    from napari_her2.phantom.case import Case, Stain
    from napari_her2.phantom.cells import Census
    from napari_her2.phantom.layout import Layout

BLOCK_PX = 1024
_HALO_UM = 6.0
_BEND_UM = 0.62
_BEND_SCALE_UM = 5.0

Plane = NDArray[np.float32]
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A case ready to be rendered at one µm/px."""

    case: Case
    layout: Layout
    census: Census
    mpp: float
    collagen: Collagen
    noise: NDArray[np.float32]


def make_scene(case: Case, layout: Layout, census: Census, mpp: float) -> Scene:
    """Prepare what all blocks share."""
    return Scene(case, layout, census, mpp, make_collagen(case.seed), noise_bank(case.seed))


def block_frame(mpp: float, row: int, column: int, shape: tuple[int, int]) -> tuple[Frame, int, int]:
    """Raster that a block of `shape` px is drawn on, how much finer it is than the slide, its halo in px."""
    # Above 0.5 µm/px membranes are thinner than a pixel: render finer and average the light.
    factor = 2 if mpp > 0.5 else 1
    pixel = mpp / factor
    halo = factor * int(np.ceil(_HALO_UM / pixel / factor))
    y0, x0 = (place * BLOCK_PX * mpp - halo * pixel for place in (row, column))
    return Frame(y0, x0, pixel, (shape[0] * factor + 2 * halo, shape[1] * factor + 2 * halo)), factor, halo


def render_block(scene: Scene, row: int, column: int, shape: tuple[int, int]) -> tuple[Image, Image]:
    """Render a block of the H&E slide and the same block of the IHC slide.

    Parameters
    ----------
    row, column : int
        Place in the grid of 1024 px blocks.
    shape : (2,) int
        Height and width in px, at most 1024.

    Returns
    -------
    two (h, w, 3) uint8
    """
    frame, factor, halo = block_frame(scene.mpp, row, column, shape)
    pixel = frame.pixel_um
    layout, y, x = scene.layout, frame.rows_um(), frame.columns_um()
    section = layout.raster(layout.section, y, x)
    stains = scene.case.he, scene.case.ihc
    if section.max() < -12:
        bare = np.zeros(frame.shape, dtype=np.float32)
        dyes = ((bare, bare), (bare, bare))
    else:
        dyes = _dyes(scene, frame, section)
    images = []
    for which, (stain, (first, second)) in enumerate(zip(stains, dyes, strict=True)):
        light = _light(first, second, stain, pixel)[halo : -halo or None, halo : -halo or None]
        light = light * _shading(scene.case.seed, y[halo:-halo], x[halo:-halo], stain)[..., None]
        if factor > 1:
            light = cv2.resize(light, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
        images.append(expose(light, stain, scene.noise, (2 * row + which, column)))
    return images[0], images[1]


def _light(first: Plane, second: Plane, stain: Stain, pixel_um: float) -> NDArray[np.float32]:
    sigma = stain.blur_um / pixel_um
    return transmit(soften(first, sigma), soften(second, sigma), stain)


def _shading(seed: int, y_um: NDArray[np.float64], x_um: NDArray[np.float64], stain: Stain) -> Plane:
    """Uneven light within about 1 %."""
    stream = f"light-{stain.white[0]:.3f}"
    shade: Plane = 1 + np.float32(0.005) * np.clip(field(seed, stream, y_um, x_um, 700.0), -2, 2)
    return shade


def _warp(layers: Layers, seed: int, frame: Frame) -> Layers:
    """Bend everything by up to two micrometres: straight Voronoi walls do not look like cells."""
    y, x = frame.rows_um(), frame.columns_um()
    rows = np.arange(frame.shape[0], dtype=np.float32)[:, None]
    columns = np.arange(frame.shape[1], dtype=np.float32)[None, :]
    reach = np.float32(_BEND_UM / frame.pixel_um)
    map_x = columns + reach * np.clip(field(seed, "bend-x", y, x, _BEND_SCALE_UM), -3, 3)
    map_y = rows + reach * np.clip(field(seed, "bend-y", y, x, _BEND_SCALE_UM), -3, 3)
    first, second = cv2.convertMaps(map_x, map_y, cv2.CV_16SC2)
    planes = (
        layers.nuclei,
        layers.nuclei_next,
        layers.cytoplasm,
        layers.membrane,
        layers.borders,
        layers.vacuole,
    )
    moved = [
        cv2.remap(plane, first, second, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if plane.any()
        else plane
        for plane in planes
    ]
    return Layers(*moved)


def bent(seed: int, places_um: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the bend brings places (N, 2), (y, x) in µm, of what is drawn straight."""
    # The image takes each pixel from p + bend(p): what was drawn at s shows where p + bend(p) = s. Each place
    # stops by itself, so that it does not depend on those it is asked with.
    shown = places_um.copy()
    moving = np.arange(len(shown))
    for _ in range(40):
        here = shown[moving]
        shift = [
            np.clip(field_at(seed, f"bend-{axis}", here[:, 0], here[:, 1], _BEND_SCALE_UM), -3, 3)
            for axis in "yx"
        ]
        shown[moving] = places_um[moving] - _BEND_UM * np.stack(shift, axis=1)
        moving = moving[np.abs(shown[moving] - here).max(axis=1) > 1e-3]
        if not moving.size:
            break
    return shown


def _smoothstep(plane: Plane, low: float, high: float) -> Plane:
    t = np.clip((plane - np.float32(low)) / np.float32(high - low), 0, 1)
    step: Plane = t * t * (3 - 2 * t)
    return step


def _dyes(scene: Scene, frame: Frame, section: Plane) -> tuple[tuple[Plane, Plane], tuple[Plane, Plane]]:
    """Densities of (haematoxylin, eosin) and of (haematoxylin, DAB)."""
    case, seed, layout = scene.case, scene.case.seed, scene.layout
    y, x = frame.rows_um(), frame.columns_um()
    layers = _warp(draw_layers(frame, case, layout, scene.census, scene.collagen.slant), seed, frame)
    tumour = layout.raster(layout.tumour, y, x)
    fat = layout.raster(layout.fat, y, x)
    fine = field(seed, "fine", y, x, 1.3)
    grain = field(seed, "grain", y, x, 3.2)
    patch = field(seed, "patch", y, x, 120.0)
    inside = _smoothstep(section + 1.5 * grain, -2.0, 2.5)
    collagen = sample(scene.collagen, seed, y, x, tumour)
    # Retraction: stroma next to a nest is torn off here and there.
    cleft = np.exp(-(((tumour + 3.5) / 2.2) ** 2)) * _smoothstep(patch + 0.4 * grain, 0.5, 1.2)
    adipose = _smoothstep(fat, -4, 4)
    tissue = inside * (1 - layers.vacuole * np.float32(1 / 255))
    cover = np.minimum(layers.cytoplasm * np.float32(1 / 128), 1)
    stroma = collagen * (1 - 0.9 * cleft) * (1 - cover) * (1 - 0.35 * adipose)
    tint = layers.cytoplasm * np.float32(1 / 255)
    nuclei = layers.nuclei * np.float32(1 / DENSITY_UNIT)
    chromatin = 1 + 0.17 * grain + 0.14 * fine
    body = cover * (0.5 + 0.5 * tint) * (1 + 0.1 * grain + 0.07 * fine)
    eosin = (1.0 + 0.08 * patch) * stroma * (1 + 0.09 * fine + 0.09 * grain) + 0.36 * body
    eosin += layers.borders * np.float32(0.15 / 255)
    eosin *= 1 - 0.25 * np.minimum(nuclei, 1)
    haem = nuclei * chromatin + 0.15 * body + 0.06 * stroma
    following = layers.nuclei_next * np.float32(1 / DENSITY_UNIT)
    weave = stroma * (1 + 0.08 * fine + 0.1 * grain)
    blue = following * chromatin + 0.19 * body + 0.21 * weave
    membrane = layers.membrane * np.float32(1 / DENSITY_UNIT)
    # Strong stain blurs into the cytoplasm; a trace of DAB is everywhere.
    blush = soften(membrane, 1.6 / frame.pixel_um)
    dab = membrane * (1 + 0.12 * grain + 0.12 * fine) + 0.42 * blush + 0.05 * body + 0.075 * weave
    return (haem * tissue, eosin * tissue), (blue * tissue, np.maximum(dab, 0) * tissue)
