"""The mapping language: what it accepts, and that every mistake is one line naming file, key and mend."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from orchestration import hospitals, layout
from orchestration.expressions import ExpressionError, parse
from orchestration.wording import LayoutError
from tests.small_export import ITEMS, TABLES


def load(folder: Path, tables: str = TABLES, items: str = ITEMS) -> layout.Layout:
    folder.mkdir(exist_ok=True)
    (folder / "tables.yaml").write_text(tables)
    (folder / "items.csv").write_text(items)
    return layout.load(folder, None)


def changed(old: str, new: str) -> str:
    assert old in TABLES
    return TABLES.replace(old, new, 1)


def test_a_right_mapping_knows_which_columns_it_reads(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert loaded.reads["cases"] == {"case_no", "pid", "came", "went", "died"}
    assert loaded.reads["dictionary"] == {"test", "name"}
    assert [i.key for i in loaded.items] == [("labs", "COM"), ("labs", "GLU")]


WRONG_TABLES = {
    "unknown key": (
        changed("key: [pid]", "kee: [pid]"),
        ["raw.people.kee", "unknown key", "did you mean key?"],
    ),
    "unknown key at the top": (TABLES + "\ntimezon: UTC", ["timezon", "did you mean timezone?"]),
    "unknown input table": (changed("  visits:", "  visit:"), ["input.visit", "did you mean visits?"]),
    "unknown column": (
        changed("birth_year: born", "birthyear: born"),
        ["birthyear", "did you mean birth_year?"],
    ),
    "unknown raw table": (
        changed("from: people", "from: peoples"),
        ["input.patients[0].from", "did you mean people?"],
    ),
    "no SQL": (
        changed("event_at: taken", "event_at: coalesce(taken"),
        ["measurements[0].columns.event_at", "check brackets"],
    ),
    "subselect": (changed("event_at: taken", "event_at: (select 1)"), ["event_at", "subselect"]),
    "file": (changed("event_at: taken", "event_at: read_text('/etc/passwd')"), ["read_text", "refused"]),
    "clock": (changed("event_at: taken", "event_at: now()"), ["now", "refused"]),
    "unknown function": (
        changed("event_at: taken", "event_at: nonsense(taken)"),
        ["event_at", "DuckDB says", "nonsense"],
    ),
    "a repeat without a key": (
        changed("labs: {path: labs.csv.gz}", "labs: {path: labs.csv.gz, repeats: expected}"),
        ["raw.labs.repeats", "key"],
    ),
    "text as number": (
        changed("birth_year: born", "birth_year: born - 1"),
        ["birth_year", "DuckDB says", "cast it first"],
    ),
    "not joined": (changed("event_at: taken", "event_at: people.born"), ["event_at", "people is not joined"]),
    "missing required": (changed("code: test\n        ", ""), ["measurements[0].columns.code is missing"]),
    "timezone": (changed("Europe/Berlin", "Europe/Berlyn"), ["timezone", "did you mean Europe/Berlin?"]),
    "delivery": (changed("{path: cases.csv,", "{path: cases.csv, delivery: daily,"), ["raw.cases.delivery"]),
    "upsert without key": (
        changed("{path: labs.csv.gz}", "{path: labs.csv.gz, delivery: upsert}"),
        ["raw.labs", "needs key"],
    ),
    "absolute path": (changed("path: cases.csv", "path: /etc/cases.csv"), ["raw.cases.path", "relative"]),
    "outside": (changed("path: cases.csv", "path: ../cases.csv"), ["raw.cases.path", "relative"]),
    "format": (
        changed("path: cases.csv", "path: cases.xlsx"),
        ["raw.cases.path", "csv, txt, tsv (each also as .gz), parquet"],
    ),
    "ignore reason": (changed("cancelled:", "Was Cancelled:"), ["ignore.Was Cancelled", "lower case"]),
    "not YAML": ("raw: {a: [", ["line", "not valid YAML"]),
    "no patients": (changed("  patients:", "  notes:"), ["input.patients is missing"]),
    "extends": (TABLES + "\nextends: mimic_v", ["no layout is called mimic_v", "did you mean mimic_iv?"]),
}


@pytest.mark.parametrize("name", WRONG_TABLES)
def test_a_mistake_in_tables_yaml_is_one_line_with_its_mend(tmp_path: Path, name: str) -> None:
    tables, expected = WRONG_TABLES[name]
    with pytest.raises(LayoutError) as caught:
        load(tmp_path / "small", tables)
    message = str(caught.value)
    assert "\n" not in message and str(tmp_path / "small") in message
    assert all(part in message for part in expected), message


HEADER = ITEMS.splitlines()[0]
WRONG_ITEMS = {
    "header": ("code,concept\n", "the header must be"),
    "concept": (f"{HEADER}\nlabs,GLU,,glucos,map,,,test,\n", "did you mean glucose?"),
    "decision": (f"{HEADER}\nlabs,GLU,,glucose,mapp,,,test,\n", "did you mean map?"),
    "reason": (f"{HEADER}\nlabs,GLU,,,ignore,text_onyl,,test,\n", "did you mean text_only?"),
    "twice": (
        f"{HEADER}\nlabs,GLU,,glucose,map,,,test,\nlabs,GLU,,lactate,map,,,test,\n",
        "row 2: maps labs/GLU a second time",
    ),
    "undecided concept": (f"{HEADER}\nlabs,GLU,,glucose,,,,test,\n", "needs decision map"),
    "unit": (f"{HEADER}\nlabs,GLU,,glucose,map,,mg/dLL,test,\n", "did you mean mg/dl?"),
    "source table": (f"{HEADER}\nlab,GLU,,glucose,map,,,test,\n", "did you mean labs?"),
    "fields": (f"{HEADER}\nlabs,GLU,glucose\n", "has not 9 fields"),
    "work queue of another": (
        f"{HEADER}\nsouth,labs,GLU,,glucose,map,,mg/dL,test,,400\n",
        "another hospital than small",
    ),
}


@pytest.mark.parametrize("name", WRONG_ITEMS)
def test_a_mistake_in_items_csv_is_one_line_with_its_mend(tmp_path: Path, name: str) -> None:
    items, expected = WRONG_ITEMS[name]
    with pytest.raises(LayoutError) as caught:
        load(tmp_path / "small", items=items)
    assert (
        expected in str(caught.value) and "items.csv" in str(caught.value) and "\n" not in str(caught.value)
    )


def test_the_work_queue_may_be_pasted_as_it_is(tmp_path: Path) -> None:
    """The lines of harmonised/unmapped, filled in: beneath the mapping, or with their own header as the whole mapping."""
    line = "small,labs,CREA,Creatinine,creatinine,map,,mg/dL,me,,412"
    beneath = load(tmp_path / "small", items=f"{ITEMS}{line}\n")
    assert [i.values["concept"] for i in beneath.items] == ["", "creatinine", "glucose"]
    whole = load(tmp_path / "small", items=f"hospital,{HEADER},rows\n{line}\n")
    assert [i.values for i in whole.items] == [beneath.items[1].values]


def test_the_hospital_beats_the_layout_that_it_extends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "SCHEMAS", tmp_path / "schemas")
    (tmp_path / "schemas").mkdir()
    load(tmp_path / "schemas" / "base")
    own = tmp_path / "own"
    own.mkdir()
    (own / "tables.yaml").write_text(
        "extends: base\ntimezone: UTC\nraw: {labs: {path: lab.parquet}, dictionary: null}\ninput: {items: null}\n"
    )
    (own / "items.csv").write_text(f"{HEADER}\nlabs,GLU,,lactate,map,,mmol/L,us,\n")
    merged = layout.load(own, None)
    assert merged.tables.timezone == "UTC" and merged.tables.raw["labs"].path == "lab.parquet"
    assert "dictionary" not in merged.reads and merged.tables.raw["people"].key == ["pid"]
    assert {i.key: i.values["concept"] for i in merged.items} == {
        ("labs", "GLU"): "lactate",
        ("labs", "COM"): "",
    }


@pytest.mark.parametrize(
    "text",
    [
        "count(x)",
        "row_number() over ()",
        "x in (select y from z)",
        "getenv('HOME')",
        "random()",
        "a; b",
        "*",
        "?",
    ],
)
def test_an_expression_reads_its_own_row_only(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text, "labs")


def test_a_cast_never_stops_the_night() -> None:
    assert "TRY_CAST" in parse("cast(x as integer)", "labs").sql
    assert "TRY_STRPTIME" in parse("strptime(x, '%d.%m.%Y')", "labs").sql.upper()


SOURCE = "type: orchestration.components.HospitalSource\nattributes:\n  hospital: {name}\n  extends: mimic_iv\n  {where}\n"


def moment(text: str, timezone: str = "as_written") -> object:
    expression = parse(text, "t", timezone=timezone)
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        return connection.execute(f"select {expression.sql}, {expression.fails}").fetchall()[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("after('2012-01-01', '26:07')", "2012-01-02 02:07:00"),
        ("after('2012-01-01 10:00:00', '-01:30')", "2012-01-01 08:30:00"),
        ("after('2012-01-01 10:00:00', '0:07:30')", "2012-01-01 10:07:30"),
        ("after('2012-01-01', 1567, 'minute')", "2012-01-02 02:07:00"),
        ("after('2012-01-01', '-1.5', 'hour')", "2011-12-31 22:30:00"),
        ("AFTER('2012-01-01', 5, 'day') + interval 1 hour", "2012-01-06 01:00:00"),
    ],
)
def test_a_relative_time_lies_after_its_start(text: str, expected: str) -> None:
    found, fails = moment(text)
    assert (str(found), fails) == (expected, False)


@pytest.mark.parametrize(
    "text", ["after('2012-01-01', '26:77')", "after('2012-01-01', '5')", "after('2012-01-01', 'x', 'day')"]
)
def test_an_offset_that_cannot_be_read_is_counted(text: str) -> None:
    assert moment(text) == (None, True)


def test_an_offset_counts_through_a_change_of_the_clocks() -> None:
    """10 hours after 23:00 before the night in March on which New York's clocks skip an hour it is 10:00."""
    found, _ = moment("after('2024-03-09 23:00:00', '10:00')", "America/New_York")
    assert str(found) == "2024-03-10 10:00:00"


@pytest.mark.parametrize("text", ["after(a)", "after(a, b, 'fortnight')", "after(a, b, c, d)"])
def test_a_relative_time_is_written_in_one_of_two_ways(text: str) -> None:
    with pytest.raises(ExpressionError, match="after"):
        parse(text, "t")


def test_columns_are_read_in_any_case(tmp_path: Path) -> None:
    loaded = load(tmp_path, changed("visit_id: case_no, event_at: came", "visit_id: CASE_NO, event_at: Came"))
    assert loaded.reads["cases"] == {"case_no", "pid", "came", "went", "died"}


WIDE = """
    - from: cases
      each: [pulse, temp]
      ignore: {not_measured: "{each} is null"}
      columns:
        {patient_id: pid, visit_id: case_no, event_at: came, source_table: "'cases'", code: "'{each}'",
         value_text: "{each}"}
  items:"""


def test_a_wide_table_is_one_source_a_column(tmp_path: Path) -> None:
    loaded = load(tmp_path, changed("\n  items:", WIDE), ITEMS + "cases,pulse,,heart_rate,map,,/min,test,\n")
    wide = [
        source for source in loaded.sources if source.raw_table == "cases" and source.table == "measurements"
    ]
    assert [source.columns["code"].sql for source in wide] == ["'pulse'", "'temp'"]
    assert [source.position for source in wide] == [1, 2]
    assert {"pulse", "temp"} <= loaded.reads["cases"]


def folder_of(base: Path, name: str, where: str) -> Path:
    (base / name).mkdir(parents=True)
    (base / name / "defs.yaml").write_text(SOURCE.format(name=name, where=where))
    return base / name


def test_hospitals_are_limited_by_name_and_absent_without_location(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(hospitals, "FOLDER", tmp_path)
    monkeypatch.delenv("EAST_LOCATION", raising=False)
    monkeypatch.delenv("WARDLINE_HOSPITALS", raising=False)
    folder_of(tmp_path, "north", "location: '{{ data_root }}/exports/north'")
    folder_of(tmp_path, "east", "location_env: EAST_LOCATION")
    assert hospitals.configured_names() == ["north"]
    assert hospitals.configured()[0].url.endswith("/exports/north")
    monkeypatch.setenv("EAST_LOCATION", "s3://bucket/east")
    assert hospitals.configured_names() == ["east", "north"]
    monkeypatch.setenv("WARDLINE_HOSPITALS", "east")
    assert hospitals.configured_names() == ["east"]
    monkeypatch.setenv("WARDLINE_HOSPITALS", "norht")
    with pytest.raises(LayoutError, match="no hospital is called norht; did you mean north"):
        hospitals.configured()
    monkeypatch.setenv("WARDLINE_HOSPITALS", "east")
    monkeypatch.delenv("EAST_LOCATION")
    with pytest.raises(LayoutError, match="set EAST_LOCATION"):
        hospitals.configured()


def test_hospitals_that_share_persons_have_as_many_buckets(tmp_path, monkeypatch) -> None:
    """The group may be said by the layout that a hospital extends (mimic_iv) or in its own tables.yaml."""
    monkeypatch.setattr(hospitals, "FOLDER", tmp_path)
    monkeypatch.delenv("WARDLINE_HOSPITALS", raising=False)
    folder_of(tmp_path, "east", "location: x\n  buckets: 30")
    folder_of(tmp_path, "west", "location: x\n  buckets: 30")
    alone = folder_of(tmp_path, "west_two", "location: x\n  buckets: 2")
    mend = (
        r"west_two/defs\.yaml: attributes\.buckets: is 2, but east, which shares its persons "
        r"\(person_group mimic_iv\), has 30; give both the same number"
    )
    with pytest.raises(LayoutError, match=mend):
        hospitals.configured()
    (alone / "tables.yaml").write_text("person_group: its_own\n")
    assert hospitals.configured_names() == ["east", "west", "west_two"]


def test_a_hospital_folder_with_a_typo_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(hospitals, "FOLDER", tmp_path)
    file = folder_of(tmp_path, "north", "locatoin: x") / "defs.yaml"
    with pytest.raises(LayoutError, match=r"attributes\.locatoin: did you mean location\?"):
        hospitals.known()
    file.write_text(SOURCE.format(name="nroth", where="location: x"))
    with pytest.raises(LayoutError, match="nroth lies in the folder north"):
        hospitals.known()
