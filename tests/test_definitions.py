"""What Dagster is told: names of assets, jobs, schedule and checks; nothing heavy is imported; mistakes are one line."""

import json
import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY, fresh_house

LOOK = """
import json, os, sys
os.environ["WARDLINE_HOSPITALS"] = "north,south"
from orchestration.definitions import defs
repository = defs.get_repository_def()
graph = repository.asset_graph
keys = sorted(k.to_user_string() for k in graph.get_all_asset_keys())
schedule = repository.get_schedule_def("nightly_retraining_schedule")
print(json.dumps({
    "heavy": sorted({"torch", "ray", "deepspeed", "transformers"} & set(sys.modules)),
    "keys": keys,
    "undescribed": [k.to_user_string() for k in graph.materializable_asset_keys if not graph.get(k).description],
    "groups": {k.to_user_string(): graph.get(k).group_name for k in graph.materializable_asset_keys},
    "kinds": [k.to_user_string() for k in graph.materializable_asset_keys if not graph.get(k).kinds],
    "jobs": sorted(j.name for j in repository.get_all_jobs()),
    "timezone": schedule.execution_timezone, "cron": schedule.cron_schedule, "status": schedule.default_status.value,
    "checks": sorted({c.name for c in graph.asset_check_keys}),
    "above_measurements": sorted(
        k.to_user_string() for k in graph.get(__import__("dagster").AssetKey(["harmonised", "measurements"])).parent_keys
    ),
}))
"""


@pytest.fixture(scope="module")
def told() -> dict:
    ran = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_building_definitions_imports_nothing_heavy(told):
    assert told["heavy"] == []


def test_assets_are_named_as_the_rooms(told):
    expected = {
        "export/north", "input/north/measurements", "input/south/notes", "harmonised/measurements", "harmonised/events",
        "features/icu_hourly", "labels/readmission_30d", "splits", "instructions/schema_alignment",
        "instructions/clinical_reasoning", "embeddings/minilm", "weights/base_model", "weights/stage1", "weights/stage2",
        "evaluation/schema_alignment", "evaluation/comparison", "evaluation/minilm_weighed", "weights/champion",
        "night/report",
    }  # fmt: skip
    assert expected <= set(told["keys"])
    assert not [k for k in told["keys"] if k.startswith("input/mimic_iv")], (
        "MIMIC-IV is absent until its location is set"
    )


def test_every_asset_has_a_description_a_kind_and_the_group_of_its_room(told):
    assert told["undescribed"] == []
    assert told["kinds"] == []
    for key, group in told["groups"].items():
        assert group in (key.split("/")[0], "prediction")  # what the job predict makes, wherever it lies


def test_jobs_and_schedule(told):
    assert {"harmonise", "retrain", "nightly_retraining"} <= set(told["jobs"])
    assert (told["cron"], told["status"]) == ("30 3 * * *", "RUNNING")
    assert told["timezone"]


def test_checks_are_sentences(told):
    assert {
        "no_row_is_lost", "the_export_is_accepted", "nothing_from_the_future", "split_is_by_person",
        "reloads_and_answers", "beats_the_champion", "the_night_is_whole",
    } <= set(told["checks"])  # fmt: skip


def test_harmonised_tables_wait_for_every_hospital(told):
    assert {"input/north/measurements", "input/south/measurements"} <= set(told["above_measurements"])


@pytest.mark.parametrize(
    ("path", "pattern", "replacement", "line"),
    [
        ("training/stage1/defs.yaml", "^  job: ", "  jobb: x\n  job: ", "attributes.jobb: there is no such key; did you mean 'job'"),
        ("hospitals/north/defs.yaml", "patients: .*", "patients: many", "attributes.patients: .*integer.*; mend its value"),
        ("nightly/defs.yaml", "components.Night", "components.Nite", "type: there is no component 'Nite'; did you mean 'Night'"),
        ("hospitals/north/items.csv", "heart_rate", "hart_rate", "'hart_rate'.*did you mean heart_rate"),
        ("hospitals/north/defs.yaml", "^attributes:", "attributes", "line \\d+ is not valid YAML"),
        ("hospitals/south/tables.yaml", "from: pt_master", "from: pt_mastr", "pt_mastr.*did you mean.*pt_master"),
        ("training/stage2/defs.yaml", "recipe: tiny", "recipe: tinny", "ray_jobs/recipes/tinny.yaml does not exist"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_file_key_and_mend(tmp_path, path, pattern, replacement, line):
    house = fresh_house(tmp_path / "wardline")
    house.extra["WARDLINE_HOSPITALS"] = "north,south"
    house.edit(f"orchestration/defs/{path}", pattern, replacement)
    ran = house.run(sys.executable, "-c", "import orchestration.definitions")
    assert ran.returncode != 0
    last = ran.stderr.strip().splitlines()[-1]
    assert path.rsplit("/", 1)[0] in last
    assert re.search(line, last)
