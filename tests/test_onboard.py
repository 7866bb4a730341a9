"""Onboarding an export nobody has seen: a draft that loads, guesses that decide nothing, counts and never a value."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from orchestration import guessing, layout, onboard
from orchestration.profiling import Seen
from orchestration.wording import LayoutError

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
    with pytest.raises(LayoutError, match="did you mean riverside"):
        onboard.check("riversid", base)


@pytest.mark.parametrize(
    ("code", "label", "units", "quantiles", "first"),
    [
        ("2345-7", "", [], None, ("glucose", 1.0)),
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
