"""The clinician's page: shares, plots and the work queue, and nothing that fewer than ten patients stand behind."""

from __future__ import annotations

import base64
from pathlib import Path

import duckdb
import pytest

from orchestration import catalog, dbt
from orchestration.components.harmonisation_page import HarmonisationPage, page_asset
from orchestration.harmonisation_page import Page

COLUMNS = {
    "hospital": "varchar", "patient_id": "varchar", "concept": "varchar", "value": "double", "unit": "varchar",
    "value_raw": "varchar", "unit_raw": "varchar", "fate": "varchar", "fate_reason": "varchar", "source_table": "varchar",
    "code": "varchar", "label": "varchar",
}  # fmt: skip


def readings(hospital: str, patients: int, fate: str = "kept", each: int = 20, **cells: object) -> list[dict]:
    """`each` readings of glucose a patient, the first patients of the hospital."""
    mmol = hospital == "north"
    rows = []
    for patient in range(patients):
        for n in range(each):
            value = 80.0 + 2 * n
            rows.append(
                {"hospital": hospital, "patient_id": f"p{patient}", "concept": "glucose", "unit": "mg/dL"}
                | {"value": value, "value_raw": f"{value / 18:.3f}" if mmol else f"{value}"}
                | {
                    "unit_raw": "mmol/L" if mmol else "mg/dL",
                    "fate": fate,
                    "source_table": "labs",
                    "code": "GLU",
                }
                | cells
            )
    return rows


def quarantined(hospital: str, patients: int, reason: str) -> list[dict]:
    cells = {"value": None, "value_raw": "900000", "fate_reason": reason}
    return readings(hospital, patients, "quarantined", each=2, **cells)


def unmapped(patients: int, code: str, each: int) -> list[dict]:
    cells = {
        "concept": None,
        "value": None,
        "code": code,
        "label": f"label of {code}",
        "fate_reason": "not_decided",
    }
    return readings("south", patients, "unmapped", each, **cells)


ROWS = [
    *readings("north", 30),
    *quarantined("north", 9, "implausible"),
    *readings("south", 30),
    *quarantined("south", 10, "unknown_unit"),
    *readings("south", 9, concept="troponin_t"),
    *unmapped(10, "TEN", each=5),
    *unmapped(9, "NINE", each=50),
    *unmapped(30, "MANY", each=50),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("page") / "data.parquet")
    with duckdb.connect() as connection:
        connection.execute(f"create table t ({', '.join(f'{c} {t}' for c, t in COLUMNS.items())})")
        marks = ", ".join("?" * len(COLUMNS))
        connection.executemany(
            f"insert into t values ({marks})", [[row.get(c) for c in COLUMNS] for row in ROWS]
        )
        connection.execute(f"copy t to '{path}' (format parquet)")
    return path


@pytest.fixture
def page(file: str):
    with Page([file]) as opened:
        yield opened


def line(table: str, label: str) -> list[str]:
    (found,) = [row for row in table.splitlines() if row.startswith(f"| {label} ")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_cell_of_nine_patients_is_hidden_and_one_of_ten_is_shown(page: Page) -> None:
    assert line(page.shares("north"), "glucose in blood") == [
        "glucose in blood",
        "620",
        "30",
        "97 %",
        "0",
        "few",
        "",
    ]
    south = line(page.shares("south"), "glucose in blood")
    assert south == [
        "glucose in blood",
        "620",
        "30",
        "97 %",
        "0",
        "3 %",
        "nobody knows the unit as it is spelled",
    ]


def test_a_concept_of_nine_patients_is_left_out_and_counted(page: Page) -> None:
    table = page.shares("south")
    assert (
        "troponin" not in table
        and "few: fewer than 10 patients. Left out for that: 1 of 2 concepts." in table
    )


def test_the_costliest_items_come_first_and_small_ones_not_at_all(page: Page) -> None:
    table = page.costliest()
    assert "NINE" not in table
    rows = [[c.strip() for c in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    assert rows == [
        ["south", "label of MANY", "labs", "1,500", "30"],
        ["south", "label of TEN", "labs", "50", "10"],
    ]


def test_before_and_after_conversion(page: Page) -> None:
    (chosen,) = page._chosen(8)
    assert chosen == ("glucose", "mg/dL", "mg/dL, mmol/L")
    before, after = (page._histogram("glucose", column) for column in ("as_written", "value"))
    assert before["north"] != before["south"]
    assert after["north"][0] == after["south"][0], "the same readings, so the same shape in one unit"
    assert page.distributions() is not None


def test_a_part_of_nine_patients_is_not_drawn(tmp_path: Path) -> None:
    path = str(tmp_path / "data.parquet")
    with duckdb.connect() as connection:
        connection.execute(
            f"""copy (select 'north' as hospital, 'p' || p as patient_id, 'glucose' as concept, 'mg/dL' as unit,
                 if(p < 10, 100.0, 120.0) + v as value, value::varchar as value_raw, 'mg/dL' as unit_raw, 'kept' as fate
               from range(19) as r(p), (values (0), (1)) as t(v)) to '{path}' (format parquet)"""
        )
    with Page([path]) as page:
        ((shape, edges),) = page._histogram("glucose", "value").values()
        assert max(edge for part, edge in zip(shape, edges, strict=False) if part) < 110


def test_the_asset_shows_tables_and_a_plot(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    monkeypatch.setenv("WARDLINE_DATA", str(tmp_path / "data"))
    folder = tmp_path / "out"
    (folder / "bucket=0").mkdir(parents=True)
    (folder / "bucket=0" / "data.parquet").write_bytes(Path(file).read_bytes())
    made = catalog.Candidate("harmonised/measurements", folder, catalog.fingerprint(of="test"))
    catalog.publish(str(tmp_path / "data"), "test", [made])
    result = dg.materialize([page_asset(HarmonisationPage())])
    metadata = result.asset_materializations_for_node("harmonised__page")[0].metadata
    plot = metadata["values_as_written_and_as_harmonised"].value
    assert (
        base64.b64decode(plot.split("base64,")[1].rstrip(")")).startswith(b"\x89PNG") and len(plot) < 400_000
    )
    assert {"what_became_of_the_rows_of_north", "costliest_unmapped_items"} <= set(metadata)
    assert set(COLUMNS) <= {
        column
        for node in dbt.manifest()["nodes"].values()
        if node["name"] == "measurements"
        for column in node["columns"]
    }
