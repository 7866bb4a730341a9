"""Onboarding an export nobody has seen: a draft that loads, guesses that decide nothing, counts and never a value."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from orchestration import guessing, layout, onboard
from orchestration.profiling import Seen
from orchestration.wording import LayoutError
from tests import small_input

SECRET = "Quarantania"  # planted where a patient's value could leak


def export(folder: Path) -> Path:
    """30 patients: long labs parted by bars with American times, their dictionary, and a test that only 3 patients had."""
    folder.mkdir()
    people = ["pid,sex,born,name"] + [f"p{n},{'FM'[n % 2]},19{40 + n},{SECRET}" for n in range(30)]
    cases = ["case_id,pid,came,went"]
    cases += [f"c{n},p{n},2024-03-01 10:00:00,2024-03-05 12:00:00" for n in range(30)]
    labs = ["pid|case_id|taken|item|result|unit"]
    for n in range(30):
        labs.append(f"p{n}|c{n}|03/02/2024 07:{n:02}|A1|{80 + 3 * n}|mg/dL")
        labs.append(f"p{n}|c{n}|03/02/2024 07:{n:02}|A2|{60 + 2 * n}|µmol/L")
    labs += [f"p{n}|c{n}|03/02/2024 09:00|A3|{SECRET if n else 71077345}|" for n in range(3)]
    content = {
        "people.csv": people,
        "cases.csv": cases,
        "labs.csv": labs,
        "items.csv": ["item,label", "A1,Glucose", "A2,Creatinine (plasma)", "A3,Rare test"],
    }
    for name, lines in content.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def riverside(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    base = tmp_path_factory.mktemp("defs")
    return base, onboard.onboard("riverside", str(export(base.parent / "riverside_export")), base)


def read(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["code"]: row for row in csv.DictReader(file)}


def test_the_draft_loads_as_a_mapping(riverside) -> None:
    base, _ = riverside
    draft = layout.load(base / "riverside", None)
    sources = {source.table: source for source in draft.sources}
    assert draft.tables.raw["labs"].delimiter == "|"
    assert draft.tables.raw["people"].key == ["pid"]
    assert sources["patients"].raw_table == "people" and sources["visits"].raw_table == "cases"
    columns = draft.tables.input["measurements"][0].columns
    assert columns["event_at"] == "try_strptime(taken, '%m/%d/%Y %H:%M')"
    assert (columns["code"], columns["value_text"], columns["unit"]) == ("item", "result", "unit")


def test_every_item_is_listed_and_guessed_but_not_decided(riverside) -> None:
    base, summary = riverside
    items = read(base / "riverside" / "items.csv")
    assert "3 items to decide" in summary
    assert list(items) == ["A1", "A2", "A3"]
    assert all(not row["decision"] and not row["concept"] for row in items.values())
    assert items["A1"]["note"].startswith("guess: glucose") and items["A1"]["unit"] == "mg/dL"
    assert items["A2"]["note"].startswith("guess: creatinine")
    profile = read(base / "riverside" / "profile.csv")
    assert (profile["A1"]["rows"], profile["A1"]["patients"], profile["A1"]["q50"]) == ("30", "30", "123.5")


def test_few_patients_are_not_counted_and_no_value_is_quoted(riverside) -> None:
    base, summary = riverside
    rare = read(base / "riverside" / "profile.csv")["A3"]
    assert (rare["rows"], rare["patients"], rare["q50"]) == ("", "", "")
    written = summary + "".join(path.read_text() for path in (base / "riverside").iterdir())
    assert SECRET not in written and "71077345" not in written and "p17" not in written


def test_check_weighs_what_is_undecided_by_rows(riverside) -> None:
    base, _ = riverside
    path = base / "riverside" / "items.csv"
    before = path.read_text()
    assert onboard.check("riverside", base).startswith("riverside: 0 of 3 items decided, 0.0%")
    try:
        path.write_text(before.replace("labs,A1,Glucose,,,", "labs,A1,Glucose,glucose,map,"))
        lines = onboard.check("riverside", base).splitlines()
    finally:
        path.write_text(before)
    assert lines[0] == "riverside: 1 of 3 items decided, 50.0% of their rows"
    assert "labs/A2" in lines[1] and "labs/A3" in lines[2] and "few" in lines[2]


def test_mistakes_are_one_line_with_their_mend(riverside, tmp_path: Path) -> None:
    base, _ = riverside
    for arguments, part in [
        (("riverside", str(tmp_path), base), "there already"),
        (("River Side", str(tmp_path), base), "lower case"),
        (("elsewhere", str(tmp_path / "none"), base), "is no folder"),
        (("elsewhere", str(tmp_path), base), "holds no csv"),
    ]:
        with pytest.raises(LayoutError, match=part) as caught:
            onboard.onboard(*arguments)
        assert "\n" not in str(caught.value)
    with pytest.raises(LayoutError, match="no hospital is called riversid; did you mean riverside"):
        onboard.check("riversid", base)


def research(folder: Path) -> Path:
    """30 persons in tables that name their columns after themselves, with codes twice and every time as day and time."""
    folder.mkdir()
    days = [(f"2024-03-{1 + n // 10:02}", f"2024-03-{2 + n // 10:02}") for n in range(30)]
    content = {
        "person.csv": ["person_id,gender_concept_id,year_of_birth,gender_source_value,person_source_value"]
        + [f"{n},850{n % 2},19{40 + n},{'FM'[n % 2]},source-{n}" for n in range(30)],
        "device_exposure.csv": [
            "device_exposure_id,person_id,device_concept_id,device_exposure_start_date,device_exposure_start_datetime,visit_occurrence_id",
            "1,3,4217646,2024-03-01,2024-03-01 00:00:00,103",
        ],
        "visit_detail.csv": [
            "person_id,visit_occurrence_id,visit_detail_id,visit_detail_start_date,visit_detail_end_date"
        ]
        + [f"{n},{100 + n},{900 + n},{days[n][0]},{days[n][1]}" for n in range(30)],
        "visit_occurrence.csv": [
            "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_start_datetime,visit_end_date,visit_end_datetime"
        ]
        + [f"{100 + n},{n},9201,{d},{d} 10:00:00,{e},{e} 11:00:00" for n, (d, e) in enumerate(days)],
        "lab_result.csv": [
            "lab_result_id,person_id,lab_concept_id,lab_date,lab_datetime,lab_type_concept_id,value_as_number,unit_concept_id,"
            "visit_occurrence_id,lab_source_value,unit_source_value"
        ]
        + [
            f"{2 * n + k},{n},{300 + k},{days[n][0]},{days[n][0]} 12:00:00,20200101,{80 + n},8840,{100 + n},{code},mg/dL"
            for n in range(30)
            for k, code in enumerate(["2339-0", "GLU"])
        ],
        "condition_occurrence.csv": [
            "condition_occurrence_id,person_id,visit_occurrence_id,condition_start_date,condition_end_date,condition_concept_id,"
            "condition_source_value"
        ]
        + [f"{n},{n},{100 + n},{days[n][0]},,{n % 3},I{10 + n % 3}" for n in range(30)],
        "condition_era.csv": ["condition_era_id,person_id,condition_era_start_date,condition_concept_id"]
        + [f"{n},{n},{days[n][0]},{n % 3}" for n in range(30)],
        "drug_exposure.csv": [
            "drug_exposure_id,person_id,visit_occurrence_id,drug_exposure_start_date,drug_exposure_end_date,drug_concept_id,"
            "drug_source_value,vocabulary_id"
        ]
        + [f"{n},{n},{100 + n},{days[n][0]},{days[n][1]},{700 + n % 4},0,RxNorm" for n in range(30)],
        "diagnoses_icd.csv": ["person_id,visit_occurrence_id,seq_num,icd_code,icd_version"]
        + [f"{n},{100 + n},1,I1{n % 3},10" for n in range(30)],
        "concept.csv": ["concept_id,concept_name", "300,Glucose in blood", "301,Glucose by meter"],
    }
    for name, lines in content.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_tables_that_name_their_columns_after_themselves_are_told_by_them(tmp_path: Path) -> None:
    onboard.onboard("network", str(research(tmp_path / "export")), tmp_path)
    draft = layout.load(tmp_path / "network", None).tables
    assert draft.raw["visit_detail"].key == ["visit_detail_id"] and draft.raw["lab_result"].key == [
        "lab_result_id"
    ]
    sources = {
        table: [(source.from_, source.columns) for source in listed] for table, listed in draft.input.items()
    }
    assert sources["patients"][0][1]["sex"] == "gender_source_value"
    [(visits, columns)] = sources["visits"]
    assert visits == "visit_occurrence" and columns["visit_type"] == "visit_concept_id"
    assert columns["event_at"] == "coalesce(visit_start_datetime, visit_start_date)"
    assert columns["end_at"] == "coalesce(visit_end_datetime, visit_end_date)"
    [(measured, columns)] = sources["measurements"]
    assert (measured, columns["code"], columns["unit"]) == (
        "lab_result",
        "lab_source_value",
        "unit_source_value",
    )
    (coded, columns), (billed, of_visit) = sources[
        "diagnoses"
    ]  # not the eras, which sum up what the visits hold
    assert (coded, columns["code"]) == ("condition_occurrence", "condition_source_value")
    assert (billed, of_visit["code_system"]) == ("diagnoses_icd", "diagnoses_icd.icd_version")
    assert (
        of_visit["event_at"]
        == "coalesce(visit_occurrence.visit_end_datetime, visit_occurrence.visit_end_date)"
    )
    [(given, columns)] = sources["medications"]
    assert (given, columns["code"], columns["code_system"]) == (
        "drug_exposure",
        "drug_concept_id",
        "vocabulary_id",
    )
    assert (columns["end_at"], columns["kind"]) == ("drug_exposure_end_date", "'order'")
    items = read(tmp_path / "network" / "items.csv")
    assert items["2339-0"]["label"] == "Glucose in blood" and items["GLU"]["label"] == "Glucose by meter"
    assert items["2339-0"]["note"] == "guess: glucose 1" and items["GLU"]["note"].startswith("guess: glucose")


def test_an_id_is_that_of_its_table(tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.mkdir()
    (export / "patients.csv").write_text(
        "Id,GENDER,BIRTHDATE\n" + "".join(f"p{n},F,19{40 + n}-01-01\n" for n in range(12))
    )
    encounters = "".join(f"e{n},2024-01-01T10:00:00Z,2024-01-02T10:00:00Z,p{n}\n" for n in range(12))
    (export / "encounters.csv").write_text("Id,START,STOP,PATIENT\n" + encounters)
    (export / "careplans.csv").write_text("Id,START,STOP,PATIENT,ENCOUNTER\nc1,2024-01-01,2024-02-01,p1,e1\n")
    onboard.onboard("plain", str(export), tmp_path)
    draft = layout.load(tmp_path / "plain", None).tables.input
    assert (
        draft["patients"][0].from_ == "patients"
        and draft["patients"][0].columns["birth_year"] == "left(BIRTHDATE, 4)"
    )
    assert draft["visits"][0].from_ == "encounters"
    assert draft["visits"][0].columns == {
        "patient_id": "PATIENT",
        "visit_id": "Id",
        "event_at": "START",
        "end_at": "STOP",
    }
    assert "no table was recognised as measurements" in onboard.check("plain", tmp_path)


def test_check_counts_the_accepted_input_of_a_hospital_that_extends_a_layout(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("WARDLINE_DATA", str(tmp_path))
    with pytest.raises(
        LayoutError, match=r"items are in orchestration/schemas/omop_5_4/items.csv. Run python -m"
    ) as caught:
        onboard.check("omop")
    assert "\n" not in str(caught.value)
    codes = [("8867-4", f"p{n}") for n in range(30)] + [("LOCAL", "p1")]
    measured = [
        {"source_table": "measurement", "code": code, "patient_id": patient} for code, patient in codes
    ]
    items = [{"source_table": "measurement", "code": "LOCAL", "label": "Local test"}]
    small_input.accept(str(tmp_path), "omop", {"measurements": measured, "items": items})
    lines = onboard.check("omop").splitlines()
    assert lines[0] == "omop: 1 of 2 items decided, 100.0% of their rows"
    assert "few rows  measurement/LOCAL  Local test" in lines[1]


@pytest.mark.parametrize(
    ("code", "label", "units", "quantiles", "first"),
    [
        ("2345-7", "", [], None, ("glucose", 1.0)),
        ("2339-0", "", [], None, ("glucose", 1.0)),  # of a layout
        ("x", "Heart Rate", ["bpm"], (55.0, 80.0, 120.0), ("heart_rate", 1.0)),
        ("x", "Potassium, serum", ["mmol/L"], (3.1, 4.1, 5.2), ("potassium", None)),
        ("x", "Temp", ["F"], (96.8, 98.4, 101.0), ("temperature", None)),
    ],
)
def test_the_likeliest_concept_comes_first(code, label, units, quantiles, first) -> None:
    ranked = guessing.ranked(Seen("t", code, label, 50, 500, units, quantiles))
    assert ranked[0][0] == first[0]
    assert first[1] is None or ranked[0][1] == first[1]


def test_nothing_like_the_dictionary_has_no_guess() -> None:
    assert guessing.ranked(Seen("t", "q9", "Linen changed", 50, 500, [], (1.0, 1.0, 1.0))) == []
