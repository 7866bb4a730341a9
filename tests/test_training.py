"""Training itself, on a small house: one worker and two follow one curve, a killed worker changes nothing at the end."""

import logging
import os
import random
import re
import resource
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from orchestration import catalog
from ray_jobs import train
from ray_jobs.config import JobConfig, JobError
from ray_jobs.llemr.recipe import Recipe
from ray_jobs.runtime import Job
from tests import untaught

pytestmark = pytest.mark.night  # four trainings on Ray, minutes each; `make test` trains in test_night.py

STEPS, BLIND_STEPS = 60, 40
STAGE = {"steps": STEPS, "rows": 8, "lr": 0.002, "warmup": 5, "checkpoint_every": 10}
RECIPE = {
    "name": "small",
    "hardware": "any",
    "memory_per_worker_gb": 2,
    "cpus_per_worker": 1,
    "zero_stage": 2,
    "stage1": STAGE | {"sets": ["schema_alignment"], "align_steps": 5},
    "stage2": STAGE | {"sets": ["schema_alignment", "clinical_reasoning"], "blind_steps": BLIND_STEPS},
}
INPUTS = ["harmonised/events", "instructions/schema_alignment", "instructions/clinical_reasoning"]


class Lines(logging.Handler):
    """Keeps what a job says; `act` is called with every line."""

    def __init__(self, act=lambda line: None):
        super().__init__()
        self.lines: list[str] = []
        self.act = act

    def emit(self, record):
        self.lines.append(record.getMessage())
        self.act(record.getMessage())


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    events = untaught.house(folder / "root", folder, admissions=60)
    for key, seed in (("base_model", 1), ("stage1", 2)):
        untaught.publish(folder / "root", f"weights/{key}", untaught.weights(folder / key, events, seed))
    return folder / "root"


@pytest.fixture(scope="module", autouse=True)
def cluster(root, tmp_path_factory):
    with job_for(root, tmp_path_factory.mktemp("cluster"), "cluster", Lines()).ray(num_cpus=2):
        yield


def job_for(root: Path, scratch: Path, name: str, lines: Lines, recipe: dict = RECIPE) -> Job:
    log = logging.Logger(name)
    log.addHandler(lines)
    accepted = catalog.load(str(root))
    keys = [*INPUTS, untaught.EMBEDDINGS, "weights/base_model", "weights/stage1"]
    inputs = {key: accepted.version(key) for key in keys}
    fingerprint = catalog.fingerprint(name=name)
    params = {"recipe": recipe, "stage": "stage2"}
    return Job(
        JobConfig("train", "test", str(root), fingerprint, inputs, ["weights/stage2"], params),
        scratch,
        log,
        None,
    )


def trained(root: Path, scratch: Path, name: str, stage: str = "stage2", act=lambda line: None, **change):
    """Returns (states, losses by phase and step, lines)."""
    lines, recipe = Lines(act), RECIPE | change
    job = job_for(root, scratch, name, lines, recipe)
    states, _, curves = train.fit(job, Recipe.of(recipe), stage)
    return states, {phase: dict(points) for phase, points in curves.points().items()}, lines.lines


@pytest.fixture(scope="module")
def undisturbed(root, tmp_path_factory):
    return trained(root, tmp_path_factory.mktemp("one"), "one")


def test_two_zero2_workers_follow_the_curve_of_one(root, tmp_path, undisturbed):
    _, losses, _ = trained(root, tmp_path, "two", workers=2)
    _, expected, _ = undisturbed
    assert expected["stage2"][1] - expected["stage2"][STEPS] > 0.3  # it learns something
    assert losses["stage2"].keys() == expected["stage2"].keys() == set(range(1, STEPS + 1))
    assert max(abs(losses["stage2"][s] - expected["stage2"][s]) for s in expected["stage2"]) < 1e-3
    assert max(abs(losses["blind"][s] - expected["blind"][s]) for s in expected["blind"]) < 1e-3


def killer(root: Path, name: str, phase: str = "stage2", step: int = 30, delay_s: float = 0.0):
    """Ends the worker of rank 0 by SIGKILL so long after that step of that phase is kept."""
    seen = threading.Event()

    def act(line: str) -> None:
        started = re.search(r"stage2: starts, .* process (\d+)", line)
        if started and not seen.is_set():
            seen.set()
            threading.Thread(target=_kill, args=(int(started[1]),), daemon=True).start()

    def _kill(pid: int) -> None:
        runs = root / "training" / f"stage2-{catalog.fingerprint(name=name)[:12]}"
        while not list(runs.glob(f"{phase}-{step:06d}/phase.json")):
            time.sleep(0.02)
        time.sleep(delay_s)
        os.kill(pid, signal.SIGKILL)

    return act


@pytest.mark.parametrize(
    ("phase", "zero", "seed"), [("stage2", 0, 1), ("stage2", 2, 2), ("stage2", 2, 3), ("blind", 2, 4)]
)
def test_a_training_that_is_killed_anywhere_ends_as_one_that_was_not(
    root, tmp_path, undisturbed, phase, zero, seed
):
    rng, name = random.Random(seed), f"killed-{phase}-{zero}-{seed}"
    last = STEPS if phase == "stage2" else BLIND_STEPS
    step, delay = rng.randrange(10, last - 10, 10), rng.uniform(0, 0.2)
    act = killer(root, name, phase, step, delay)
    states, losses, lines = trained(root, tmp_path, name, act=act, zero_stage=zero)
    same = zero == RECIPE["zero_stage"]  # another stage adds up in another order
    calm = undisturbed if same else trained(root, tmp_path / "calm", f"calm-{zero}", zero_stage=zero)
    expected_states, expected, _ = calm
    processes = {found[1] for line in lines if (found := re.search(r"process (\d+)", line))}
    assert len(processes) == 2, "it was killed, and another took over"
    if phase == "blind":
        assert sum("stage2: starts" in line for line in lines) == 1, "what is done is kept"
    assert states.keys() == expected_states.keys() == {"stage2", "blind"}
    for part, trained_to in states.items():
        assert losses[part][max(losses[part])] == expected[part][max(expected[part])]
        for key, tensor in trained_to.items():
            assert torch.equal(tensor, expected_states[part][key]), f"{part}: {key}"
    assert not list((root / "training").iterdir())  # nothing is left behind
    assert not list((root / "tensorboard").glob(f"stage2-{catalog.fingerprint(name=name)[:12]}"))


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_it_goes_on_with_another_number_of_workers(root, tmp_path, undisturbed, before, after):
    name = f"from-{before}-to-{after}"
    with pytest.raises(JobError, match="a worker failed more than 0 times"):
        trained(root, tmp_path / "one", name, act=killer(root, name), workers=before, max_failures=0)
    _, losses, lines = trained(root, tmp_path / "two", name, workers=after)
    _, expected, _ = undisturbed
    assert any("stage2: goes on at step" in line for line in lines)
    assert max(losses["stage2"]) == STEPS and min(losses["stage2"]) > 1
    assert max(abs(loss - expected["stage2"][s]) for s, loss in losses["stage2"].items()) < 1e-3


def test_stage1_trains_the_projector_alone(root, tmp_path):
    failed = [root / "training" / f"{stage}-0123456789ab" for stage in ("stage1", "stage2")]
    for folder in failed:  # of other nights
        folder.mkdir(parents=True)
        (folder / "checkpoint").touch()
    states, losses, _ = trained(root, tmp_path, "frozen", stage="stage1")
    assert [folder.exists() for folder in failed] == [False, True], "only what this stage left is forgotten"
    shutil.rmtree(failed[1])
    assert {name.split(".")[0] for name in states["stage1"]} == {"projector"}
    assert losses["stage1"][STEPS] < losses["stage1"][1]


def test_a_loss_that_is_no_number_ends_the_training_with_its_name(root, tmp_path):
    stage = RECIPE["stage2"] | {"lr": 1e30, "clip": 1e30, "warmup": 0}
    with pytest.raises(
        JobError, match=r"stage2: step \d+: loss .*, usual was .*; lower the learning rate in the recipe"
    ):
        trained(root, tmp_path, "wild", stage2=stage)
    run = f"stage2-{catalog.fingerprint(name='wild')[:12]}"
    assert list((root / "tensorboard" / run / "stage2").glob("events.out.tfevents.*")), "what it had stays"


def test_memory_that_runs_out_ends_the_training_with_its_name_and_no_retry(root, tmp_path):
    stage = RECIPE["stage2"] | {"rows": 4096, "micro_batch_rows": 4096}  # half a million positions at once

    def bounded(line: str) -> None:
        """The worker may have 2 GB more than it has when it starts."""
        if started := re.search(r"stage2: starts, .* process (\d+)", line):
            pages = int(Path(f"/proc/{started[1]}/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + 2 * 2**30
            resource.prlimit(int(started[1]), resource.RLIMIT_AS, (most, most))

    with pytest.raises(JobError, match=r"stage2: out of memory; lower stage2\.micro_batch_rows"):
        trained(root, tmp_path, "too much", act=bounded, stage2=stage, max_failures=2)


def test_an_elastic_training_starts_with_the_workers_that_there_are(root, tmp_path, undisturbed):
    _, losses, lines = trained(root, tmp_path, "elastic", workers=2, min_workers=1, cpus_per_worker=2)
    _, expected, _ = undisturbed
    assert sum("stage2: starts" in line for line in lines) == 1
    assert losses["stage2"].keys() == expected["stage2"].keys()
    assert max(abs(losses["stage2"][s] - expected["stage2"][s]) for s in expected["stage2"]) < 1e-3
