"""The Warehouse in the asset graph: keys, what depends on what, and that it needs no step before it."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
import time

import dagster as dg
import pytest
from dagster_dbt import DbtProject

from orchestration import dbt, dictionary, feature_contracts, harmonise, hospitals, input_layer
from orchestration.components.warehouse import Warehouse, fates_metadata
from orchestration.tasks import definition
from orchestration.warehouse_run import ORDER

PUBLISHED = {
    *(
        f"harmonised/{t}"
        for t in ("measurements", "measurements_hourly", "diagnoses", "procedures", "medications", "events")
    ),
    *(
        "harmonised/fates",
        "harmonised/fates_daily",
        "harmonised/unmapped",
        "features/icu_hourly",
        "features/icu_hourly_long",
        "features/ward_hourly",
        "features/ward_hourly_long",
        "features/admission_summary",
        "features/comorbidities",
        "features/icu_stays",
        "features/icu_summary",
        "features/icu_scores",
        "features/triage_scores",
        "harmonised/kdigo",
        "splits",
    ),
    *(f"labels/{t}" for t in ("attrition", *definition.read(dbt.PROJECT))),
}

SEEDS = ("concepts", "units", "rescues", "comorbidity_groups", "comorbidity_codes")


@pytest.fixture(scope="module")
def warehouse() -> dg.AssetsDefinition:
    component = Warehouse(project=DbtProject(dbt.PROJECT))
    [assets] = component.build_defs(None).assets
    return assets


def test_assets_are_the_published_tables_and_the_seeds(warehouse):
    keys = {key.to_user_string() for key in warehouse.keys}
    assert {key for key in keys if not key.startswith("dictionary/")} == PUBLISHED
    assert {key for key in keys if key.startswith("dictionary/")} == {f"dictionary/{seed}" for seed in SEEDS}
    for spec in warehouse.specs:
        assert spec.description and spec.group_name == spec.key.path[0] and spec.kinds


def test_every_source_depends_on_every_hospital(warehouse):
    """Every input table of every configured hospital comes before the models that read it, also through steps."""
    upstream = {
        spec.key.to_user_string(): {d.asset_key.to_user_string() for d in spec.deps}
        for spec in warehouse.specs
    }
    names = hospitals.configured_names()
    assert len(names) >= 2
    reads = {key for deps in upstream.values() for key in deps if key.startswith("input/")}
    assert reads == {f"input/{name}/{table}" for name in names for table in input_layer.tables()}
    for name in names:
        assert f"input/{name}/measurements" in upstream["harmonised/measurements"]
        assert f"input/{name}/notes" in upstream["harmonised/events"]
        assert f"input/{name}/stays" in upstream["features/icu_hourly"]
    stray = {key for deps in upstream.values() for key in deps} - reads - upstream.keys()
    assert not stray, "a step or a source shows in the asset graph"


def test_checks_are_sentences_and_block(warehouse):
    checks = {spec.name: spec for spec in warehouse.check_specs}
    for name in ("no_row_is_lost", "units_are_known", "nothing_from_the_future", "split_is_by_person"):
        assert checks[name].blocking and checks[name].description


def test_columns_are_documented_and_typed():
    manifest = dbt.manifest()
    nodes = [n for n in manifest["nodes"].values() if n["resource_type"] == "model"] + list(
        manifest["sources"].values()
    )
    for node in nodes:
        assert node["description"], node["unique_id"]
        for column in node["columns"].values():
            assert column["description"] and column["data_type"], f"{node['unique_id']}.{column['name']}"
        if node.get("language") == "sql" and node["resource_type"] == "model":
            assert node["contract"]["enforced"]


def test_the_wide_contracts_follow_the_dictionary():
    for path, text in feature_contracts.contracts().items():
        assert path.read_text() == text, f"{path.name}: run python -m orchestration.feature_contracts"
    columns = dbt.manifest()["nodes"]["model.wardline.icu_hourly"]["columns"]
    for concept in (c for c in dictionary.read_csv(dictionary.SEEDS / "concepts.csv") if c["wide"]):
        name = feature_contracts.column_name(concept["concept"], concept["unit"])
        assert {name, f"{concept['concept']}_n_obs", f"{concept['concept']}_age_h"} <= columns.keys()
    assert {"glucose_mg_dl", "temperature_c"} <= columns.keys()


def test_unmapped_has_the_header_of_items_csv():
    columns = list(dbt.manifest()["nodes"]["model.wardline.unmapped"]["columns"])
    header = next(
        csv.reader(io.StringIO("source_table,code,label,concept,decision,reason,unit,mapped_by,note"))
    )
    assert columns == ["hospital", *header, "rows"]


def test_a_fresh_clone_builds_its_definitions(house):
    """No manifest, no state, no step before: loading the definitions makes what they need, without torch or ray."""
    assert not (house.folder / "dbt_project" / "target").exists()
    code = (
        "import sys; from dagster_dbt import DbtProject; from orchestration import dbt;"
        "from orchestration.components.warehouse import Warehouse;"
        "[a] = Warehouse(project=DbtProject(dbt.PROJECT)).build_defs(None).assets; print(len(a.keys));"
        "assert not {'torch', 'ray', 'deepspeed', 'transformers'} & sys.modules.keys()"
    )
    ran = house.run(sys.executable, "-c", code)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.split()[-1]) == len(PUBLISHED) + len(SEEDS)
    left = subprocess.run(
        ["find", str(house.folder / "dbt_project"), "-name", "*.duckdb"], capture_output=True, text=True
    )
    assert not left.stdout and not (house.folder / "dbt_project" / "target").exists()


def test_faults_quote_no_row():
    text = (
        "Runtime Error in model measurements (models/harmonised/measurements.sql)\n"
        "  Conversion Error: Could not convert string 'SENTINEL-4711' to DOUBLE\n\n  LINE 17: select SENTINEL-4711"
    )
    fault = dbt.fault_of(text)
    assert fault == "Conversion Error in model measurements at line 17"
    assert "SENTINEL" not in dbt.fault_of("Invalid Input Error: Original Line: SENTINEL,4711")


def test_fates_are_counts():
    metadata = fates_metadata({"north": {"kept": 3, "unmapped": 1}, "south": {"kept": 4}})
    assert metadata["unmapped_share"] == 0.125
    assert "| north | 3 | 1 |" in metadata["fates"].value


def test_a_broken_model_names_itself(tmp_path):
    project = tmp_path / "dbt_project"
    shutil.copytree(dbt.PROJECT, project)
    (project / "models" / "splits.sql").write_text("select * from {{ ref('nowhere') }}")
    with pytest.raises(dbt.DbtError, match=r"(?s)splits.*nowhere"):
        dbt.target(project, tmp_path / "state")


def test_a_parse_is_never_used_for_another(tmp_path, monkeypatch):
    """Another model, another var, another profile, another place, another dbt: each is a parse of its own."""
    project = tmp_path / "dbt_project"
    shutil.copytree(dbt.PROJECT, project)
    keys = {dbt.parse_key(), dbt.parse_key(project)}
    for file, old, new in (
        ("models/splits.sql", "select", "select distinct"),
        ("dbt_project.yml", "longest_stay_h: 8784", "longest_stay_h: 8783"),
        ("profiles.yml", "schema: main", "schema: other"),
    ):
        path = project / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        keys.add(dbt.parse_key(project))
    monkeypatch.setattr(dbt, "version", lambda name: f"{name} of next year")
    keys.add(dbt.parse_key(project))
    assert len(keys) == 6


def test_the_caller_s_own_dbt_settings_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("DBT_TARGET", "nowhere")
    monkeypatch.setenv("DBT_PROFILE", "nowhere")
    assert (dbt.target(state=tmp_path / "state") / "manifest.json").exists()


def test_a_parse_leaves_those_that_others_use(tmp_path):
    """Processes of several projects share the state: a fresh parse removes only what nobody has used for long."""
    state = tmp_path / "state"
    used, forgotten = state / "used", state / "parse-killed"
    for folder, age in ((used, dbt.FORGOTTEN_AFTER - 60), (forgotten, dbt.FORGOTTEN_AFTER + 60)):
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age,) * 2)
    fresh = dbt.target(state=state)
    assert set(state.iterdir()) == {used, fresh}
    os.utime(fresh, (0, 0))
    assert dbt.target(state=state) == fresh
    assert fresh.stat().st_mtime > time.time() - 60


def test_published_models_are_all_but_the_steps():
    assert set(harmonise.published_models(dbt.manifest())) == PUBLISHED


def test_every_table_is_sorted_by_its_whole_key():
    """Rows that tie in the order are written as they come, and the same rows could be other bytes."""
    manifest = dbt.manifest()
    tests = [node for node in manifest["nodes"].values() if node["resource_type"] == "test"]
    keys = {
        node["attached_node"]: set(node["test_metadata"]["kwargs"]["columns"])
        for node in tests
        if (node.get("test_metadata") or {}).get("name") == "keys_are_unique"
    }
    keys["model.wardline.attrition"] = {"hospital", "task", "step"}
    published = {node["unique_id"] for node in harmonise.published_models(manifest).values()}
    assert len(keys.keys() & published) > 40
    assert {
        name: key - set(ORDER) for name, key in keys.items() if name in published and key - set(ORDER)
    } == {}
