"""One training step of WSMCL, its contrastive loss without and with a loop, and the memory of a large case.

A step is forward, loss and backward of one case on random features. The loop form of the loss is the
published one, written here from its description: for each positive, four cross-entropies over it and all
negatives. The measurements of a round follow each other, rounds are repeated, medians are shown with their
range; both forms must agree before anything is timed. Memory is the peak of a process of its own.

    python benchmarks/wsmcl_step.py                      # 2 x 10,000 tiles; 50,000 + 50,000 for memory
    python benchmarks/wsmcl_step.py --patches 2000 --memory-patches 5000 --rounds 3
    python benchmarks/wsmcl_step.py --device cuda
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_her2.models.wsmcl import WSMCL
from napari_her2_training.wsmcl.losses import contrastive_loss, wsmcl_loss

PEAKS_IN_A_MIB = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss: bytes on macOS, KiB elsewhere
WIDTH = 512
AGREEMENT = 5e-7
REPEATS = 11  # of a loss within a round, its median counts
Timed = Callable[[], None]


def loop_loss(
    he_top: Tensor, he_bottom: Tensor, ihc_top: Tensor, ihc_bottom: Tensor, scale: Tensor
) -> Tensor:
    """MACL in loops: a cross-entropy for each positive, group and direction."""
    k = len(he_top)
    he = F.normalize(torch.cat([he_top, he_bottom]), dim=-1)
    ihc = F.normalize(torch.cat([ihc_top, ihc_bottom]), dim=-1)
    target = torch.zeros(k, dtype=torch.long, device=he.device)
    total = he.new_zeros(())
    of_he = scale.exp() * (he @ ihc.T)
    for similarity in (of_he, of_he.T):
        for positive in range(k):
            top = torch.cat([similarity[:k, positive : positive + 1], similarity[:k, k:]], dim=1)
            bottom = torch.cat([similarity[k:, k + positive : k + positive + 1], similarity[k:, :k]], dim=1)
            total = total + F.cross_entropy(top, target) + F.cross_entropy(bottom, target)
    return total / (4 * k)


def tiles(k: int, device: str) -> list[Tensor]:
    """Return the tiles to compare, behind a LayerNorm as in the model, with gradients wanted."""
    return [
        F.layer_norm(torch.randn(k, WIDTH, device=device), (WIDTH,)).requires_grad_(True) for _ in range(4)
    ]


def prepare(patches: int, k: int, device: str) -> tuple[dict[str, Timed], float]:
    """Return what is timed, and the relative difference of the two forms of the loss."""
    torch.manual_seed(0)
    model = WSMCL(k=k).to(device)
    he, ihc = (torch.randn(patches, WIDTH, device=device) for _ in range(2))
    label = torch.tensor(2, device=device)
    compared = tiles(k, device)
    log_scale = torch.tensor(math.log(1 / 0.07), device=device, requires_grad=True)
    exactly = [tensor.detach().double() for tensor in (*compared, log_scale)]
    vectorised, looped = (form(*exactly).item() for form in (contrastive_loss, loop_loss))

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        wsmcl_loss(model(he, ihc), label, model.log_scale).total.backward()
        finish()

    def loss(form: Callable[..., Tensor]) -> Timed:
        def work() -> None:
            for leaf in (*compared, log_scale):
                leaf.grad = None
            form(*compared, log_scale).backward()
            finish()

        return work

    timed = {"step": step, "loss": loss(contrastive_loss), "loop": loss(loop_loss)}
    return timed, abs(vectorised - looped) / looped


def measure(timed: dict[str, Timed], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds by the clock and of CPU time in each round, after one that does not count."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
    for number in range(rounds + 1):
        for name, work in timed.items():
            took = [time_once(work) for _ in range(1 if name == "step" else REPEATS)]
            if number:
                found[name].append(
                    (statistics.median(t for t, _ in took), statistics.median(t for _, t in took))
                )
    return found


def time_once(work: Timed) -> tuple[float, float]:
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.perf_counter() - clock), 1000 * (time.process_time() - cpu)


def peak_mib(patches: int) -> float:
    """Peak memory of a process that scores a case of two slides of so many tiles on the CPU."""
    command = [sys.executable, __file__, "--only-memory", str(patches)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def score_once(patches: int) -> None:
    if patches:
        model = WSMCL().eval()
        with torch.inference_mode():
            output = model(torch.randn(patches, WIDTH), torch.randn(patches, WIDTH))
        if not bool(torch.isfinite(output.logits).all()):
            raise SystemExit("The case got no score.")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PEAKS_IN_A_MIB)


def row(name: str, values: list[tuple[float, float]]) -> str:
    cells = []
    for column in zip(*values, strict=True):
        cells += [f"{statistics.median(column):.1f}", f"{min(column):.1f}–{max(column):.1f}"]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=10_000, help="tiles of each slide in the step")
    parser.add_argument(
        "--memory-patches", type=int, default=50_000, help="tiles of each slide; 0: leave out"
    )
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only-memory", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only_memory is not None:
        score_once(arguments.only_memory)
        return
    # Memory first: a process starts its count of peak memory from that of its parent.
    large = arguments.memory_patches
    idle, peak = (peak_mib(0), peak_mib(large)) if large else (0.0, 0.0)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    timed, difference = prepare(arguments.patches, arguments.k, arguments.device)
    if difference > AGREEMENT:
        raise SystemExit(f"The two forms of the loss differ by {difference:.1e}: nothing was timed.")
    found = measure(timed, arguments.rounds)
    ratios = [
        (loop / fast, loop_cpu / fast_cpu)
        for (loop, loop_cpu), (fast, fast_cpu) in zip(found["loop"], found["loss"], strict=True)
    ]
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{platform.machine()} CPU"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(
        f"{where}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{load}, PyTorch "
        f"{torch.__version__}, {arguments.rounds} rounds, float32\n"
    )
    print("| forward and backward | median, ms | range | CPU, ms | range |")
    print("|---|---|---|---|---|")
    print(row(f"training step, 2 x {arguments.patches:,} tiles", found["step"]))
    print(row(f"contrastive loss, k = {arguments.k}", found["loss"]))
    print(row("contrastive loss in loops", found["loop"]))
    print(row("loops against none, times", ratios))
    if large:
        print(f"| memory of a case of 2 x {large:,} tiles on the CPU, GiB | {peak / 1024:.2f} | | | |")
        print(f"| of it the libraries, GiB | {idle / 1024:.2f} | | | |")
    print(f"\nThe two forms of the loss differ by {difference:.1e} of it, in float64.")


if __name__ == "__main__":
    main()
