"""What holds for any pair of units and for any rows: conversions lead back, and fates add up."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from orchestration import dictionary, input_layer
from orchestration.extract_profile import Extract
from tests.small_input import write

CONCEPTS = {row["concept"]: row for row in dictionary.read_csv(dictionary.SEEDS / "concepts.csv")}
PAIRS = [(row["concept"], row["unit_from"]) for row in dictionary.conversions()]
FACTORS = {
    (row["concept"], row["unit_from"]): (row["factor"], row["shift"]) for row in dictionary.conversions()
}


def chemistry(concept: str) -> tuple[float | None, int | None]:
    mass, valence = CONCEPTS[concept]["molar_mass"], CONCEPTS[concept]["valence"]
    return float(mass) if mass else None, int(valence) if valence else None


@settings(deadline=None, max_examples=200)
@given(pair=st.sampled_from(PAIRS), number=st.floats(-1e6, 1e6))
def test_a_value_that_is_converted_and_back_is_what_it_was(pair: tuple[str, str], number: float) -> None:
    """By the factors of the dictionary there, and by a conversion of its own, the other way round, back."""
    concept, unit = pair
    factor, shift = FACTORS[pair]
    back, back_shift = dictionary.conversion(CONCEPTS[concept]["unit"], unit, *chemistry(concept))
    assert (number * factor + shift) * back + back_shift == pytest.approx(number, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.filter_too_much])
@given(pair=st.sampled_from(PAIRS), by_way_of=st.integers(0, 1_000), number=st.floats(1e-3, 1e4))
def test_a_way_through_a_third_unit_ends_where_the_straight_one_does(
    pair: tuple[str, str], by_way_of: int, number: float
) -> None:
    concept, unit = pair
    units = [u for c, u in PAIRS if c == concept]
    third = units[by_way_of % len(units)]
    try:
        factor, shift = dictionary.conversion(unit, third, *chemistry(concept))
    except dictionary.Inconvertible:
        assume(False)
    onward, onward_shift = FACTORS[concept, third]
    straight, straight_shift = FACTORS[pair]
    assert (number * factor + shift) * onward + onward_shift == pytest.approx(
        number * straight + straight_shift, rel=1e-9, abs=1e-9
    )


ITEMS = [
    {"code": "glu", "unit": "mg/dL", "concept": "glucose", "decision": "map"},
    {"code": "temp", "unit": "°C", "concept": "temperature", "decision": "map"},
    {"code": "wbc", "unit": "K/uL", "concept": "wbc", "decision": "map"},
    {"code": "ph", "unit": None, "concept": "ph", "decision": "map"},
    {"code": "alarm", "unit": "bpm", "concept": None, "decision": "ignore", "reason": "alarm_limit"},
    {"code": "new", "unit": "mg/dL", "concept": None, "decision": None},
]
ROW = st.fixed_dictionaries(
    {
        "patient_id": st.sampled_from(["p1", "p2"]),
        "source_table": st.sampled_from(["lab", "icu", "nowhere"]),
        "code": st.sampled_from([item["code"] for item in ITEMS] + ["in no list"]),
        "event_at": st.integers(0, 3).map(lambda hour: datetime(2150, 1, 1) + timedelta(hours=hour)),
        "value_text": st.sampled_from([None, "", "5", "100.4", "< 0.1", ">=600", "haemolysed", "9e99", "-3"]),
        "value_number": st.none() | st.sampled_from([5.0, 100.4, -3.0]) | st.floats(),
        "unit": st.sampled_from(
            [None, "", "mg/dL", "mmol/L", " MG / DL", "°F", "K/uL", "parsecs", "1", "mEq/L"]
        ),
    }
)


@settings(
    deadline=None,
    max_examples=8,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(rows=st.lists(ROW, min_size=40, max_size=160))
def test_whatever_the_rows_hold_their_fates_add_up(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict]
) -> None:
    """Through the SQL of `harmonised/measurements` as dbt compiled it: every row has one fate, and it has a reason."""
    folder = tmp_path_factory.mktemp("any_rows")
    rows = [
        {"hospital": "h", "row_id": f"r{number}", "available_at": row["event_at"], **row}
        for number, row in enumerate(rows)
    ]
    items = [
        {"hospital": "h", "row_id": f"{table}{item['code']}", "source_table": table, **item}
        for table in ("lab", "icu")
        for item in ITEMS
    ]
    content = {"measurements": rows, "items": items}
    files: dict[str, list[str]] = {}
    for table, columns in input_layer.tables().items():
        files[table] = [str(folder / f"{table}.parquet")]
        write(Path(files[table][0]), columns, content.get(table, ()))
    fates: Counter[str] = Counter()
    with Extract(folder / "scratch", files, "500MB") as extract:
        profile = extract.profile().to_pylist()
    for count in profile:
        if (count["scope"], count["measure"]) == ("whole", "fate"):
            fates[count["subject"].removeprefix("measurements of ")] += count["rows"]
            fate, _, reason = count["part"].partition(": ")
            assert fate in ("kept", "rescued", "quarantined", "ignored", "unmapped", "duplicate")
            assert bool(reason) == (fate != "kept")
    assert fates == Counter(row["source_table"] for row in rows)
