"""Ray jobs alone, without Dagster: what they read and publish, how they fail, and what they leave behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import polars as pl
import pytest

from orchestration import catalog, locks
from ray_jobs import config
from ray_jobs.config import JobConfig, JobError
from ray_jobs.runtime import Job

KEY = "weights/sample"


def prepared(root, params, job="count", run_id="run", **more):
    given = {"inputs": {}, "outputs": [KEY], "fingerprint": "f" * 64, **more}
    return JobConfig(job=job, run_id=run_id, root=str(root), params=params, **given)


def start(settings, **environment):
    command = [sys.executable, "-m", f"tests.sample_jobs.{settings.job}", "--config", settings.write()]
    return subprocess.Popen(
        command,
        cwd=catalog.REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(settings, **environment):
    process = start(settings, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_a_job_publishes_a_version_directory_without_dagster(tmp_path):
    code, out, _ = finish(prepared(tmp_path, {"to": 4}))
    assert code == 0 and "ends well" in out
    accepted = catalog.load(str(tmp_path))
    entry = accepted.entry(KEY)
    assert accepted.folder(KEY) == f"{tmp_path}/{KEY}/{'f' * 12}"
    assert sorted(Path(f).name for f in accepted.files(KEY)) == ["data.parquet", "note.json", "table.md"]
    assert entry["metadata"]["total"] == 10 and "table" not in entry["metadata"]
    assert entry["metadata"]["checks"][0]["name"] == "is_large"
    assert "ends well" in Path(prepared(tmp_path, {}).beside(".log")).read_text()
    assert not list(tmp_path.glob("night.lock"))


def test_only_parquet_makes_a_table(tmp_path):
    assert finish(prepared(tmp_path, {"to": 4, "note": False}))[0] == 0
    accepted = catalog.load(str(tmp_path))
    assert accepted.files(KEY) == [f"{tmp_path}/{KEY}/{'f' * 12}.parquet"]
    assert accepted.entry(KEY)["metadata"]["table"]["type"] == "md"


def test_a_failed_error_check_publishes_nothing(tmp_path):
    code, _, err = finish(prepared(tmp_path, {"to": 4, "least": 100}))
    assert (code, err) == (3, f"wardline: nothing published: {KEY} fails is_large\n")
    assert KEY not in catalog.load(str(tmp_path)).accepted
    failure = json.loads(Path(prepared(tmp_path, {}).beside(".failure.json")).read_text())
    assert [c["name"] for c in failure["checks"]] == ["is_large"]


def test_the_severity_in_the_yaml_counts(tmp_path):
    settings = prepared(tmp_path, {"to": 4, "least": 100}, checks={f"{KEY}:is_large": "WARN"})
    assert finish(settings)[0] == 0
    assert catalog.load(str(tmp_path)).entry(KEY)["metadata"]["checks"][0]["severity"] == "WARN"


def test_a_named_fault_is_one_line(tmp_path):
    code, _, err = finish(prepared(tmp_path, {"to": 4, "raise": "named"}))
    assert (code, err) == (2, "wardline: the sample is told to fail; set raise to nothing\n")


def test_an_unexpected_error_shows_places_and_no_values(tmp_path):
    settings = prepared(tmp_path, {"to": 4, "raise": "value"})
    code, out, err = finish(settings)
    log = Path(settings.beside(".log")).read_text()
    assert code == 1 and err.count("\n") == 1 and "ValueError" in err and "count.py" in log
    for text in (out, err, log, Path(settings.beside(".failure.json")).read_text()):
        assert "SENTINEL" not in text and "4711" not in text


def test_another_run_holds_the_night(tmp_path):
    with locks.night_lock(str(tmp_path), "other"):
        code, _, err = finish(prepared(tmp_path, {"to": 4}))
    assert code == 2 and "another run (other)" in err
    with locks.night_lock(str(tmp_path), "run"):
        assert finish(prepared(tmp_path, {"to": 4}))[0] == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no configuration at"), ("{", "not valid JSON"), ('{"job": "x"}', "missing keys")],
)
def test_a_wrong_configuration_is_named(tmp_path, content, says):
    file = tmp_path / "config.json"
    if content:
        file.write_text(content)
    with pytest.raises(JobError, match=says):
        config.read(str(file))


def test_inputs_are_the_versions_the_job_was_planned_with(tmp_path):
    finish(prepared(tmp_path, {"to": 4}))
    job = Job(
        prepared(tmp_path, {}, inputs={KEY: "f" * 12, "weights/gone": "0" * 12}),
        tmp_path / "scratch",
        None,
        None,
    )
    assert pl.read_parquet(job.path(KEY) / "data.parquet")["total"].item() == 10
    finish(prepared(tmp_path, {"to": 5}, fingerprint="e" * 64))
    with pytest.raises(JobError, match=f"version {'f' * 12} of {KEY} was replaced"):
        job.entry(KEY)
    with pytest.raises(JobError, match="weights/gone was replaced"):
        job.path("weights/gone")
    with pytest.raises(JobError, match="add it to deps"):
        job.files("harmonised/events")
    with pytest.raises(JobError, match="is no output of count"):
        job.output("weights/other")


def test_a_version_directory_is_fetched_from_a_remote_root(tmp_path):
    fs = fsspec.filesystem("memory")
    root = "memory://wardline-test"
    folder = tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_text("here")
    catalog.publish(root, "run", [catalog.Candidate(KEY, folder, "f" * 64, table=False)])
    try:
        job = Job(
            JobConfig("count", "run", root, "f" * 64, {KEY: "f" * 12}, [], {}),
            tmp_path / "scratch",
            None,
            None,
        )
        assert (job.path(KEY) / "deep" / "a.txt").read_text() == "here"
    finally:
        fs.rm("/wardline-test", recursive=True)


def left_behind(scratch):
    return sorted(p.name for p in Path(scratch).glob("wardline-*"))


def test_two_local_rays_at_once_both_finish_and_leave_nothing(tmp_path_factory):
    scratch = Path(subprocess.check_output(["mktemp", "-d", "/tmp/wlXXXX"], text=True).strip())
    home = tmp_path_factory.mktemp("home")
    jobs = [
        prepared(tmp_path_factory.mktemp(f"root{i}"), {"to": 10 * i, "ray": True, "num_cpus": 1})
        for i in (1, 2)
    ]
    running = [start(job, WARDLINE_SCRATCH=str(scratch), HOME=str(home)) for job in jobs]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert [catalog.load(j.root).entry(KEY)["metadata"]["total"] for j in jobs] == [55, 210]
    assert left_behind(scratch) == []
    assert not (home / ".ray").exists(), "no token is left in the user's home"
    scratch.rmdir()


def test_terminating_a_job_ends_its_ray_and_removes_its_scratch(tmp_path):
    scratch = Path(subprocess.check_output(["mktemp", "-d", "/tmp/wlXXXX"], text=True).strip())
    note = tmp_path / "note"
    process = start(
        prepared(tmp_path, {"note": str(note), "ray": True}, job="wait"), WARDLINE_SCRATCH=str(scratch)
    )
    deadline = time.monotonic() + 60
    while not note.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    _, child, _ = note.read_text().split()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)
    os.kill(int(child), signal.SIGKILL)
    assert process.returncode == 143
    assert left_behind(scratch) == [] and not (tmp_path / "night.lock").exists()
    scratch.rmdir()
    commands = subprocess.check_output(["ps", "-eo", "args"], text=True)
    assert str(scratch) not in commands, "a process of the local Ray outlived its job"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent was killed")
def test_a_job_whose_dagster_is_killed_ends_and_frees_the_lock(tmp_path):
    note, settings = tmp_path / "note", prepared(tmp_path, {"note": str(tmp_path / "note")}, job="wait")
    dagster = (
        "import os, subprocess, sys\n"
        "environment = os.environ | {'WARDLINE_PARENT': str(os.getpid())}\n"
        "subprocess.Popen(sys.argv[1:], env=environment, start_new_session=True).wait()"
    )
    job = [sys.executable, "-m", "tests.sample_jobs.wait", "--config", settings.write()]
    process = subprocess.Popen([sys.executable, "-c", dagster, *job], cwd=catalog.REPOSITORY)
    while not note.exists() or not note.read_text():
        assert process.poll() is None
        time.sleep(0.1)
    holder = json.loads((tmp_path / "night.lock").read_text())
    assert locks.is_alive(holder)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while (tmp_path / "night.lock").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(int(note.read_text().split()[1]), signal.SIGKILL)
    assert not (tmp_path / "night.lock").exists(), "a job outlived its Dagster"


def module(folder, name, text):
    path = folder.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_code_that_counts_is_what_the_job_imports(tmp_path):
    module(tmp_path, "jobs.__init__", "")
    module(tmp_path, "jobs.first", "from jobs.deep import one\nfrom .near import two\n")
    module(tmp_path, "jobs.deep.__init__", "from . import under\n")
    module(tmp_path, "jobs.deep.under", "A = 1\n")
    module(tmp_path, "jobs.near", "def later():\n    import jobs.lazy\n")
    module(tmp_path, "jobs.lazy", "B = 1\n")
    module(tmp_path, "jobs.other", "C = 1\n")
    known = config.code_of("first", "jobs", tmp_path)
    module(tmp_path, "jobs.other", "C = 2\n")
    module(tmp_path, "jobs.lazy", "# a comment\nB  = 1\n")
    assert config.code_of("first", "jobs", tmp_path) == known
    for name in ("jobs.lazy", "jobs.deep.under"):
        before = config.code_of("first", "jobs", tmp_path)
        module(tmp_path, name, "changed = True\n")
        assert config.code_of("first", "jobs", tmp_path) != before, name
    with pytest.raises(JobError, match="the jobs are: first, lazy, near, other"):
        config.code_of("frist", "jobs", tmp_path)


def test_a_named_fault_inside_a_ray_task_is_still_one_line(tmp_path):
    code, _, err = finish(prepared(tmp_path, {"to": -1, "ray": True, "num_cpus": 1}))
    assert (code, err.splitlines()[-1]) == (2, "wardline: to is -1; give a number of 0 or more")
