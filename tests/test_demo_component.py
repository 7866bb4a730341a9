"""The component that writes a demo hospital's export: once, again when something changed, whole or not at all."""

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from orchestration import catalog
from orchestration.components.demo_hospital import DemoHospital
from orchestration.synthetic.export import DemoExport, read_manifest

SETTINGS = {"hospital": "north", "style": "north", "patients": 20, "twins": 2, "seed": 3}


def definitions(settings: dict) -> dg.Definitions:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=DemoHospital,
            defs_yaml_contents={
                "type": "orchestration.components.demo_hospital.DemoHospital",
                "attributes": settings,
            },
        )
        with sandbox.load_component_and_build_defs(defs_path=path) as (_, defs):
            return defs


def materialise(defs: dg.Definitions) -> dict:
    result = dg.materialize(list(defs.assets))
    assert result.success
    [event] = [e for e in result.all_events if e.is_step_materialization]
    return {key: value.value for key, value in event.materialization.metadata.items()}


def test_the_component_writes_once_and_again_when_something_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("WARDLINE_DATA", str(tmp_path))
    folder = tmp_path / "exports" / "north"
    defs = definitions(SETTINGS)
    assert {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()} == {
        "export/north"
    }
    first = materialise(defs)
    assert (first["reused"], first["patients"], first["seed"]) == (False, 20, 3)
    assert first["bytes"] == sum(f.stat().st_size for f in folder.glob("*.csv.gz"))
    assert materialise(defs)["reused"] is True
    (folder / "monitor.csv.gz").write_bytes(b"")
    assert materialise(defs)["reused"] is False
    assert materialise(definitions(SETTINGS | {"seed": 4}))["reused"] is False


def test_a_style_that_changes_leaves_no_old_file(tmp_path):
    DemoExport("north", "north", 5, 0, 1).write(str(tmp_path))
    DemoExport("north", "south", 5, 0, 1).write(str(tmp_path))
    assert not list(tmp_path.glob("*.gz"))


def test_an_export_cut_short_is_no_export(tmp_path, monkeypatch):
    demo = DemoExport("north", "north", 5, 0, 1)
    demo.write(str(tmp_path))
    write = catalog.write_bytes

    def fails(url, content):
        if url.endswith("monitor.csv.gz"):
            raise OSError("disk full")
        write(url, content)

    monkeypatch.setattr(catalog, "write_bytes", fails)
    with pytest.raises(OSError):
        DemoExport("north", "north", 5, 0, 2).write(str(tmp_path))
    assert read_manifest(str(tmp_path)) is None and demo.standing(str(tmp_path)) is None


def test_a_remote_data_root_works_too():
    demo = DemoExport("south", "south", 5, 1, 1)
    assert demo.standing("memory://demo/exports/south") is None
    demo.write("memory://demo/exports/south")
    assert demo.standing("memory://demo/exports/south")["patients"] == 5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"patient": 5}, "attributes.patient"),
        ({"style": "nord"}, "'north' or 'south'"),
        ({"twins": 50}, "attributes.twins: 50 is not between 0 and patients, 20"),
        ({"hospital": "North!"}, "attributes.hospital: write lower case letters"),
        ({"patients": "many"}, "patients"),
    ],
)
def test_a_wrong_key_or_value_is_named(change, says):
    with pytest.raises(Exception) as caught:
        definitions(SETTINGS | change)
    assert says in str(caught.value.__cause__)


def test_one_variable_makes_all_demo_hospitals_small(monkeypatch):
    component = DemoHospital(**SETTINGS)
    assert component.size() == (20, 2)
    monkeypatch.setenv("WARDLINE_DEMO_PATIENTS", "40")
    assert component.size() == (40, 4)
    monkeypatch.setenv("WARDLINE_DEMO_PATIENTS", "many")
    with pytest.raises(dg.Failure, match="WARDLINE_DEMO_PATIENTS"):
        component.size()


def test_a_hospital_that_is_left_out_has_no_asset(monkeypatch):
    monkeypatch.setenv("WARDLINE_HOSPITALS", "south, mimic_iv")
    assert not definitions(SETTINGS).assets
