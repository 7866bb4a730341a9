"""The vectorised patient bootstrap against one written as a plain loop, and what an interval must do."""

import numpy as np
import pytest

from ray_jobs.statistics import PatientBootstrap, bounds, mean_difference


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
