"""How often the 95 % intervals of agreement hold the agreement of the population that the cases come from.

Three simulated readers take a level of five for each case: the true one in 60 of 100 cases, else one beside
it. The agreement of the population is that of 400,000 such cases.
"""

from __future__ import annotations

import time

import numpy as np

from napari_her2.reading.coefficients import (
    alpha_of,
    coincidence_tables,
    estimate,
    fleiss_of,
    fleiss_tables,
    kappa_of,
    pair_tables,
)

LEVELS, READERS = 5, 3
SHARES = (0.25, 0.2, 0.25, 0.15, 0.15)
STUDIES, RESAMPLES = 300, 1000


def read_cases(random: np.random.Generator, cases: int) -> np.ndarray:
    true = random.choice(LEVELS, cases, p=SHARES)
    apart = random.choice([-1, 0, 1], (READERS, cases), p=[0.2, 0.6, 0.2])
    return np.clip(true + apart, 0, LEVELS - 1)


def tables_of(read: np.ndarray) -> dict[str, tuple]:
    return {
        "quadratic weighted kappa": (pair_tables(read[0], read[1], LEVELS), kappa_of),
        "Fleiss' kappa": (fleiss_tables(read, LEVELS), fleiss_of),
        "Krippendorff's alpha": (coincidence_tables(read, LEVELS), alpha_of),
    }


def main() -> None:
    random = np.random.default_rng(0)
    everybody = tables_of(read_cases(random, 400_000))
    truth = {name: float(of(tables.sum(axis=0))) for name, (tables, of) in everybody.items()}
    print(", ".join(f"{name} {value:.3f}" for name, value in truth.items()))
    for cases in (10, 20, 40, 100):
        held = dict.fromkeys(truth, 0)
        for seed in range(STUDIES):
            for name, (tables, of) in tables_of(read_cases(random, cases)).items():
                found = estimate(tables, of, seed=seed, resamples=RESAMPLES, least_cases=2)
                held[name] += found.low <= truth[name] <= found.high
        words = ", ".join(f"{name} {100 * count / STUDIES:.0f} %" for name, count in held.items())
        print(f"{cases} cases: held by {words}")
    tables, of = tables_of(read_cases(random, 1000))["Krippendorff's alpha"]
    began = time.process_time()
    estimate(tables, of)
    print(f"alpha of 1,000 cases with its interval: {time.process_time() - began:.2f} s of processor")


if __name__ == "__main__":
    main()
