"""A slide file to embeddings, with the same encoder and the same patches: this project against others.

Every measurement runs in a process of its own, rounds are interleaved, medians are shown. "processor" counts
the seconds of the process and of its workers. The last column is the share of what the same cores do in
products of matrices (torch.mm, 2,048 x 2,048, in the precision that was used).

    python benchmarks/encoders.py --encoders timm:resnet18 --patches 300
    python benchmarks/encoders.py --tiatoolbox tia/bin/python --lazyslide lazy/bin/python

``--tiatoolbox`` and ``--lazyslide`` name a Python that has them, with torch and timm. The others compute in
float32, as they do unless told otherwise; with ``--peers-bfloat16`` under autocast.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch

    Work = Callable[[int], str]
    """Embeds so many patches; gives what it computed in."""

SIDE_PX = 224
MPP = 0.5
ENCODERS = ("timm:resnet18", "timm:resnet50", "timm:vit_small_patch16_224")
GFLOP = {"timm:resnet18": 3.64, "timm:resnet50": 8.22, "timm:vit_small_patch16_224": 9.2}
"""Of one patch of 224 px, a multiplication and an addition counted as two."""


def spent() -> float:
    """Processor seconds of this process and of the workers that ended."""
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime


def network(name: str) -> torch.nn.Module:
    import timm
    import torch

    torch.manual_seed(0)
    made: torch.nn.Module = timm.create_model(name.removeprefix("timm:"), num_classes=0)
    return made.eval()


def placed(options: argparse.Namespace) -> list[tuple[int, int]]:
    """Level-0 (y, x) of the patches."""
    found: list[tuple[int, int]] = json.loads(Path(options.places).read_text(encoding="utf-8"))
    return found


def ours(options: argparse.Namespace) -> Work:
    import numpy as np

    from napari_her2 import open_slide
    from napari_her2.inference.device import choose_device
    from napari_her2.inference.embed import embed_steps
    from napari_her2.models.encoders import build_encoder
    from napari_her2.steps import finished

    encoder, device = build_encoder(options.encoder), choose_device("cpu")
    encoder.backbone.load_state_dict(network(options.encoder).state_dict())

    def work(count: int) -> str:
        with open_slide(options.slide) as slide:
            grid = slide.tile_grid(SIDE_PX, MPP)
            keep = np.zeros(grid.shape, np.bool_)
            side = grid.tile_px0
            for y, x in placed(options)[:count]:
                keep[round(y / side[0]), round(x / side[1])] = True
            found = finished(embed_steps(slide, encoder, grid, keep, device, cache=False))
        assert len(found.features) == count
        return f"{found.precision} {found.graph}".strip()

    return work


def in_batches(network: torch.nn.Module, batches: Iterable[torch.Tensor], *, bfloat16: bool) -> int:
    """Embed batches of normalised (B, 3, t, t) float as a plain script would."""
    import torch

    count = 0
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        for batch in batches:
            count += len(network(batch).float().numpy())
    return count


def under_autocast(network: torch.nn.Module) -> torch.nn.Module:
    """Compute a network in bfloat16 as `in_batches` does, with features in float32: NumPy has no bfloat16."""
    import torch

    class Autocast(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                features: torch.Tensor = self.network(images)
            return features.float()

    return Autocast().eval()


def plain(options: argparse.Namespace) -> Work:
    import openslide
    import torch
    from torchvision import transforms

    class Patches(torch.utils.data.Dataset[Any]):
        def __init__(self, places: list[tuple[int, int]]) -> None:
            self.places = places
            self.slide: openslide.OpenSlide | None = None
            self.change = transforms.Compose(
                [
                    transforms.Resize(SIDE_PX),
                    transforms.ToTensor(),
                    transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
                ]
            )

        def __len__(self) -> int:
            return len(self.places)

        def __getitem__(self, number: int) -> torch.Tensor:
            if self.slide is None:
                self.slide = openslide.OpenSlide(options.slide)
            y, x = self.places[number]
            side = round(SIDE_PX * MPP / options.slide_mpp)
            found: torch.Tensor = self.change(self.slide.read_region((x, y), 0, (side, side)).convert("RGB"))
            return found

    made = network(options.encoder)

    def work(count: int) -> str:
        loader = torch.utils.data.DataLoader(Patches(placed(options)[:count]), batch_size=32, num_workers=2)
        assert in_batches(made, loader, bfloat16=options.bfloat16) == count
        return "bfloat16" if options.bfloat16 else "float32"

    return work


def tiatoolbox(options: argparse.Namespace) -> Work:
    import numpy as np
    import torch
    from tiatoolbox.tools.patchextraction import PointsPatchExtractor  # type: ignore[import-not-found,unused-ignore]
    from tiatoolbox.wsicore.wsireader import WSIReader  # type: ignore[import-not-found,unused-ignore]
    from torchvision import transforms

    made = network(options.encoder)
    change = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )

    class Patches(torch.utils.data.Dataset[Any]):
        def __init__(self, count: int) -> None:
            half = round(SIDE_PX * MPP / options.slide_mpp) // 2
            self.points = np.array([(x + half, y + half) for y, x in placed(options)[:count]])
            self.extractor: Any = None

        def __len__(self) -> int:
            return len(self.points)

        def __getitem__(self, number: int) -> torch.Tensor:
            if self.extractor is None:
                self.extractor = PointsPatchExtractor(
                    WSIReader.open(options.slide),
                    self.points,
                    (SIDE_PX, SIDE_PX),
                    resolution=MPP,
                    units="mpp",
                )
            found: torch.Tensor = change(np.ascontiguousarray(self.extractor[number]))
            return found

    def work(count: int) -> str:
        loader = torch.utils.data.DataLoader(Patches(count), batch_size=32, num_workers=2)
        assert in_batches(made, loader, bfloat16=options.bfloat16) == count
        return "bfloat16" if options.bfloat16 else "float32"

    return work


def lazyslide(options: argparse.Namespace) -> Work:
    import lazyslide as zs  # type: ignore[import-not-found,unused-ignore]
    import numpy as np
    from torchvision import transforms
    from wsidata import TileSpec, open_wsi  # type: ignore[import-not-found,unused-ignore]
    from wsidata.io import add_tiles  # type: ignore[import-not-found,unused-ignore]

    made = network(options.encoder)
    if options.bfloat16:  # its own option hands features in bfloat16 to NumPy, and fails
        made = under_autocast(made)
    change = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )

    def work(count: int) -> str:
        slide = open_wsi(options.slide, store=None)
        spec = TileSpec.from_wsidata(slide, SIDE_PX, mpp=MPP, slide_mpp=options.slide_mpp)
        corners = np.array([(x, y) for y, x in placed(options)[:count]])
        add_tiles(slide, "tiles", corners, spec, np.zeros(count, np.int64))
        features = zs.tl.feature_extraction(
            slide,
            made,
            model_name="encoder",
            transform=change,
            device="cpu",
            num_workers=2,
            pbar=False,
            return_features=True,
        )
        assert len(features) == count
        return "bfloat16" if options.bfloat16 else "float32"

    return work


WAYS = {
    "napari-her2": ours,
    "DataLoader, openslide": plain,
    "TIAToolbox": tiatoolbox,
    "LazySlide": lazyslide,
}
VERSION_OF = {
    "napari-her2": "napari-her2",
    "DataLoader, openslide": "openslide-python",
    "TIAToolbox": "tiatoolbox",
    "LazySlide": "lazyslide",
}


def peak(*, bfloat16: bool) -> float:
    """Products of matrices, GFLOP a processor second."""
    import torch

    kind = torch.bfloat16 if bfloat16 else torch.float32
    first, second = (torch.randn(2048, 2048).to(kind) for _ in range(2))
    torch.mm(first, second)
    start = spent()
    for _ in range(8):
        torch.mm(first, second)
    return 8 * 2 * 2048**3 / 1e9 / (spent() - start)


def measure(options: argparse.Namespace) -> None:
    """Measure one way in this process, after two patches that nobody counts."""
    from importlib.metadata import version

    import torch

    work = WAYS[options.measure](options)
    work(2)
    cpu, wall = spent(), time.perf_counter()
    how = work(options.patches)
    found: dict[str, Any] = {"cpu": spent() - cpu, "wall": time.perf_counter() - wall, "how": how}
    found["peak"] = peak(bfloat16="bfloat16" in how)
    found["versions"] = f"{version(VERSION_OF[options.measure])}, torch {torch.__version__}"
    print(json.dumps(found))


def in_its_own_process(python: str, way: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [python, __file__, "--measure", way, "--slide", str(options.slide), "--places", options.places]
    command += ["--encoder", options.encoder, "--patches", str(options.patches)]
    command += ["--slide-mpp", str(options.slide_mpp)]
    command += ["--bfloat16"] if options.peers_bfloat16 else []
    environment = dict(os.environ)
    if python != sys.executable:
        environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def prepare(options: argparse.Namespace, folder: str) -> None:
    """Choose the patches: as many tiles of a grid as are asked for, in the midst of the tissue."""
    import numpy as np

    from napari_her2 import open_slide

    with open_slide(options.slide) as slide:
        grid = slide.tile_grid(SIDE_PX, MPP)
        index = np.argwhere(slide.tissue().keep(grid))
        options.slide_mpp = slide.mpp[0] if slide.mpp else MPP
    start = max(0, (len(index) - options.patches) // 2)
    index = index[start : start + options.patches]
    options.patches = len(index)
    places = [(round(row * grid.tile_px0[0]), round(col * grid.tile_px0[1])) for row, col in index.tolist()]
    options.places = str(Path(folder) / "places.json")
    Path(options.places).write_text(json.dumps(places), encoding="utf-8")


def compare(options: argparse.Namespace, ways: dict[str, str]) -> None:
    """Print the table of one encoder."""
    rounds = [
        {way: in_its_own_process(python, way, options) for way, python in ways.items()}
        for _ in range(options.rounds)
    ]
    print(
        f"\n{options.encoder}, {options.patches} patches of {SIDE_PX} px at {MPP} µm/px, {options.rounds} "
        f"rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n"
    )
    print("| way | versions | computed in | processor ms a patch | wall ms a patch | times ours | of peak |")
    print("|---|---|---|---|---|---|---|")
    base = statistics.median(found["napari-her2"]["cpu"] for found in rounds)
    for way in ways:
        cpu, wall, most = (statistics.median(f[way][key] for f in rounds) for key in ("cpu", "wall", "peak"))
        share = GFLOP.get(options.encoder, float("nan")) * options.patches / cpu / most
        print(
            f"| {way} | {rounds[0][way]['versions']} | {rounds[0][way]['how']} | "
            f"{1e3 * cpu / options.patches:.1f} | {1e3 * wall / options.patches:.1f} | {cpu / base:.2f} | "
            f"{share:.0%} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", type=Path, help="by default a phantom of 12,288 px")
    parser.add_argument("--encoders", nargs="+", default=ENCODERS)
    parser.add_argument("--patches", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiatoolbox", metavar="PYTHON", help="that has TIAToolbox, torch and timm")
    parser.add_argument("--lazyslide", metavar="PYTHON", help="that has LazySlide, torch and timm")
    parser.add_argument("--peers-bfloat16", action="store_true", help="the others under autocast too")
    for hidden in ("--measure", "--places", "--encoder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--slide-mpp", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--bfloat16", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options)
        return
    if options.slide is None:
        from score_slide import phantom_slide

        options.slide = phantom_slide(12_288)
    ways = {"napari-her2": sys.executable, "DataLoader, openslide": sys.executable}
    if options.tiatoolbox:
        ways["TIAToolbox"] = options.tiatoolbox
    if options.lazyslide:
        ways["LazySlide"] = options.lazyslide
    with tempfile.TemporaryDirectory() as folder:
        prepare(options, folder)
        for name in options.encoders:
            options.encoder = name
            compare(options, ways)


if __name__ == "__main__":
    main()
