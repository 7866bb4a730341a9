"""The report of all contestants: figures are scikit-learn's, differences are paired and corrected, groups are counted."""

from __future__ import annotations

import csv
import json
import logging
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from orchestration import catalog
from ray_jobs import compare_predictions
from ray_jobs.config import JobConfig, JobError
from ray_jobs.prediction import comparison, groups, predictions
from ray_jobs.runtime import Job
from tests.test_prediction import enter, known

START = datetime(2150, 1, 1)
N = 240


def labels(n: int = N) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "hospital": [("north", "south")[i % 2] for i in range(n)],
            "patient_id": [f"p{i // 2}" for i in range(n)],
            "prediction_at": [START + timedelta(days=4 * i) for i in range(n)],
            "label": (rng.random(n) < 0.4).astype(int),
        }
    )


def scores(frame: pl.DataFrame, skill: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=frame.height)
    return 1 / (1 + np.exp(-(noise + skill * (frame["label"].to_numpy() - 0.5))))


def publish(root, asset: str, told: dict, tuning: dict | None = None) -> None:
    """told: (contestant, task, part) to a frame of `predictions.told`; tuning: (contestant, task) to an AUROC."""
    folder = root / f"made-{asset}"
    for (contestant, task, part), frame in told.items():
        predictions.write(folder, contestant, task, part, frame)
    for (contestant, task), auroc in (tuning or {}).items():
        predictions.write_tuning(folder, contestant, task, auroc)
    (folder / "metrics.json").write_text("{}")
    catalog.publish(
        str(root), asset, [catalog.Candidate(f"evaluation/{asset}", folder, asset * 40, table=False)]
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root, frame = tmp_path_factory.mktemp("data"), labels()
    base, few, north = scores(frame, 1.0, 1), frame[:20], frame.filter(pl.col("hospital") == "north")
    none = frame.with_columns(pl.lit(0).alias("label"))
    shots = [
        predictions.told(frame, scores(frame, 0.3 * k, k), shots=k, replicate=r)
        for k in (1, 8)
        for r in (0, 1)
    ]
    publish(
        root,
        "a",
        {
            ("rich_counts_lightgbm", "stay", "all"): predictions.told(frame, base),
            ("rich_counts_lightgbm", "groups/CIR019", "all"): predictions.told(few, base[:20]),
            ("rich_counts_lightgbm", "never", "all"): predictions.told(none, base),
            ("rich_counts_lightgbm", "never", "few_shot"): predictions.told(none, base, shots=1, replicate=0),
            ("rich_counts_lightgbm", "stay", "left_out"): predictions.told(frame, scores(frame, 0.2, 9)),
            ("weak_head", "stay", "all"): predictions.told(frame, scores(frame, 0.8, 7)),
            ("weak_head", "stay", "left_out"): predictions.told(north, scores(north, 0.2, 8)),
        },
        {("rich_counts_lightgbm", "stay"): 0.6, ("weak_head", "stay"): 0.7},
    )
    publish(
        root,
        "b",
        {
            ("better", "stay", "all"): predictions.told(frame, scores(frame, 6.0, 2)),
            ("better", "stay", "few_shot"): pl.concat(shots),
            ("better", "groups/CIR019", "all"): predictions.told(few, base[:20]),
            ("better", "never", "all"): predictions.told(none, base),
            ("other_rows", "groups/CIR019", "all"): predictions.told(frame, base),
            ("some_rows", "stay", "all"): predictions.told(frame[:100], base[:100]),
        },
    )
    enter(root, "evaluation/silent", frame)
    people = frame.select("hospital", "patient_id").unique()
    enter(root, "splits", known(people.with_columns(pl.lit("held_out").alias("split"))))
    admission = {"kind": "admission", "value": 70.0, "text": "admission: urgent, female"}
    early = people.with_columns(
        pl.lit(START).alias("available_at"), *(pl.lit(v).alias(k) for k, v in admission.items())
    )
    late = early.with_columns(
        pl.lit(START + timedelta(days=4000)).alias("available_at"), pl.lit(20.0).alias("value")
    )
    enter(root, "harmonised/events", pl.concat([early, late]))
    return root


def run(root, tmp_path, **params):
    inputs = {"splits": "made", "harmonised/events": "made"}
    accepted = catalog.load(str(root))
    inputs |= {key: accepted.version(key) for key in ("evaluation/a", "evaluation/b", "evaluation/silent")}
    settings = JobConfig(
        "compare_predictions",
        "run",
        str(root),
        "f" * 64,
        inputs,
        ["evaluation/comparison"],
        {"baseline": "rich_counts_lightgbm", **params},
    )
    compare_predictions.run(Job(settings, tmp_path, logging.getLogger("test"), None))
    return root / "evaluation/comparison" / catalog.load(str(root)).version("evaluation/comparison")


def test_the_report_says_who_beats_the_baseline_and_what_cannot_be_said(root, tmp_path):
    folder = run(root, tmp_path)
    told = (folder / "report.md").read_text()
    assert "- stay: better beats rich_counts_lightgbm (AUROC 0." in told and "corrected p < 0.001" in told
    assert "no challenger beats rich_counts_lightgbm" in told and "Only 20 rows, 7 positive." in told
    assert "- never: the held-out split has one class, so nothing is compared." in told
    assert "other_rows tells 240 other rows and is not compared." in told
    assert "Each hospital by a model of the other hospitals:" in told and "n < 30" in told
    assert "| weak_head (not told: south) | 0." in told and "| rich_counts_lightgbm | 0." in told
    assert "A hospital is not told where the train split of the others has one class." in told
    curves, shown = (folder / "curves.md").read_text(), (folder / "groups.md").read_text()
    assert curves.count("data:image/png;base64") == 2  # tasks without groups of their own
    assert (
        f"| sex: female | {N} |" in shown
        and f"| age: 65 to 79 | {N} |" in shown
        and "| year: 2150 | 92 |" in shown
    )
    assert "| hospital: north | 120 |" in shown and "under 40" not in shown
    metrics = json.loads((folder / "metrics.json").read_text())
    some = metrics["stay"]["contestants"]["some_rows"]  # the baseline's own words on its first rows
    assert (
        some["auroc"]["questions"] == 100
        and some["auroc_minus_baseline"]["value"] == 0
        and some["corrected_p"] == 1
    )
    assert "| some_rows (n = 100) |" in told
    assert metrics["stay"]["contestants"]["better"]["auroc_minus_baseline"]["value"] > 0.1
    said = catalog.load(str(root)).entry("evaluation/comparison")["metadata"]
    assert said["tasks_in_which_the_baseline_is_beaten"] == 1
    assert said["assets_without_predictions"] == "evaluation/silent"
    with open(folder / "leaderboard.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "labeling_function",
        "sub_task",
        "model",
        "head",
        "replicate",
        "k",
        "score",
        "value",
    ]
    assert {r["head"] for r in rows if r["model"] == "rich_counts"} == {"gbm"}
    assert {(r["k"], r["replicate"]) for r in rows if r["model"] == "better" and r["sub_task"] == "stay"} == {
        ("-1", "0"), ("1", "0"), ("1", "1"), ("8", "0"), ("8", "1"),
    }  # fmt: skip


def test_every_figure_is_scikit_learns():
    frame = labels()
    told = predictions.told(frame, scores(frame, 1.0, 1)).with_columns(
        pl.lit(v).alias(k) for k, v in {"contestant": "base", "task": "t", "part": "all"}.items()
    )
    one = comparison.compare(told, ["base"])["t"]
    truth, chance = one.labels, one.scores["base"]
    where, freq = calibration_curve(truth, chance, n_bins=10, strategy="uniform")[::-1]
    share = np.bincount((chance * 10).astype(int), minlength=10)
    expected = {
        "auroc": roc_auc_score(truth, chance),
        "auprc": average_precision_score(truth, chance),
        "brier": brier_score_loss(truth, chance),
        "calibration_error": float(np.abs(where - freq) @ share[share > 0] / len(truth)),
    }
    assert {name: one.figures["base"][name].value for name in expected} == pytest.approx(expected)
    assert comparison.points(truth, chance) == pytest.approx(
        [expected[n] for n in ("auroc", "auprc", "brier")]
    )
    half = np.arange(N) % 2 == 0
    assert groups.auroc(one, "base", half).value == pytest.approx(roc_auc_score(truth[half], chance[half]))


def test_the_sentences_are_about_the_challengers(root, tmp_path):
    told = (run(root, tmp_path, challengers=["some_*"]) / "report.md").read_text()
    assert (
        "- stay: no challenger beats rich_counts_lightgbm" in told
        and "the nearest is some_rows, +0.000" in told
    )
    assert "- groups/CIR019: no challenger tells it on the same rows, so nothing is compared." in told


def test_the_baseline_of_a_task_is_the_better_on_tuning_and_never_on_held_out(root, tmp_path):
    folder = run(root, tmp_path, baseline=["rich_counts_lightgbm", "weak_head"], challengers=["better"])
    metrics, told = json.loads((folder / "metrics.json").read_text()), (folder / "report.md").read_text()
    auroc = {name: f["auroc"]["value"] for name, f in metrics["stay"]["contestants"].items()}
    assert metrics["stay"]["baseline"] == "weak_head" and auroc["weak_head"] < auroc["rich_counts_lightgbm"]
    assert metrics["never"]["baseline"] == "rich_counts_lightgbm"  # that alone tells it
    assert "- stay: better beats weak_head" in told and "| weak_head, the baseline |" in told
    assert "task by task that of rich_counts_lightgbm, weak_head with the highest AUROC on tuning" in told


def test_who_is_a_patient_of_two_hospitals_is_drawn_once():
    frame = labels()
    told = predictions.told(frame, scores(frame, 1.0, 1)).with_columns(
        contestant=pl.lit("base"), task=pl.lit("t"), part=pl.lit("all")
    )
    twins = frame.select("hospital", "patient_id").unique()
    numbers = [predictions.subject_id(*who) for who in twins.iter_rows()]
    persons = twins.select(pl.Series("subject_id", numbers), person="patient_id")
    apart, once = (comparison.compare(told, ["base"], None, p)["t"] for p in (None, persons))
    assert (apart.bootstrap.n_patients, once.bootstrap.n_patients) == (N, N // 2)
    same = [one.figures["base"]["auroc"].value for one in (apart, once)]
    assert same[0] == same[1]
    mask = np.ones(N, bool)
    assert groups.auroc(once, "base", mask).patients == N // 2


def test_an_unknown_baseline_is_one_line(root, tmp_path):
    with pytest.raises(
        JobError,
        match=r"params\.baseline: nobody; write one of better, other_rows, rich_counts_lightgbm, some_rows, weak_head",
    ):
        run(root, tmp_path, baseline="nobody")


def test_a_difference_among_few_patients_is_not_tested():
    frame = labels(80).with_columns(
        label=pl.when(pl.col("patient_id").is_in(["p0", "p1"])).then(1).otherwise(0)
    )
    told = pl.concat(
        predictions.told(frame, scores(frame, skill, 1)).with_columns(
            contestant=pl.lit(name), task=pl.lit("rare"), part=pl.lit("all")
        )
        for name, skill in {"base": 0.0, "better": 9.0}.items()
    )
    one = comparison.compare(told, ["base"])["rare"]
    assert one.minus["better"].value > 0 and np.isnan(one.p.get("better", np.nan))
    assert comparison.sentence("rare", one).startswith("rare: too few held-out patients of one class (4)")
