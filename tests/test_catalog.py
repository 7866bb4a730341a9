"""The catalog: all or nothing, no reader sees a half-written thing, two nights stay apart."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration import catalog, locks


def table(folder: Path, values: list[int], name: str = "bucket=0/data.parquet") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"value": values}), path)
    return folder


def candidate(folder: Path, key: str, fingerprint: str, **kwargs) -> catalog.Candidate:
    return catalog.Candidate(key, folder, catalog.fingerprint(of=fingerprint), **kwargs)


def test_a_published_table_is_named_by_the_catalog_with_rows_and_sha256(tmp_path):
    root = str(tmp_path / "root")
    made = candidate(table(tmp_path / "a", [1, 2, 3]), "labels/made_up", "one")
    catalog.publish(root, "run-1", [made])
    accepted = catalog.load(root)
    (file,) = accepted.files("labels/made_up")
    assert file.endswith(f"labels/made_up/bucket=0/{made.version}.parquet")
    assert accepted.rows("labels/made_up") == 3
    assert accepted.entry("labels/made_up")["files"][0]["sha256"] == catalog.sha256_of(file)
    assert Path(root, "labels/made_up", f"{made.version}.manifest.json").exists()


def test_a_new_version_replaces_the_old_one_and_its_files_go(tmp_path):
    root = str(tmp_path / "root")
    for run, values in [("one", [1]), ("two", [1, 2])]:
        catalog.publish(root, run, [candidate(table(tmp_path / run, values), "labels/made_up", run)])
    parquet = list(Path(root).rglob("*.parquet"))
    assert [str(p) for p in parquet] == catalog.load(root).files("labels/made_up")
    assert catalog.load(root).rows("labels/made_up") == 2


def two_buckets(folder: Path, values: list[int]) -> Path:
    table(folder, [1], "bucket=0/data.parquet")
    return table(folder, values, "bucket=1/data.parquet")


def test_a_file_whose_bytes_are_published_stays_where_it_is(tmp_path):
    root = str(tmp_path / "root")
    catalog.publish(root, "one", [candidate(two_buckets(tmp_path / "one", [2]), "labels/made_up", "one")])
    before = catalog.load(root).files("labels/made_up")
    catalog.publish(root, "two", [candidate(two_buckets(tmp_path / "two", [3]), "labels/made_up", "two")])
    after = catalog.load(root)
    assert after.files("labels/made_up")[0] == before[0] and after.files("labels/made_up")[1] != before[1]
    assert sorted(map(str, Path(root).rglob("*.parquet"))) == after.files("labels/made_up")


def test_records_of_unchanged_files_are_taken_over(tmp_path):
    root = str(tmp_path / "root")
    catalog.publish(root, "one", [candidate(two_buckets(tmp_path / "one", [2]), "labels/made_up", "one")])
    kept = [f for f in catalog.load(root).entry("labels/made_up")["files"] if "bucket=0" in f["path"]]
    new = table(tmp_path / "two", [3, 4], "bucket=1/data.parquet")
    catalog.publish(root, "two", [candidate(new, "labels/made_up", "two", unchanged=kept)])
    accepted = catalog.load(root)
    assert accepted.rows("labels/made_up") == 3 and accepted.entry("labels/made_up")["files"][0] == kept[0]
    assert all(Path(f).exists() for f in accepted.files("labels/made_up"))


def test_a_crash_between_files_and_catalog_leaves_the_old_state(tmp_path, monkeypatch):
    root = str(tmp_path / "root")
    catalog.publish(root, "one", [candidate(two_buckets(tmp_path / "one", [2]), "labels/made_up", "one")])
    before = catalog.load(root).content

    def crash(root: str):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(catalog, "edit", crash)
        catalog.publish(root, "two", [candidate(two_buckets(tmp_path / "two", [3]), "labels/made_up", "two")])
    standing = catalog.load(root)
    assert standing.content == before
    for record, file in zip(
        standing.entry("labels/made_up")["files"], standing.files("labels/made_up"), strict=True
    ):
        assert catalog.sha256_of(file) == record["sha256"]
    catalog.publish(root, "two", [candidate(two_buckets(tmp_path / "again", [3]), "labels/made_up", "two")])
    assert len(list(Path(root).rglob("*.parquet"))) == 2


def test_champions_of_the_past_stay_on_disk(tmp_path):
    root = str(tmp_path / "root")
    for run in ["one", "two", "three"]:
        folder = tmp_path / run
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(run.encode())
        catalog.publish(root, run, [candidate(folder, "weights/champion", run, table=False)])
    assert len(list(Path(root, "weights/champion").glob("*/model.safetensors"))) == 3


def test_the_same_fingerprint_is_reusable_and_another_is_not(tmp_path):
    root = str(tmp_path / "root")
    made = candidate(table(tmp_path / "a", [1]), "labels/made_up", "one")
    catalog.publish(root, "run", [made])
    assert catalog.load(root).reusable("labels/made_up", made.fingerprint)
    assert not catalog.load(root).reusable("labels/made_up", catalog.fingerprint(of="two"))
    assert not catalog.load(root).reusable("labels/other", made.fingerprint)


def test_reading_what_was_never_published_names_the_asset(tmp_path):
    with pytest.raises(catalog.NotPublished, match="labels/made_up has no accepted version"):
        catalog.load(str(tmp_path)).files("labels/made_up")


def test_a_catalog_of_another_format_is_refused(tmp_path):
    (tmp_path / "catalog.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(catalog.CatalogError, match="format 99"):
        catalog.load(str(tmp_path))


def test_a_second_night_is_refused_while_the_first_lives(tmp_path):
    root = str(tmp_path)
    with locks.night_lock(root, "first"):
        with locks.night_lock(root, "first"):  # another step of the same night
            pass
        with (
            pytest.raises(catalog.CatalogError, match="another run \\(first\\) works on"),
            locks.night_lock(root, "second"),
        ):
            pass
    with locks.night_lock(root, "second"):
        pass


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    lock = {"run_id": "gone", "host": socket.gethostname(), "pid": int(dead.stdout), "since": 0}
    (tmp_path / "night.lock").write_text(json.dumps(lock))
    with locks.night_lock(str(tmp_path), "next"):
        assert json.loads((tmp_path / "night.lock").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "night.lock").exists()


def _add_one(root: str, name: str) -> None:
    with catalog.edit(root) as content:
        content["accepted"][name] = {"version": name, "fingerprint": name, "files": []}


def test_writers_at_the_same_time_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_one, args=(str(tmp_path), f"labels/{i}")) for i in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(catalog.load(str(tmp_path)).accepted) == 6


def test_an_edit_that_fails_leaves_the_old_catalog(tmp_path):
    root = str(tmp_path)
    _add_one(root, "labels/kept")
    with pytest.raises(ZeroDivisionError), catalog.edit(root) as content:
        content["accepted"].clear()
        raise ZeroDivisionError
    assert list(catalog.load(root).accepted) == ["labels/kept"]


def test_scratch_is_private_and_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("WARDLINE_SCRATCH", str(tmp_path))
    with pytest.raises(ZeroDivisionError), catalog.scratch("test") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_scratch_of_a_killed_process_goes_with_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setenv("WARDLINE_SCRATCH", str(tmp_path))
    code = (
        "import os, signal; from orchestration import catalog\n"
        "with catalog.scratch('killed') as folder:\n"
        "    (folder / 'rows.parquet').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=catalog.REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = list(tmp_path.iterdir())
    elsewhere = tmp_path / "wardline-of-another-host"
    elsewhere.mkdir()
    Path(f"{elsewhere}{catalog.OWNER}").write_text(json.dumps({"host": "another.host", "pid": 1}))
    with catalog.scratch("one") as one, catalog.scratch("two") as two:
        assert len(left) == 2 and not any(path.exists() for path in left)
        assert not list(one.iterdir()) and two.exists() and elsewhere.exists()


def test_the_data_root_is_absolute_wherever_it_is_asked_from(tmp_path, monkeypatch):
    monkeypatch.setenv("WARDLINE_DATA", ".elsewhere")
    monkeypatch.chdir(tmp_path)
    assert catalog.data_root() == str(catalog.REPOSITORY / ".elsewhere")
    monkeypatch.setenv("WARDLINE_DATA", "s3://bucket/wardline/")
    assert catalog.data_root() == "s3://bucket/wardline"


def test_memory_filesystem_publishes_like_a_disk(tmp_path):
    root = "memory://wardline-test"
    catalog.publish(root, "run", [candidate(table(tmp_path / "a", [1, 2]), "labels/made_up", "one")])
    catalog.publish(root, "run", [candidate(table(tmp_path / "b", [1, 2, 3]), "labels/made_up", "two")])
    accepted = catalog.load(root)
    assert accepted.rows("labels/made_up") == 3
    fs = catalog.filesystem(root)
    assert len([p for p in fs.find("/wardline-test") if p.endswith(".parquet")]) == 1


def test_what_old_runs_left_is_forgotten_after_a_fortnight(tmp_path):
    root = str(tmp_path / "root")
    for run, days in (("old", 15), ("new", 13)):
        left = Path(root, "candidates", run, "train.json")
        left.parent.mkdir(parents=True)
        left.write_text("{}")
        os.utime(left, (time.time() - days * 86400,) * 2)
    assert catalog.forget_runs(root) == 1
    assert [p.name for p in Path(root, "candidates").iterdir()] == ["new"]
    assert catalog.forget_runs(str(tmp_path / "nothing")) == 0
