"""RayJob: what is launched, what is reused, what is refused before anything starts, and how a step ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml

from orchestration import catalog, launch
from orchestration.components import ray_job
from orchestration.components.ray_job import CheckModel, RayJob

KEY = "weights/sample"
LARGE = CheckModel(name="is_large", description="The total is large.")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("WARDLINE_DATA", str(tmp_path / "root"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return str(tmp_path / "root")


def sample(params, **more):
    given = {"job": "count", "checks": [LARGE], "asset": KEY, "group": "weights", **more}
    return RayJob(package="tests.sample_jobs", params=params, **given)


def materialise(component):
    definitions = component.build_defs(SimpleNamespace(path="here"))
    return dg.materialize(list(definitions.assets), raise_on_error=False)


def why(result):
    (failure,) = [e.event_specific_data for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    return failure.user_failure_data.description if failure.user_failure_data else failure.error.message


def materialised(result):
    return [m.metadata for m in result.asset_materializations_for_node("weights__sample")]


def checks(result):
    found = [
        e.event_specific_data for e in result.all_events if e.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    return {c.check_name: (c.passed, c.severity.value) for c in found}


def test_launches_once_and_reuses_the_same_fingerprint(root):
    first = materialise(sample({"to": 4}))
    assert first.success
    (metadata,) = materialised(first)
    assert metadata["total"].value == 10 and metadata["table"].value.startswith("| total |")
    assert metadata["parts"].value == {"sum": 10}
    again = materialise(sample({"to": 4}))
    (metadata,) = materialised(again)
    assert metadata["parts"].value == {"sum": 10} and "unknown" not in metadata
    assert metadata["reused"].value is True and metadata["total"].value == 10
    assert metadata["table"].value.startswith("| total |"), "the plot is seen again"
    assert checks(first) == checks(again) == {"is_large": (True, "ERROR")}
    assert not list(Path(root, "candidates").glob(f"{again.run_id}/*")), "nothing was launched"
    other = materialise(sample({"to": 5}))
    assert "reused" not in materialised(other)[0]


def test_a_failed_error_check_blocks_and_keeps_the_accepted_version(root):
    materialise(sample({"to": 4}))
    before = catalog.load(root).entry(KEY)
    refused = materialise(sample({"to": 4, "least": 100}))
    assert not refused.success and checks(refused) == {"is_large": (False, "ERROR")}
    assert why(refused) == f"nothing published: {KEY} fails is_large"
    assert catalog.load(root).entry(KEY) == before


def test_a_warning_does_not_fail_the_run(root):
    warns = LARGE.model_copy(update={"severity": "WARN", "blocking": False})
    result = materialise(sample({"to": 4, "stands": True}, checks=[warns]))
    assert result.success and checks(result) == {"is_large": (False, "WARN")}
    assert materialised(result)[0]["published"].value is False


def test_a_check_that_the_job_does_not_report_has_not_passed(root):
    silent = CheckModel(name="never_said", description="The job knows nothing of it.")
    result = materialise(sample({"to": 4}, checks=[LARGE, silent]))
    assert not result.success and checks(result)["never_said"] == (False, "ERROR")


def test_errors_reach_dagster_as_one_line_without_values(root):
    assert (
        why(materialise(sample({"to": 4, "raise": "named"})))
        == "the sample is told to fail; set raise to nothing"
    )
    unexpected = materialise(sample({"to": 4, "raise": "value"}))
    assert "unexpected ValueError at" in why(unexpected)
    assert "SENTINEL" not in str(unexpected.all_events)


def test_an_input_without_a_version_is_named(root):
    result = materialise(sample({"to": 4}, deps=["harmonised/events"]))
    assert "harmonised/events has no accepted version" in why(result)


def accepted(entries):
    content = {
        "accepted": {k: {"metadata": {}, "inputs": {}, **v} for k, v in entries.items()},
        "held_back": {},
        "retired": {},
    }
    return catalog.Catalog("/nowhere", content)


def test_the_fingerprint_sees_inputs_params_recipe_files_and_code(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "REPOSITORY", tmp_path)
    monkeypatch.setattr(ray_job, "code_of", lambda job, package: code)
    recipes = tmp_path / "ray_jobs" / "recipes"
    recipes.mkdir(parents=True)
    words = tmp_path / "words.yaml"

    def plan(version="1", stage1=1, stage2=1, words_are="a", params=None):
        (recipes / "r.yaml").write_text(
            yaml.safe_dump({"seed": 1, "stage1": {"steps": stage1}, "stage2": {"steps": stage2}})
        )
        words.write_text(words_are)
        component = sample(
            params or {}, deps=["harmonised/events"], recipe="r", stages=["stage1"], files=["words.yaml"]
        )
        return component.plan(accepted({"harmonised/events": {"version": version}}), "run")

    code = "code"
    known = plan().fingerprint
    assert plan().params["recipe"] == {"seed": 1, "stage1": {"steps": 1}}
    assert plan(stage2=2).fingerprint == known, "another stage's settings do not count"
    for changed in (plan(version="2"), plan(stage1=2), plan(words_are="b"), plan(params={"x": 1})):
        assert changed.fingerprint != known
    code = "other code"
    assert plan().fingerprint != known


def test_the_standing_version_is_the_one_before_today_s():
    """After a promotion the champion is today's candidate; the evaluation that promoted it must be found again."""
    today = {"weights/stage2": {"version": "b"}}
    component = sample({}, deps=["weights/stage2"], standing=["weights/champion"])
    before = accepted({**today, "weights/champion": {"version": "a", "inputs": {"weights/stage2": "a"}}})
    after = {"version": "b", "inputs": {"weights/stage2": "b"}, "metadata": {"replaced": "a"}}
    plans = [component.plan(c, "run") for c in (before, accepted({**today, "weights/champion": after}))]
    assert plans[0].inputs == plans[1].inputs == {"weights/stage2": "b", "weights/champion": "a"}
    first = {**after, "metadata": {"replaced": None}}
    nights = [accepted(today), accepted({**today, "weights/champion": first})]
    assert len({component.plan(c, "run").fingerprint for c in nights}) == 1


@pytest.mark.parametrize(
    ("address", "data", "says"),
    [
        ("http://ray-head:8265", "/data", "WARDLINE_DATA"),
        ("127.0.0.1:6379", "s3://bucket", "Jobs API"),
        ("auto", "/data", "Jobs API"),
    ],
)
def test_an_address_that_cannot_work_is_refused_before_anything_starts(address, data, says):
    with pytest.raises(launch.LaunchError, match=says):
        launch.check_address(address, data)


def test_a_dead_address_is_named_quickly(root):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    started = time.monotonic()
    result = materialise(sample({"to": 4}, ray_address=address))
    assert time.monotonic() - started < launch.ANSWERS_WITHIN_S + 5
    assert f"no Ray answers at {address}" in why(result)


def test_a_deaf_address_is_named_quickly(root):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(launch.LaunchError, match=f"no Ray answers at {address}"):
            launch.check_address(address, root)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"job": "cuont"}, "no job 'cuont' in tests.sample_jobs/; the jobs are: count"),
        ({"recipe": "tinny"}, "ray_jobs/recipes/tinny.yaml does not exist"),
        ({"files": ["nowhere.csv"]}, "nowhere.csv does not exist"),
        ({"assets": {"weights/other": "x"}}, "give either asset or assets"),
        ({"checks": [LARGE.model_copy(update={"asset": "weights/other"})]}, "is_large names weights/other"),
    ],
)
def test_a_wrong_yaml_names_file_key_and_mend(change, says):
    with pytest.raises(ValueError) as error:
        sample({}, **change).build_defs(SimpleNamespace(path="orchestration/defs/training/x"))
    assert str(error.value).startswith("orchestration/defs/training/x/defs.yaml: ") and says in str(
        error.value
    )


def execute(root, job, **environment):
    command = [
        sys.executable,
        "-m",
        "dagster",
        "job",
        "execute",
        "-m",
        "tests.sample_jobs.definitions",
        "-j",
        "sample",
    ]
    given = {**os.environ, "WARDLINE_DATA": str(root), "SAMPLE_JOB": json.dumps(job), **environment}
    return subprocess.Popen(
        command,
        cwd=catalog.REPOSITORY,
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_cancelling_ends_the_whole_process_group(tmp_path, sent):
    note = tmp_path / "note"
    process = execute(tmp_path / "root", {"job": "wait", "params": {"note": str(note)}})
    deadline = time.monotonic() + 90
    while not note.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    job, child, scratch = note.read_text().split()
    assert os.getpgid(int(child)) == int(job) != os.getpgid(process.pid)
    process.send_signal(sent)
    process.communicate(timeout=60)
    assert not alive(job) and not alive(child)
    assert not Path(scratch).exists()
    assert not (tmp_path / "root" / "night.lock").exists()


def test_definitions_import_nothing_heavy():
    heavy = "[m for m in ('torch', 'ray', 'deepspeed', 'transformers') if m in sys.modules]"
    code = f"import sys, tests.sample_jobs.definitions as d; d.defs.get_repository_def(); assert not {heavy}, {heavy}"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=catalog.REPOSITORY,
        check=True,
        env={**os.environ, "SAMPLE_JOB": '{"job": "count"}'},
    )
