"""The vectorised patient bootstrap against one written as a plain loop, and what an interval must do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, precision_recall_curve, roc_auc_score

from ray_jobs.statistics import (
    Interval,
    PatientBootstrap,
    Ranking,
    bounds,
    classify,
    holm,
    mean_difference,
    p_value,
    rarer_class,
)
from tests.benchmarks import bootstrap as benchmark


def sample(patients=40, seed=1):
    rng = np.random.default_rng(seed)
    per_patient = rng.integers(1, 8, patients)
    patient = np.repeat([f"p{i}" for i in range(patients)], per_patient)
    values = (rng.random(len(patient)) < np.repeat(rng.random(patients), per_patient)).astype(float)
    return patient, values, rng


def plain_loop(patient, values, times_drawn):
    names = sorted(set(patient))
    means = []
    for drawn in times_drawn:
        picked = [
            v
            for name, times in zip(names, drawn, strict=True)
            for _ in range(times)
            for v in values[patient == name]
        ]
        means.append(np.mean(picked))
    return np.array(means)


def test_draws_equal_a_plain_loop_over_the_same_patients():
    patient, values, _ = sample()
    bootstrap = PatientBootstrap(patient, draws=50)
    assert (bootstrap.times_drawn.sum(axis=1) == 40).all()
    assert bootstrap.draws_of(values) == pytest.approx(plain_loop(patient, values, bootstrap.times_drawn))


def test_an_interval_over_some_questions_equals_one_over_only_these():
    patient, values, rng = sample()
    asked = rng.random(len(values)) < 0.5
    bootstrap = PatientBootstrap(patient, draws=50)
    found = bootstrap.interval(values, asked)
    loop = [
        np.mean(
            [
                v
                for n, t in zip(sorted(set(patient)), drawn, strict=True)
                for _ in range(t)
                for v in values[asked & (patient == n)]
            ]
        )
        for drawn in bootstrap.times_drawn
    ]
    assert (found.low, found.high) == pytest.approx(bounds(np.array(loop)))
    assert found.questions == asked.sum() and found.value == pytest.approx(values[asked].mean())


def test_patients_not_questions_are_drawn():
    """A hundred copies of each question add nothing that is new, so the interval stays as wide."""
    patient, values, _ = sample()
    once = PatientBootstrap(patient).interval(values)
    often = PatientBootstrap(np.repeat(patient, 100)).interval(np.repeat(values, 100))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_pairing_narrows_the_interval_of_a_difference():
    patient, values, rng = sample()
    better = np.where(rng.random(len(values)) < 0.1, 1.0, values)
    paired = PatientBootstrap(patient).difference(better, values)
    assert paired.low > 0 or (better == values).all()
    alone = PatientBootstrap(patient).interval(values)
    assert paired.high - paired.low < alone.high - alone.low


def test_coverage_is_near_its_name():
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(60), 4)
        values = (rng.random(240) < np.repeat(rng.beta(2, 2, 60), 4)).astype(float)
        found = PatientBootstrap(patient, draws=300, seed=seed).interval(values)
        inside += found.low <= 0.5 <= found.high
    assert 0.88 <= inside / 200 <= 0.99


def test_mean_difference_weighs_sets_equally_and_draws_a_patient_in_all_of_them():
    one = (np.array(["a", "b"] * 50), np.ones(100), np.zeros(100))
    two = (np.array(["a", "b"]), np.zeros(2), np.zeros(2))
    found = mean_difference([one, two])
    assert (found.value, found.low, found.high, found.patients) == (0.5, 0.5, 0.5, 2)


def test_nothing_asked_is_said_not_guessed():
    found = PatientBootstrap(np.array(["a"])).interval(np.array([1.0]), np.array([False]))
    assert found.as_dict() == {"value": None, "low": None, "high": None, "questions": 0, "patients": 0}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.sampled_from([2, 5, 1000]))
def test_every_figure_equals_scikit_learns_with_ties_and_weights(seed, n, levels):
    rng = np.random.default_rng(seed)
    labels, scores = rng.random(n) < 0.4, rng.integers(0, levels, n) / levels
    times = rng.integers(0, 4, n)
    if not (labels & (times > 0)).any() or not (~labels & (times > 0)).any():
        return
    found = Ranking(labels, scores, np.arange(n)).figures(times[None, :])
    assert found["auroc"][0] == pytest.approx(roc_auc_score(labels, scores, sample_weight=times), abs=1e-12)
    average = average_precision_score(labels, scores, sample_weight=times)
    assert found["auprc"][0] == pytest.approx(average, abs=1e-12)
    precision, recall, _ = precision_recall_curve(labels, scores, sample_weight=times)
    assert found["min_se_ppv"][0] == pytest.approx(np.minimum(precision, recall).max(), abs=1e-12)


def test_brier_and_calibration():
    patient, labels, rng = sample()
    scores = rng.random(len(labels))
    found, draws = classify(PatientBootstrap(patient, draws=50), labels, scores)
    assert found["brier"].value == pytest.approx(brier_score_loss(labels, scores))
    bins = np.minimum((scores * 10).astype(int), 9)
    plain = sum(abs(scores[bins == b].sum() - labels[bins == b].sum()) for b in range(10)) / len(labels)
    assert found["calibration_error"].value == pytest.approx(plain)
    assert all(f.low <= f.value <= f.high for name, f in found.items() if name != "calibration_error")
    assert all(len(d) == 50 for d in draws.values())


def test_the_bootstrap_of_auroc_equals_a_loop_over_the_same_patients():
    patient, labels, rng = sample()
    scores = rng.random(len(labels)) + 0.3 * labels
    bootstrap = PatientBootstrap(patient, draws=50)
    _, draws = classify(bootstrap, labels, scores)
    loop = [roc_auc_score(labels[i], scores[i]) for i in benchmark.resampled(bootstrap)]
    assert draws["auroc"] == pytest.approx(loop, abs=1e-12)


def test_one_class_is_reported_and_does_not_crash():
    found, draws = classify(PatientBootstrap(np.arange(5)), np.zeros(5), np.linspace(0, 1, 5))
    assert np.isnan(found["auroc"].value) and found["auroc"].as_dict()["low"] is None
    assert found["brier"].value > 0 and np.isnan(p_value(draws["auroc"], draws["auroc"]))
    assert isinstance(found["auprc"], Interval)


def test_no_rows_are_no_figures_and_do_not_crash():
    found, draws = classify(PatientBootstrap(np.array([], object), draws=9), np.zeros(0), np.zeros(0))
    assert all(np.isnan(f.value) and f.patients == 0 for f in found.values())
    assert all(np.isnan(d).all() and len(d) == 9 for d in draws.values())


def test_holm_is_that_of_the_textbook():
    """Holm 1979: 0.01, 0.02, 0.03, 0.04 of four become 0.04, 0.06, 0.06, 0.06."""
    found = holm({"a": 0.01, "d": 0.04, "c": 0.03, "b": 0.02, "none": np.nan})
    assert [found[k] for k in "abcd"] == pytest.approx([0.04, 0.06, 0.06, 0.06]) and np.isnan(found["none"])


def test_p_values_of_equal_models_and_of_unequal_ones():
    patient, labels, rng = sample(patients=120)
    scores = rng.random(len(labels))
    bootstrap = PatientBootstrap(patient)
    (_, random), (_, right) = (
        classify(bootstrap, labels, scores),
        classify(bootstrap, labels, scores + labels),
    )
    assert p_value(random["auroc"], random["auroc"]) == 1.0
    p = p_value(right["auroc"], random["auroc"])
    assert holm({"this": p} | {str(i): 1.0 for i in range(500)})["this"] < 0.05  # of hundreds of comparisons


def test_a_p_value_is_that_of_the_normal_and_near_the_share_of_draws():
    draws = np.random.default_rng(0).normal(0.03, 0.02, 100_000)
    p, zero = p_value(draws, np.zeros(len(draws))), (draws < 0).mean()
    assert p == pytest.approx(0.1336, abs=2e-3) and p == pytest.approx(2 * zero, rel=0.05)
    assert p_value(np.ones(9), np.zeros(9)) == 0.2  # the same in every draw, which is no proof
    assert p_value(np.full(999, 0.9), np.full(999, 0.7)) == 2 / 1000
    assert np.isnan(p_value(np.array([0.9, np.nan]), np.array([0.1, np.nan])))  # of one draw nothing is known


def test_the_rarer_class_is_counted_in_patients():
    patients, labels = np.array(["a", "a", "b", "c", "d"]), np.array([1, 1, 0, 0, 1])
    assert rarer_class(patients, labels) == 2 and rarer_class(patients, np.zeros(5)) == 0


def test_the_benchmark_says_its_ratio():
    figures = benchmark.measure(labels=2000, patients=100, draws=20)
    assert figures["ratio_vs_sklearn_loop"] > 1
