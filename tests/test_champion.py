"""Promotion, not promoting, and going back, on version directories without a model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration import catalog
from ray_jobs import champion
from ray_jobs.config import JobConfig, JobError
from ray_jobs.llemr import checkpoint

STAGE2 = "weights/stage2"
BESIDE = {
    "versions.json": json.dumps({"inputs": {"harmonised/events": "e1"}, "packages": {"torch": "2"}}),
    "llemr.json": json.dumps({"event_budget": 96}),
    "recipe.yaml": "{name: small, seed: 3, precision: fp32}",
}


def version(name):
    return (name * 64)[:12]


def publish(root, tmp_path, key, name, content):
    folder = tmp_path / "made" / key / name
    folder.mkdir(parents=True)
    for file, text in content.items():
        (folder / file).write_text(text)
    catalog.publish(root, "test", [catalog.Candidate(key, folder, name * 64, table=False)])


def night(root, tmp_path, name, low, against=None):
    """Stage 2 and its evaluation as a night leaves them, then the champion's job; returns the process."""
    decision = {
        "split": "tuning",
        "candidate": {"version": version(name), "exact": 0.6},
        "other": {"row": "standing champion" if against else "blind", "version": against, "exact": 0.5},
        "difference": {"value": 0.1, "low": low, "high": 0.2, "questions": 10, "patients": 5},
        "draws": 1000,
        "questions_sha256": {},
    }
    key = f"{name}{len(list((tmp_path / 'made').rglob('metrics.json')))}"
    if catalog.load(root).accepted.get(STAGE2, {}).get("version") != version(name):
        publish(root, tmp_path, STAGE2, name, {"model.safetensors": f"weights {name}", **BESIDE})
    for evaluation in champion.SETS:
        folder = tmp_path / "made" / evaluation / key
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"decision": decision, "splits": {}}))
        catalog.publish(
            root, "test", [catalog.Candidate(evaluation, folder, catalog.fingerprint(k=key), table=False)]
        )
    accepted = catalog.load(root)
    inputs = {k: accepted.version(k) for k in (*champion.SETS, STAGE2)}
    checks = {"weights/champion:beats_the_champion": "WARN"}
    settings = JobConfig(
        "champion", f"run-{key}", root, "0" * 64, inputs, ["weights/champion"], {}, None, checks
    )
    return module("--config", settings.write())


def module(*arguments, root=None):
    environment = {**os.environ, **({"WARDLINE_DATA": root} if root else {})}
    command = [sys.executable, "-m", "ray_jobs.champion", *arguments]
    return subprocess.run(command, cwd=catalog.REPOSITORY, env=environment, capture_output=True, text=True)


def standing(root):
    return catalog.load(root).accepted.get("weights/champion", {}).get("version")


def test_the_first_is_promoted_only_above_blind(tmp_path):
    root = str(tmp_path / "root")
    refused = night(root, tmp_path, "a", low=0.0)
    assert refused.returncode == 0, refused.stderr
    assert "not promoted: the lower 95 % bound of its gain over blind is not above 0" in refused.stdout
    assert "beats_the_champion of weights/champion: failed (WARN)" in refused.stdout
    assert standing(root) is None
    assert night(root, tmp_path, "b", low=0.01).returncode == 0
    assert standing(root) == version("b")
    folder = catalog.load(root).folder("weights/champion")
    assert Path(folder, "model.safetensors").read_text() == "weights b"
    card = Path(folder, "MODEL_CARD.md").read_text()
    assert "# small, version bbbbbbbbbbbb" in card and "| `harmonised/events` | e1 |" in card
    assert "Promoted on tuning: +0.100 (+0.010 to +0.200) exact match against blind" in card
    checkpoint.verify(Path(folder))


def test_not_promoting_is_a_normal_night_and_the_champion_stays_byte_for_byte(tmp_path):
    root = str(tmp_path / "root")
    night(root, tmp_path, "a", low=0.01)
    before = catalog.load(root).entry("weights/champion")
    later = night(root, tmp_path, "b", low=-0.01, against=version("a"))
    assert later.returncode == 0 and "not promoted" in later.stdout
    assert catalog.load(root).entry("weights/champion") == before


def test_the_same_candidate_again_changes_nothing(tmp_path):
    root = str(tmp_path / "root")
    night(root, tmp_path, "a", low=0.01)
    before = catalog.load(root).entry("weights/champion")
    again = night(root, tmp_path, "a", low=0.01)
    assert again.returncode == 0 and "passed" in again.stdout
    assert catalog.load(root).entry("weights/champion") == before


def test_going_back_is_one_command_and_lasts(tmp_path):
    root = str(tmp_path / "root")
    night(root, tmp_path, "a", low=0.01)
    night(root, tmp_path, "b", low=0.01, against=version("a"))
    assert standing(root) == version("b")
    assert catalog.load(root).entry("weights/champion")["metadata"]["replaced"] == version("a")

    back = module("--back-to", version("a"), root=root)
    assert (back.returncode, standing(root)) == (0, version("a")), back.stderr
    listed = module("--list", root=root).stdout.splitlines()
    assert [line[:14] for line in listed] == [f"* {version('a')}", f"  {version('b')}"]
    assert listed[1].endswith("set aside")

    again = night(root, tmp_path, "b", low=0.01, against=version("a"))
    assert again.returncode == 0 and "set aside by hand" in again.stdout
    assert standing(root) == version("a")

    night(root, tmp_path, "c", low=0.01, against=version("a"))
    assert standing(root) == version("c")
    assert catalog.load(root).entry("weights/champion")["metadata"]["set_aside"] == [version("b")]


def test_going_back_refuses_what_is_not_there_stands_or_was_changed(tmp_path):
    root = str(tmp_path / "root")
    assert module("--list", root=root).stdout == "no champion yet\n"
    night(root, tmp_path, "a", low=0.01)
    night(root, tmp_path, "b", low=0.01, against=version("a"))
    wrong = module("--back-to", "nonsense", root=root)
    assert (
        wrong.returncode == 2
        and wrong.stderr.startswith("wardline: no champion nonsense")
        and version("a") in wrong.stderr
    )
    with pytest.raises(JobError, match="stands already"):
        champion.back_to(root, version("b"))
    (tmp_path / "root" / "weights" / "champion" / version("a") / "model.safetensors").write_text("other")
    with pytest.raises(JobError, match="is not the file that was published"):
        champion.back_to(root, version("a"))
    assert standing(root) == version("b")


def test_an_evaluation_of_other_weights_decides_nothing(tmp_path):
    root = str(tmp_path / "root")
    night(root, tmp_path, "a", low=0.01)
    publish(root, tmp_path, STAGE2, "b", {"model.safetensors": "weights b"})
    accepted = catalog.load(root)
    inputs = {k: accepted.version(k) for k in (*champion.SETS, STAGE2)}
    settings = JobConfig("champion", "run", root, "0" * 64, inputs, ["weights/champion"], {})
    refused = module("--config", settings.write())
    assert refused.returncode == 2 and "the evaluation is of another version" in refused.stderr
