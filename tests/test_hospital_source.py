"""HospitalSource and ExpectationGate in Dagster: keys, checks, a refused export, what the event log says."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from orchestration import catalog, hospitals, input_layer, suites
from orchestration.components.expectation_gate import suite_check
from orchestration.components.hospital_source import input_assets
from tests.small_export import LABS, Export

SECRET = "Quarantania"


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    made = Export(tmp_path)
    monkeypatch.setenv("WARDLINE_DATA", made.root)
    monkeypatch.setattr(hospitals, "FOLDER", tmp_path / "defs")
    made.folder.mkdir(parents=True)
    source = f"type: {hospitals.COMPONENT}\nattributes: {{hospital: small, location: {made.location}}}\n"
    (made.folder / "defs.yaml").write_text(source)
    return made


def materialize(export: Export) -> dg.ExecuteInProcessResult:
    config = export.write()
    return dg.materialize([input_assets(config)], raise_on_error=True)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


def test_a_hospital_is_one_step_with_ten_assets_and_three_checks(export: Export) -> None:
    result = materialize(export)
    assert result.success and checks(result) == {
        "no_row_is_lost": True,
        "the_export_is_accepted": True,
        "the_extract_is_like_the_last": True,
    }
    compared = {e.check_name: e.metadata for e in result.get_asset_check_evaluations()}[
        "the_extract_is_like_the_last"
    ]
    assert compared["compared_with"].value == "nothing: it is the first"
    made = {
        event.asset_key.to_user_string(): event.step_materialization_data.materialization.metadata
        for event in result.all_events
        if event.event_type_value == "ASSET_MATERIALIZATION"
    }
    assert set(made) == {f"input/small/{t}" for t in input_layer.tables()}
    assert made["input/small/measurements"]["dagster/row_count"].value == 40
    assert made["input/small/visits"]["status"].value == "published"
    assert made["input/small/visits"]["version"].value == catalog.load().version("input/small/visits")


def test_a_refused_export_fails_its_check_and_the_run_goes_on(export: Export) -> None:
    materialize(export)
    version = catalog.load().version("input/small/visits")
    export.files["people.csv"][1] = f"{SECRET},w,1950,too,many"
    export.max_rejected = 0.01
    result = materialize(export)
    assert result.success
    assert [name for name, passed in checks(result).items() if not passed] == ["the_export_is_accepted"]
    assert catalog.load().version("input/small/visits") == version
    events = "\n".join(map(str, result.all_events))
    assert "wrong_number_of_fields" in events and SECRET not in events


def test_a_drift_fails_both_checks_and_says_how_to_accept_it(export: Export) -> None:
    day = "2024-08-0{} {:02}:00:00"
    export.files["labs.csv.gz"] = [LABS[0]] + [
        f"p1,c1,{day.format(n % 9 + 1, n // 9)},,GLU,{90 + n % 40},mg/dL,F" for n in range(200)
    ]
    materialize(export)
    export.files["labs.csv.gz"] = [line.replace("mg/dL", "mmol/L") for line in export.files["labs.csv.gz"]]
    result = materialize(export)
    failed = {e.check_name: e.metadata for e in result.get_asset_check_evaluations() if not e.passed}
    assert result.success and set(failed) == {"the_export_is_accepted", "the_extract_is_like_the_last"}
    drifted = failed["the_extract_is_like_the_last"]
    assert "mmol/L in 100.0 % of 200 rows" in drifted["failures"].value
    assert drifted["if_the_change_is_true"].value == "python -m orchestration.drift accept small"


def test_a_vanished_hospital_stops_the_step(export: Export, tmp_path: Path) -> None:
    materialize(export)
    with catalog.edit(export.root) as content:
        content["accepted"]["input/gone/patients"] = content["accepted"]["input/small/patients"]
    with pytest.raises(catalog.CatalogError, match=r"retire gone"):
        materialize(export)


def test_a_suite_is_a_check_over_what_is_published(export: Export) -> None:
    materialize(export)
    key = "input/small/visits"
    suite = suites.read_suite(suites.suite_path(key))
    check = suite_check(key, suite)

    def judged() -> dg.AssetCheckEvaluation:
        result = (
            dg.Definitions(asset_checks=[check]).resolve_implicit_global_asset_job_def().execute_in_process()
        )
        return result.get_asset_check_evaluations()[0]

    assert judged().passed
    Path(catalog.load().files(key)[0]).write_bytes(b"something else")
    evaluation = judged()
    assert not evaluation.passed and evaluation.metadata["files_changed_since_acceptance"].value == 1
