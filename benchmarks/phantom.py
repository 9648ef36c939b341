"""Prints how fast phantom slides are written: megapixels a second, and peak memory.

    python benchmarks/phantom.py [--size 8192] [--mpp 0.5] [--score 3+]

A case is two slides; the figure a slide counts the pixels of one of them over the time for both,
tissue layout, JPEG, pyramid and truth included.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time

from napari_her2.phantom import SCORES, make_pair


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=8192, help="pixels a side")
    parser.add_argument("--mpp", type=float, default=0.5)
    parser.add_argument("--score", choices=SCORES, default="3+")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default=None, help="keep the slides in this folder")
    arguments = parser.parse_args()
    idle_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        pair = make_pair(
            arguments.out or folder,
            "bench",
            score=arguments.score,
            seed=arguments.seed,
            size_px=arguments.size,
            mpp=arguments.mpp,
        )
        seconds = time.perf_counter() - start
        written_mb = (pair.he.stat().st_size + pair.ihc.stat().st_size) / 1e6
    megapixels = arguments.size**2 / 1e6
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"pair of {arguments.size} x {arguments.size} px at {arguments.mpp} µm/px, {os.cpu_count()} cores")
    print(f"  {seconds:.1f} s, {megapixels / seconds:.1f} Mpx/s a slide")
    print(f"  {written_mb:.1f} MB written, peak {(peak_kb - idle_kb) / 1024:.0f} MiB above the imports")


if __name__ == "__main__":
    main()
