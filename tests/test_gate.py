"""The gate: verdicts carry counts and never a value, a wrong suite names file, key and mend, the DuckDB mend holds."""

from __future__ import annotations

import logging
from pathlib import Path

import duckdb
import pytest

from orchestration import catalog, data_docs, gate, suites
from orchestration.expressions import literal

SECRET = "Quarantania"
GOOD = """
name: visits_are_usable
expectations:
  - {type: expect_column_values_to_not_be_null, column: visit_id, says: every visit has an id}
"""


@pytest.fixture
def suite_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(suites, "EXPECTATIONS", tmp_path / "expectations")
    (tmp_path / "expectations" / "input").mkdir(parents=True)
    return tmp_path / "expectations" / "input" / "visits.yaml"


def parquet(folder: Path, select: str, name: str = "data") -> str:
    file = str(folder / f"{name}.parquet")
    duckdb.sql(f"copy ({select}) to {literal(file)} (format parquet)")
    return file


def test_one_suite_serves_the_tables_of_all_hospitals(suite_file: Path) -> None:
    suite_file.write_text(GOOD)
    assert gate.has_suite("input/north/visits") and gate.has_suite("input/south/visits")
    assert not gate.has_suite("input/north/notes") and not gate.has_suite("features/visits")


EVERY_KIND = f"""
name: every_kind_of_expectation
blocking: true
expectations:
  - {{type: expect_table_row_count_to_be_between, min_value: 1, says: rows}}
  - {{type: expect_column_values_to_not_be_null, column: name, says: names}}
  - {{type: expect_column_values_to_be_in_set, column: name, value_set: [a], says: known names}}
  - {{type: expect_column_values_to_be_unique, column: name, says: unique names}}
  - {{type: expect_column_values_to_be_between, column: number, min_value: 0, max_value: 1, says: small numbers}}
  - {{type: expect_column_max_to_be_between, column: number, max_value: 1, says: a small maximum}}
  - {{type: expect_column_distinct_values_to_be_in_set, column: name, value_set: [a], says: few names}}
  - {{type: expect_compound_columns_to_be_unique, column_list: [name, number], says: unique rows}}
  - {{type: expect_column_pair_values_a_to_be_greater_than_b, column_A: number, column_B: other, says: in order}}
  - {{type: unexpected_rows_expectation, unexpected_rows_query: "select * from {{batch}} where name = '{SECRET}'", says: no secrets}}
  - {{type: unexpected_rows_expectation, unexpected_rows_query: "select cast(name as integer) from {{batch}}", says: it raises}}
  - {{type: expect_column_values_to_not_be_null, column: missing, says: a column that is not there}}
"""


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> tuple[gate.Verdict, str]:
    """A table with a planted secret, judged by every kind of expectation; the verdict and all that was logged."""
    folder = tmp_path_factory.mktemp("gate")
    (folder / "input").mkdir()
    (folder / "input" / "visits.yaml").write_text(EVERY_KIND.replace(SECRET + "'", "Quaran' || 'tania'"))
    rows = f"select * from (values ('{SECRET}', 8675309, 1), ('{SECRET}', 8675309, 1), (null, 0, 9)) t(name, number, other)"
    logged: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suites, "EXPECTATIONS", folder)
        judged = gate.judge("input/north/visits", [parquet(folder, rows)])
    logging.getLogger().removeHandler(handler)
    return judged, "\n".join(logged)


def test_every_kind_is_pushed_down_to_duckdb_and_counted(verdict) -> None:
    results = {r.says: r for r in verdict[0].results}
    assert not verdict[0].passed and verdict[0].blocking and verdict[0].rows == 3
    assert results["rows"].passed and results["rows"].observed == 3
    assert (results["names"].unexpected, results["known names"].unexpected) == (1, 2)
    assert (results["unique names"].unexpected, results["unique rows"].unexpected) == (2, 2)
    assert (
        results["small numbers"].unexpected,
        results["in order"].unexpected,
        results["no secrets"].unexpected,
    ) == (2, 1, 2)
    assert results["a small maximum"].failure == results["few names"].failure == "rows"
    assert results["it raises"].failure.startswith("raised ")
    assert results["a column that is not there"].failure == "missing_column"


def test_no_value_of_a_row_is_in_the_verdict_the_page_or_the_log(verdict, tmp_path: Path) -> None:
    judged, logged = verdict
    pages = data_docs.write_docs(str(tmp_path), [judged])
    said = [
        repr(judged),
        judged.line(),
        str(judged.metadata()),
        logged,
        *(Path(p).read_text() for p in pages),
    ]
    assert not any(value in text for text in said for value in (SECRET, "8675309", "8,675,309"))
    assert "known names (2 of 3 rows)" in judged.line()


def test_a_page_of_data_docs_fetches_nothing(verdict, tmp_path: Path) -> None:
    page = Path(data_docs.write_docs(str(tmp_path), [verdict[0]])[0]).read_text()
    assert "<script" not in page and "<link" not in page and "url(" not in page and "newsletter" not in page
    assert "unique rows (2 of 3 rows)" in page and "Great Expectations Version" in page
    assert "input/north/visits" in (tmp_path / "docs/data_docs/index.html").read_text()


def test_exactly_the_given_files_are_read_as_one_table(suite_file: Path, tmp_path: Path) -> None:
    suite_file.write_text(GOOD)
    files = [parquet(tmp_path, f"select '{n}' as visit_id", str(n)) for n in (1, 2, 3)]
    assert gate.judge("input/north/visits", files[:2]).rows == 2
    assert gate.judge("input/north/visits", []).failures[0].failure == "no_files"
    (tmp_path / "4.parquet").write_bytes(b"no parquet " + SECRET.encode())
    broken = gate.judge("input/north/visits", [str(tmp_path / "4.parquet")])
    assert (
        not broken.passed and broken.failures[0].failure.startswith("raised") and SECRET not in repr(broken)
    )


WRONG = {
    "type": ("expect_column_values_to_not_be_nul", "did you mean expect_column_values_to_not_be_null?"),
    "argument": ("expect_column_values_to_not_be_null, colum: a", "did you mean column?"),
    "missing argument": ("expect_column_values_to_be_in_set, column: a", "value_set"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_expectation_is_one_line_with_its_mend(suite_file: Path, name: str) -> None:
    written, expected = WRONG[name]
    suite_file.write_text(f"name: a_suite\nexpectations:\n  - {{type: {written}, says: something}}\n")
    with pytest.raises(suites.SuiteError) as caught:
        suites.load_suite(suite_file)
    message = str(caught.value)
    assert "visits.yaml: expectations[0]" in message and expected in message and "\n" not in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("name: [", "line 1 is not valid YAML"),
        ("name: Not A Sentence\nexpectations: []", "name"),
        (GOOD + "blockin: true\n", "blockin"),
        (GOOD + GOOD.splitlines()[-1] + "\n", "again; give each expectation its own sentence"),
        (GOOD.replace(", says: every visit has an id", ""), "says"),
    ],
)
def test_a_wrong_suite_is_one_line_with_its_mend(suite_file: Path, content: str, expected: str) -> None:
    suite_file.write_text(content)
    with pytest.raises(suites.SuiteError) as caught:
        suites.read_suite(suite_file)
    assert (
        "visits.yaml" in str(caught.value) and expected in str(caught.value) and "\n" not in str(caught.value)
    )


@pytest.mark.parametrize("path", sorted(suites.EXPECTATIONS.rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_suite_is_right(path: Path) -> None:
    assert suites.load_suite(path).expectations


def test_publishing_asks_the_gate_and_refuses_all_or_none(suite_file: Path, tmp_path: Path) -> None:
    suite_file.write_text(GOOD)
    candidates = []
    for name, select in {"visits": "select null::varchar as visit_id", "notes": "select 1 as a"}.items():
        (tmp_path / name).mkdir()
        parquet(tmp_path / name, select)
        candidates.append(catalog.Candidate(f"input/north/{name}", tmp_path / name, "f" * 64))
    with pytest.raises(catalog.GateRefused) as refused:
        catalog.publish(str(tmp_path / "root"), "test", candidates)
    assert refused.value.verdicts["input/north/visits"].failures[0].unexpected == 1
    assert catalog.load(str(tmp_path / "root")).accepted == {}


def test_a_changed_accepted_file_is_noticed(suite_file: Path, tmp_path: Path) -> None:
    (tmp_path / "visits").mkdir()
    parquet(tmp_path / "visits", "select 'v' as visit_id")
    root = str(tmp_path / "root")
    catalog.publish(root, "test", [catalog.Candidate("input/north/visits", tmp_path / "visits", "f" * 64)])
    accepted = catalog.load(root)
    assert gate.changed_files(accepted, "input/north/visits") == 0
    Path(accepted.files("input/north/visits")[0]).write_bytes(b"other")
    assert gate.changed_files(accepted, "input/north/visits") == 1
    Path(accepted.files("input/north/visits")[0]).unlink()
    assert gate.changed_files(accepted, "input/north/visits") == 1
