"""The kernel that carries values over the grid, against a plain loop; and the benchmark of the grid at a small size."""

from __future__ import annotations

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration import grid
from tests.benchmarks import harmonise as benchmark
from tests.benchmarks.hourly_grid.generate import generate

CONCEPTS = [("a", 0), ("b", 2), ("c", 100)]


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


@given(worlds(), st.sampled_from([1, 3, 1000]), st.sampled_from([30, 60]))
@settings(max_examples=60, deadline=None)
def test_carried_is_what_a_loop_carries(world, batch_rows, minutes):
    lengths, facts = world
    starts = [sum(lengths[:n]) for n in range(len(lengths))]
    rows = sorted(
        (k, starts[c] + s, value, n_obs, s - since) for (c, s, k), (value, n_obs, since) in facts.items()
    )
    names = ["concept_no", "place", "value", "n_obs", "measured_step"]
    types = [pa.int16(), pa.int64(), pa.float64(), pa.int32(), pa.int32()]
    columns = zip(*rows, strict=True) if rows else [[]] * 5
    news = pa.table([pa.array(list(c), t) for c, t in zip(columns, types, strict=True)], names)
    clocks = pa.table({"clock_no": range(10, 10 + len(lengths)), "steps": lengths, "first_row": starts})
    before, grid.BATCH_ROWS = grid.BATCH_ROWS, batch_rows
    try:
        found = grid.carried(news, clocks, CONCEPTS, minutes).read_all().to_pylist()
    finally:
        grid.BATCH_ROWS = before
    expected = []
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
                row[f"{name}_value"] = value if usable else None
                row[f"{name}_n_obs"] = (fact and fact[1]) or 0
                row[f"{name}_age"] = step - measured if usable else None
            expected.append(row)
    assert found == expected


def test_the_three_ways_of_the_benchmark_make_the_same_grid(tmp_path):
    root, outs = str(tmp_path / "data"), {s: tmp_path / s for s in ("ours", "textbook", "pandas")}
    generate(root, rows=20_000)
    costs = {side: benchmark.cost(root, side, out) for side, out in outs.items()}
    assert all(cost["cpu_s"] > 0 and cost["peak_gb"] > 0 for cost in costs.values())
    assert benchmark.differing_rows(outs) == 0
    with duckdb.connect(str(outs["textbook"] / "textbook.duckdb")) as connection:
        connection.execute("update wide set heart_rate_value = heart_rate_value + 1 where hour = 5")
    assert benchmark.differing_rows(outs) == 10  # one hour of each stay: the comparison can fail
