"""The whole evaluation over weights that have learned nothing: what it writes, on what, and what it decides."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestration import catalog
from ray_jobs import metrics
from ray_jobs.config import JobConfig
from tests import untaught

INPUTS = (
    "harmonised/events",
    "instructions/schema_alignment",
    "instructions/clinical_reasoning",
    untaught.EMBEDDINGS,
)
OUTPUTS = ["evaluation/schema_alignment", "evaluation/clinical_reasoning"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A root with a stage 1 (with its aligned start), a stage 2 (with its blind twin) and a standing champion."""
    folder = tmp_path_factory.mktemp("evaluation")
    root = folder / "root"
    events = untaught.house(root, folder)
    stage1, stage2 = (
        untaught.weights(folder / name, events, seed) for name, seed in (("stage1", 1), ("stage2", 2))
    )
    untaught.weights(stage1 / "aligned", events, 3)
    untaught.weights(stage2 / "blind", events, 4)
    champion = untaught.weights(folder / "champion", events, 5)
    for key, made in (("weights/stage1", stage1), ("weights/stage2", stage2), ("weights/champion", champion)):
        untaught.publish(root, key, made)
    accepted = catalog.load(str(root))
    inputs = {
        key: accepted.version(key)
        for key in (*INPUTS, "weights/stage1", "weights/stage2", "weights/champion")
    }
    return JobConfig(
        "evaluate", "run", str(root), "e" * 64, inputs, OUTPUTS, {"questions_per_split": 40, "num_cpus": 2}
    )


def evaluate(settings):
    command = [sys.executable, "-m", "ray_jobs.evaluate", "--config", settings.write()]
    return subprocess.run(command, cwd=catalog.REPOSITORY, env=os.environ, capture_output=True, text=True)


def figures(settings):
    accepted = catalog.load(settings.root)
    return {
        key: json.loads(Path(accepted.folder(key), "metrics.json").read_text()) for key in settings.outputs
    }


@pytest.fixture(scope="module")
def evaluated(settings):
    ended = evaluate(settings)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return settings


def test_every_row_is_scored_on_the_same_questions(evaluated):
    settings = evaluated
    schema, clinical = figures(settings).values()
    assert schema["decision"] == clinical["decision"]
    shared = {
        metrics.FREQUENT,
        metrics.SHORTCUT,
        metrics.TRAINED_BLIND,
        metrics.BLIND,
        metrics.STAGE1,
        metrics.STAGE2,
    }
    shared |= {metrics.CHAMPION, metrics.withheld(metrics.STAGE2), metrics.swapped(metrics.STAGE2)}
    only_schema = {metrics.ALIGNED, metrics.withheld(metrics.STAGE1), metrics.swapped(metrics.STAGE1)}
    for content, expected in ((schema, shared | only_schema), (clinical, shared)):
        for split in ("tuning", "held_out"):
            rows = content["splits"][split]["rows"]
            assert set(rows) == expected
            partly = {metrics.SHORTCUT, *(name for name in rows if "swapped" in name)}
            full = {row["exact"]["questions"] for name, row in rows.items() if name not in partly}
            assert full == {content["splits"][split]["questions"]} and full.pop() <= 40
            for row in rows.values():
                assert row["exact"]["low"] <= row["exact"]["value"] <= row["exact"]["high"]
                assert row["strict"]["value"] <= row["exact"]["value"]
    best = max(
        schema["splits"]["tuning"]["rows"][r]["exact"]["value"]
        for r in (metrics.FREQUENT, metrics.TRAINED_BLIND)
    )
    assert schema["splits"]["tuning"]["rows"][metrics.BLIND]["exact"]["value"] == best


def test_the_decision_is_about_the_tuning_split_and_names_versions_and_questions(evaluated):
    settings = evaluated
    schema = figures(settings)["evaluation/schema_alignment"]
    decision = schema["decision"]
    assert decision["split"] == "tuning"
    assert decision["candidate"]["version"] == settings.inputs["weights/stage2"]
    assert decision["other"] == {
        **decision["other"],
        "row": metrics.CHAMPION,
        "version": settings.inputs["weights/champion"],
    }
    asked = decision["questions_sha256"]["schema_alignment"]
    assert (
        asked
        == schema["splits"]["tuning"]["questions_sha256"]
        != schema["splits"]["held_out"]["questions_sha256"]
    )


def test_a_table_and_a_plot_lie_beside_the_metrics(evaluated):
    folder = Path(catalog.load(evaluated.root).folder(OUTPUTS[0]))
    assert (folder / "by_family.md").read_text().startswith("![")
    table = (folder / "table.md").read_text()
    assert f"| {metrics.STAGE2} minus {metrics.BLIND} |" in table and "**held_out**" in table


@pytest.mark.night
def test_the_same_inputs_give_the_same_bytes(evaluated):
    folder = Path(catalog.load(evaluated.root).folder(OUTPUTS[0]))
    first = (folder / "metrics.json").read_bytes()
    assert evaluate(evaluated).returncode == 0
    assert (folder / "metrics.json").read_bytes() == first


@pytest.mark.night
def test_without_a_champion_the_blind_control_is_to_be_beaten(evaluated, settings):
    inputs = {k: v for k, v in settings.inputs.items() if k != "weights/champion"}
    first = replace(settings, inputs=inputs, fingerprint="d" * 64)
    assert evaluate(first).returncode == 0
    decision = figures(first)["evaluation/schema_alignment"]["decision"]
    assert decision["other"]["row"] == metrics.BLIND and decision["other"]["version"] is None


def test_weights_of_an_encoder_that_is_not_read_are_named(settings, tmp_path):
    events = untaught.house(tmp_path / "root", tmp_path)
    other = untaught.weights(tmp_path / "other", events, 6, embeddings="embeddings/other")
    untaught.publish(tmp_path / "root", "weights/stage1", other)
    untaught.publish(tmp_path / "root", "weights/stage2", other)
    accepted = catalog.load(str(tmp_path / "root"))
    inputs = {key: accepted.version(key) for key in (*INPUTS, "weights/stage1", "weights/stage2")}
    ended = evaluate(replace(settings, root=str(tmp_path / "root"), inputs=inputs))
    assert ended.returncode == 2 and "was trained with embeddings/other; add it to deps" in ended.stderr
