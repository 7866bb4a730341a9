"""Answers, computed a second time: from the question's own words, in plain Python over the rows that were known."""

from __future__ import annotations

import re

import duckdb
import polars as pl
import pytest

from ray_jobs.questions import bucket, make, registry
from tests.timeline import concepts, timeline

EACH = 25  # questions of each template
DICTIONARY = concepts()
LABEL = re.compile(r"^(.+?)(?: of blood| per .+| by .+| from .+| in .+)?$")


@pytest.fixture(scope="module")
def world():
    return timeline(400, seed=11)


@pytest.fixture(scope="module")
def questions(world):
    made = make.make(*world, pl.read_csv(bucket.CONCEPTS, infer_schema_length=None), registry.load())[0]
    return pl.concat(made.values())


def templates():
    return [t.id for forms in registry.load().templates.values() for t in forms]


@pytest.mark.parametrize("template", templates())
def test_answers_are_those_of_the_record(world, questions, template):
    asked = questions.filter(pl.col("template_id") == template).sort("id").head(EACH)
    assert asked.height >= 5
    for question in asked.iter_rows(named=True):
        record = record_of(world[0], question)
        assert len(record) == question["n_visible"]
        expected = ORACLES[template](question, record)
        if question["answer_type"] == "not_in_record":
            assert expected is None and question["answer"] == "not in the record"
        elif question["answer_value"] is None:
            assert question["answer"] == expected
        else:
            assert abs(expected - question["answer_value"]) <= question["tolerance_abs"] + 1e-9
            assert question["answer"].split()[0] == str(question["answer_value"]).removesuffix(".0") or float(
                question["answer"].split()[0]
            ) == pytest.approx(question["answer_value"])
        working, _, _ = question["says"].rpartition(question["answer"])
        numbers = [] if expected is None else WORKINGS.get(template, lambda q, r: [])(question, record)
        told = re.findall(r"-?[\d.]+", working)
        assert len(told) == len(numbers) and bool(told) == working.endswith(": ")
        for said, number in zip(told, numbers, strict=True):
            places = len(said.partition(".")[2])
            assert float(said) == pytest.approx(number, abs=0.5001 * 10**-places)


def record_of(events, question):
    """The visit's rows that were known at the question's cut-off, by DuckDB, in the order of time."""
    rows = events.filter(pl.col("visit_id") == question["visit_id"]).to_arrow()  # read by DuckDB below  # noqa: F841
    names = [question[c] for c in ("admitted_at", "hospital", "cutoff_at")]
    with duckdb.connect() as connection:
        cursor = connection.execute(
            "select *, epoch(event_at - ?) / 3600 as hour from rows where hospital = ? and available_at <= ? "
            "order by event_at, row_id",
            names,
        )
        columns = [c[0] for c in cursor.description]
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def measured(record, item, kinds=("lab", "vital")):
    found = [r for r in record if r["kind"] in kinds and r["value"] is not None]
    return [r for r in found if LABEL.match(r["text"]).group(1) == item]


def given(record, drug):
    return [r for r in doses(record) if _drug(r) == drug]


def doses(record):
    return [r for r in record if re.match("(order|dose|start) of ", r["text"])]


def _drug(row):
    return row["text"].split(" of ", 1)[1].rsplit(" by ", 1)[0]


def hour_in(question):
    return float(re.search(r"at (-?\d+\.\d) h", question["question"]).group(1))


def threshold_in(question):
    return float(re.search(r"(\d+) years", question["question"]).group(1))


def at_hour(rows, question):
    here = [r for r in rows if abs(r["hour"] - hour_in(question)) <= 0.0501]
    return here[0] if here else None


def in_period(rows, question):
    words = question["question"]
    if found := re.search(r"in the first (\d+) hours", words):
        return [r for r in rows if r["hour"] < int(found.group(1))]
    if found := re.search(r"after hour (\d+)", words):
        return [r for r in rows if r["hour"] >= int(found.group(1))]
    return rows


def status(row):
    limits = DICTIONARY[row["concept"]]
    low, high = float(limits["normal_low"]), float(limits["normal_high"])
    return "low" if row["value"] < low else "high" if row["value"] > high else "normal"


def one(rows, position, read):
    return read(rows[position]) if rows else None


def value(row):
    return row["value"]


def around(question, record):
    """(values before, values after) the first dose of the drug, or None without it."""
    drug, rows = given(record, question["other"]), measured(record, question["item"])
    if not drug or not rows:
        return None
    start = drug[0]["hour"]
    return [r for r in rows if r["hour"] < start], [r for r in rows if r["hour"] > start]


def compare(one_value, other):
    return "higher" if one_value > other else "lower"


def item_at(q, record):
    drugs = [r for r in record if r["kind"] == "prescription"]
    row = at_hour(drugs, q)
    return row and _drug(row)


def count(q, record):
    rows = measured(record, q["item"], ("lab",))
    return len(in_period(rows, q)) if rows else None


def extreme(choose):
    def answer(q, record):
        rows = measured(record, q["item"])
        return choose([r["value"] for r in in_period(rows, q)]) if rows else None

    return answer


def attribute(kind, pattern):
    def answer(q, record):
        found = {m.group(1) for r in record if r["kind"] == kind and (m := re.search(pattern(q), r["text"]))}
        return found.pop() if len(found) == 1 else None

    return answer


def threshold_after(q, record):
    sides = around(q, record)
    if sides is None:
        return None
    direction, limit = re.search(r"(below|above) (-?[\d.]+)", q["question"]).groups()
    crossed = [
        v
        for r in sides[1]
        if (v := r["value"] < float(limit) if direction == "below" else r["value"] > float(limit))
    ]
    return "yes" if crossed else "no"


def next_antibiotic(q, record):
    cultures = [r for r in record if re.match(f"culture of {q['item']}: (?!no growth)", r["text"])]
    if not cultures:
        return None
    antibiotics = set(registry.load().subjects["antibiotic"].items)
    later = [r for r in record if r["kind"] == "prescription" and r["hour"] > cultures[0]["hour"]]
    return next(d for r in later if (d := _drug(r)) in antibiotics)


def next_of_drugs(q, record):
    drug = given(record, q["item"])
    later = [_drug(r) for r in record if r["kind"] == "prescription" and drug and r["hour"] > drug[0]["hour"]]
    return next((name for name in later if name != q["item"]), None)


def unit_at_drug(q, record):
    drug = given(record, q["other"])
    if not drug:
        return None
    units = [r for r in record if r["kind"] == "transfer" and r["hour"] < drug[0]["hour"]]
    return units[-1]["text"].removeprefix("transfer to ")


def change_after(q, record):
    sides = around(q, record)
    return sides and compare(sides[1][0]["value"], sides[0][-1]["value"])


def extreme_side(q, record):
    drug = given(record, q["other"])
    if not drug:
        return None
    highest, start = hours_of_extreme_and_drug(q, record)
    assert round(highest, 1) != round(start, 1), "a reader cannot tell"
    return "before" if highest < start else "after"


def before(q, record):
    one_drug, other = given(record, q["item"]), given(record, q["other"])
    if not one_drug or not other:
        return None
    return "yes" if one_drug[0]["hour"] < other[0]["hour"] else "no"


def trend(position):
    def answer(q, record):
        rows = measured(record, q["item"])
        return compare(rows[-1]["value"], rows[position]["value"]) if rows else None

    return answer


def hours(rows):
    return [r["hour"] for r in rows]


def ends_of_trend(position):
    def numbers(q, record):
        rows = measured(record, q["item"])
        return [rows[position]["value"], rows[-1]["value"]]

    return numbers


def furthest_after(q, record):
    after = [r["value"] for r in around(q, record)[1]]
    return [min(after) if " below " in q["question"] else max(after)]


def hours_of_extreme_and_drug(q, record):
    start = given(record, q["other"])[0]["hour"]
    return [max(measured(record, q["item"]), key=value)["hour"], start]


def around_drug(*ends):
    return lambda q, r: [around(q, r)[side][position]["value"] for side, position in ends]


BEFORE, AFTER = (0, -1), (1, 0)  # side of a drug's start, place in the values there
WORKINGS = {  # the numbers that are said before the answer
    "status_at": lambda q, r: [at_hour(measured(r, q["item"]), q)["value"]],
    "status_last": lambda q, r: [measured(r, q["item"])[-1]["value"]],
    "trend_step": ends_of_trend(-2),
    "trend_whole": ends_of_trend(0),
    "threshold_after_drug": furthest_after,
    "before": lambda q, r: hours([given(r, q["item"])[0], given(r, q["other"])[0]]),
    "change_after_drug": around_drug(BEFORE, AFTER),
    "extreme_side": hours_of_extreme_and_drug,
    "status_before_drug": around_drug(BEFORE),
    "status_after_drug": around_drug(AFTER),
}
ORACLES = {
    "lab_value_at": lambda q, r: (row := at_hour(measured(r, q["item"]), q)) and value(row),
    "vital_value_at": lambda q, r: (row := at_hour(measured(r, q["item"]), q)) and value(row),
    "first_value": lambda q, r: one(measured(r, q["item"]), 0, value),
    "last_value": lambda q, r: one(measured(r, q["item"]), -1, value),
    "last_time": lambda q, r: one(measured(r, q["item"], ("lab",)), -1, lambda row: row["hour"]),
    "drug_time": lambda q, r: one(given(r, q["item"]), 0, lambda row: row["hour"]),
    "lab_count": count,
    "highest": extreme(max),
    "lowest": extreme(min),
    "mean": extreme(lambda values: sum(values) / len(values)),
    "lab_exists": lambda q, r: "yes" if in_period(measured(r, q["item"]), q) else "no",
    "drug_known": lambda q, r: "yes" if given(r, q["item"]) else "no",
    "status_at": lambda q, r: status(at_hour(measured(r, q["item"]), q)),
    "status_last": lambda q, r: status(measured(r, q["item"])[-1]),
    "age": lambda q, r: next(row["value"] for row in r if row["kind"] == "admission"),
    "sex": attribute("admission", lambda q: "(female|male)"),
    "admission_type": attribute("admission", lambda q: "admission: (.+), (?:fe)?male"),
    "drug_at": item_at,
    "route": attribute("prescription", lambda q: f"^order of {re.escape(q['item'])} by (.+)$"),
    "organism": attribute("culture", lambda q: f"culture of {q['item']}: (.+)"),
    "susceptible": attribute("susceptibility", lambda q: f" and {re.escape(q['item'])}: (.+)"),
    "unit_last": lambda q, r: [row for row in r if row["kind"] == "transfer"][-1]["text"].removeprefix(
        "transfer to "
    ),
    "trend_step": trend(-2),
    "trend_whole": trend(0),
    "threshold_after_drug": threshold_after,
    "antibiotic_after_culture": next_antibiotic,
    "before": before,
    "change_after_drug": change_after,
    "extreme_side": extreme_side,
    "value_before_drug": lambda q, r: (sides := around(q, r)) and sides[0][-1]["value"],
    "status_before_drug": lambda q, r: (sides := around(q, r)) and status(sides[0][-1]),
    "value_after_drug": lambda q, r: (sides := around(q, r)) and sides[1][0]["value"],
    "status_after_drug": lambda q, r: (sides := around(q, r)) and status(sides[1][0]),
    "unit_at_drug": unit_at_drug,
    "drug_after_drug": next_of_drugs,
}
