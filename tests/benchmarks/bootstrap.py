"""1,000 patient bootstraps of AUROC: sorted once, against resampling in a loop with scikit-learn; equal output first.

python -m tests.benchmarks.bootstrap        # 58,155 labels of 2,002 patients, as EHRSHOT's largest test set has
"""

import argparse
import json
import time
from collections.abc import Iterator

import numpy as np
from sklearn.metrics import roc_auc_score

from ray_jobs.statistics import PatientBootstrap, Ranking


def resampled(bootstrap: PatientBootstrap) -> Iterator[np.ndarray]:
    """Row numbers of each draw: all rows of a patient, as often as the patient was drawn."""
    for times in bootstrap.times_drawn:
        yield np.repeat(np.arange(len(bootstrap.patient)), times[bootstrap.patient])


def measure(labels: int, patients: int, draws: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    patient = np.sort(rng.integers(0, patients, labels))
    truth = rng.random(labels) < 0.3
    scores = np.round(rng.normal(size=labels) + 0.8 * truth, 3)
    bootstrap = PatientBootstrap(patient, draws)
    started = time.perf_counter()
    ours = Ranking(truth, scores, bootstrap.patient).figures(bootstrap.times_drawn, ["auroc"])["auroc"]
    ours_s = time.perf_counter() - started
    started = time.perf_counter()
    loop = np.array([roc_auc_score(truth[rows], scores[rows]) for rows in resampled(bootstrap)])
    loop_s = time.perf_counter() - started
    worst = float(np.abs(ours - loop).max())
    if worst > 1e-12:
        raise SystemExit(f"the bootstraps differ by {worst}")
    return {
        "labels": labels,
        "patients": patients,
        "draws": draws,
        "ours_s": round(ours_s, 3),
        "sklearn_loop_s": round(loop_s, 3),
        "ratio_vs_sklearn_loop": round(loop_s / ours_s, 1),
        "worst_difference": worst,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=int, default=58_155)
    parser.add_argument("--patients", type=int, default=2002)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    print(json.dumps(measure(options.labels, options.patients, options.draws)))


if __name__ == "__main__":
    main()
