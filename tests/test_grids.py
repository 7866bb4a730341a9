"""Sampling rates as data: a new one costs one file, a wrong one is one line; the kernel that carries values, against a loop."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration import dbt
from orchestration.grids import carried, definition, models
from orchestration.wording import LayoutError
from tests.benchmarks import harmonise as benchmark
from tests.benchmarks.hourly_grid.generate import generate

CONCEPTS = [("a", 0), ("b", 2), ("c", 100)]
GRID = """description: This test.
over: icu_stays
every: 15 minutes
long: true
concepts: [heart_rate, lactate]
"""


@pytest.fixture
def project(tmp_path) -> Path:
    return Path(shutil.copytree(dbt.PROJECT, tmp_path / "dbt_project"))


def test_a_new_rate_costs_one_file(project, tmp_path):
    (project / "grids" / "monitors.yaml").write_text(GRID)
    nodes = json.loads((dbt.target(project, tmp_path / "state") / "manifest.json").read_text())["nodes"]
    wide, long = (nodes[f"model.wardline.{name}"] for name in ("monitors", "monitors_long"))
    assert wide["fqn"] == ["wardline", "features", "monitors"] and wide["contract"]["enforced"]
    assert list(wide["columns"])[4:] == [
        *("step", "known_at", "heart_rate_per_min", "heart_rate_n_obs", "heart_rate_age_h"),
        *("lactate_mmol_l", "lactate_n_obs", "lactate_age_h"),
    ]
    assert {"concept", "value", "unit", "n_obs", "age_h"} <= long["columns"].keys()
    tests = {node["name"] for node in nodes.values() if node["resource_type"] == "test"}
    assert {"counts_what_was_known_monitors", "keys_are_unique_monitors_long"} <= tests


@pytest.mark.parametrize(
    ("pattern", "replacement", "line"),
    [
        ("every: .*", "every: 2 minutes", "every: 2 minutes is out of range; write a length from 5 minutes to 1 day"),
        ("every: .*", "every: 2 days", "every: 2 days is out of range; write a length from 5 minutes to 1 day"),
        ("every: .*", "every: hourly", "every: 'hourly' is no length; write one such as 15 minutes"),
        ("every: .*\n", "", "every: is missing; add it"),
        ("every: .*", "evry: 1 hour", "evry: there is no such key; did you mean every"),
        ("over: .*", "over: wards", "over: input should be 'icu_stays' or 'visits'; mend it"),
        ("heart_rate", "hart_rate", "concepts: 'hart_rate' is not in seeds/concepts.csv; did you mean heart_rate"),
        ("over: .*", "over: [", "is not a YAML mapping; mend its indentation or quotes"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(project, tmp_path, pattern, replacement, line):
    file = project / "grids" / "monitors.yaml"
    text, count = re.subn(pattern, replacement, GRID)
    assert count
    file.write_text(text)
    with pytest.raises(LayoutError) as caught:
        models.write(project, tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{file}: ") and "\n" not in said
    assert re.search(line, said), said


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("icu_15_hourly", "every: 15 minutes in a grid that is named hourly; copy the file to another name"),
        ("admission_summary", "there is a model admission_summary already; give the file another name"),
        ("Monitors", "names a table; use lower case letters, digits and _"),
    ],
)
def test_a_name_that_misleads_is_refused(project, tmp_path, name, line):
    (project / "grids" / f"{name}.yaml").write_text(GRID)
    with pytest.raises(LayoutError, match=line):
        models.write(project, tmp_path)


def test_lengths_are_minutes():
    lengths = {"5 minutes": 5, "1 hour": 60, "4 hours": 240, "1 day": 1440}
    made = {every: definition.Grid(description=".", over="visits", every=every) for every in lengths}
    assert {every: grid.minutes for every, grid in made.items()} == lengths


@st.composite
def worlds(draw):
    """Lengths of clocks, and {(clock, step, concept): (value, n_obs or None, steps since it was measured)}."""
    lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=6))
    places = [
        (c, s, k) for c, length in enumerate(lengths) for s in range(length) for k in range(len(CONCEPTS))
    ]
    chosen = draw(st.lists(st.sampled_from(places), unique=True, max_size=30))
    fact = st.tuples(st.floats(-9, 9), st.one_of(st.none(), st.integers(1, 5)), st.integers(0, 3))
    return lengths, {place: draw(fact) for place in chosen}


def tables(world) -> tuple[pa.Table, pa.Table]:
    """News and clocks of a world, as the kernel takes them."""
    lengths, facts = world
    starts = [sum(lengths[:n]) for n in range(len(lengths))]
    rows = [(k, starts[c] + s, value, n_obs, s - since) for (c, s, k), (value, n_obs, since) in facts.items()]
    names = ["concept_no", "place", "value", "n_obs", "measured_step"]
    types = [pa.int16(), pa.int64(), pa.float64(), pa.int32(), pa.int32()]
    columns = zip(*rows, strict=True) if rows else [[]] * 5
    news = pa.table([pa.array(list(c), t) for c, t in zip(columns, types, strict=True)], names)
    return news, pa.table({"clock_no": range(10, 10 + len(lengths)), "steps": lengths, "first_row": starts})


MINUTES = st.sampled_from([5, 15, 30, 60, 240, 1440])


@given(worlds(), st.sampled_from([1, 3, 1000]), MINUTES)
@settings(max_examples=60, deadline=None)
def test_carried_is_what_a_loop_carries(world, batch_rows, minutes):
    lengths, facts = world
    before, carried.BATCH_ROWS = carried.BATCH_ROWS, batch_rows
    try:
        found = carried.carried(*tables(world), CONCEPTS, minutes).read_all().to_pylist()
        known = carried.known(*tables(world), CONCEPTS, minutes).read_all().to_pylist()
    finally:
        carried.BATCH_ROWS = before
    expected, rows = [], []
    for clock, length in enumerate(lengths):
        latest = {}
        for step in range(length):
            row = {"clock_no": 10 + clock, "step": step}
            for k, (name, carry_h) in enumerate(CONCEPTS):
                fact = facts.get((clock, step, k))
                if fact:
                    latest[k] = (fact[0], step - fact[2])
                value, measured = latest.get(k, (None, None))
                usable = measured is not None and (step - measured) * minutes <= carry_h * 60
                cells = (value, (fact and fact[1]) or 0, step - measured) if usable else (None, 0, None)
                row |= {f"{name}_value": cells[0], f"{name}_n_obs": (fact and fact[1]) or 0}
                row[f"{name}_age"] = cells[2]
                if usable:
                    names = ("clock_no", "step", "concept", "value", "n_obs", "age")
                    rows.append(dict(zip(names, (10 + clock, step, name, *cells), strict=True)))
            expected.append(row)
    assert found == expected
    assert sorted(known, key=str) == sorted(rows, key=str)


@given(worlds(), MINUTES, st.data())
@settings(max_examples=60, deadline=None)
def test_nothing_from_another_patient_and_nothing_from_the_future(world, minutes, data):
    """Whatever one clock learns, and whatever is learned later, no other cell changes, at any length of a step."""
    lengths, facts = world
    clock = data.draw(st.integers(0, len(lengths) - 1))
    step = data.draw(st.integers(0, lengths[clock] - 1))
    other = {place: fact for place, fact in facts.items() if place[:2] < (clock, step) or place[0] > clock}
    other[(clock, step, 1)] = (77.0, 1, 0)

    def elsewhere(facts):
        rows = carried.carried(*tables((lengths, facts)), CONCEPTS, minutes).read_all().to_pylist()
        return [row for row in rows if row["clock_no"] != 10 + clock or row["step"] < step]

    assert elsewhere(facts) == elsewhere(other)


def test_the_three_ways_of_the_benchmark_make_the_same_grid(tmp_path):
    root, outs = str(tmp_path / "data"), {s: tmp_path / s for s in ("ours", "textbook", "pandas")}
    generate(root, rows=20_000)
    costs = {side: benchmark.cost(root, side, out) for side, out in outs.items()}
    assert all(cost["cpu_s"] > 0 and cost["peak_gb"] > 0 for cost in costs.values())
    assert benchmark.differing_rows(outs) == 0
    with duckdb.connect(str(outs["textbook"] / "textbook.duckdb")) as connection:
        connection.execute("update wide set heart_rate_value = heart_rate_value + 1 where hour = 5")
    assert benchmark.differing_rows(outs) == 10  # one hour of each stay: the comparison can fail
