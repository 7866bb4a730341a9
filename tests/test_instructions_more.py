"""The further question forms: each asks something, is balanced, and its answers are computed a second time in plain Python."""

from __future__ import annotations

import statistics

import polars as pl
import pytest

from ray_jobs.questions import bucket, make, registry
from ray_jobs.scoring import exact
from tests.test_instructions_answers import (
    around,
    at_hour,
    doses,
    hour_in,
    in_period,
    measured,
    one,
    record_of,
    status,
    threshold_in,
    value,
)
from tests.timeline import timeline

EACH = 20
TRIES = {"schema_alignment": 45.0, "clinical_reasoning": 30.0}
CORE = {t.id for forms in registry.load().templates.values() for t in forms}
FORMS = [t for forms in registry.load(forms="all").templates.values() for t in forms if t.id not in CORE]


@pytest.fixture(scope="module")
def world():
    return timeline(400, seed=21, full=True)


@pytest.fixture(scope="module")
def questions(world):
    known = pl.read_csv(bucket.CONCEPTS, infer_schema_length=None)
    return pl.concat(make.make(*world, known, registry.load(forms="all"), TRIES)[0].values())


def test_the_registry_is_wide():
    forms = [t for forms in registry.load(forms="all").templates.values() for t in forms]
    assert len(forms) >= 80 and len({t.family for t in forms}) >= 12
    assert {t.answer for t in forms} == {"number", "time", "yes_no", "category", "set"}


def test_evidence_of_every_form_was_known(world, questions):
    assert bucket.faults(questions, world[0]) == (0, 0)
    told = questions.filter(pl.col("answer_type") != "not_in_record", pl.col("answer") != "no")
    assert told["evidence"].list.len().min() >= 1


def test_a_yes_is_as_frequent_as_a_no(questions):
    for (form,), asked in questions.filter(pl.col("answer_type") == "yes_no").group_by("template_id"):
        if asked.height >= 100:
            assert asked["answer"].value_counts(normalize=True)["proportion"].max() < 0.66, form


@pytest.mark.parametrize("template", [t.id for t in FORMS])
def test_answers_are_those_of_the_record(world, questions, template):
    asked = questions.filter(pl.col("template_id") == template).sort("id").head(EACH)
    assert asked.height >= 3
    for question in asked.iter_rows(named=True):
        expected = ORACLES[template](question, record_of(world[0], question))
        if question["answer_type"] == "not_in_record":
            assert expected is None and question["answer"] == "not in the record"
        elif question["answer_value"] is None:
            assert question["answer"] == expected
        else:
            assert expected == pytest.approx(question["answer_value"], abs=question["tolerance_abs"] + 1e-9)


def test_a_set_is_right_in_any_order():
    assert exact("a, b c", "B c, a.", "set", None, None)
    assert not exact("a, b c", "a, b", "set", None, None)


def named(record, kind, prefix, item=None):
    """(hour, item, row) of the events of a kind whose text starts with `prefix`, the route cut off."""
    found = [(r["hour"], r["text"].removeprefix(prefix), r) for r in record if r["kind"] == kind]
    found = [(h, t.rsplit(" by ", 1)[0], r) for h, t, r in found if r["text"].startswith(prefix)]
    return [f for f in found if item is None or f[1] == item]


def orders(record, item):
    return named(record, "prescription", "order of ", item)


def drugs(record, item=None):
    found = [(r["hour"], r["text"].split(" of ", 1)[1].rsplit(" by ", 1)[0], r) for r in doses(record)]
    return [f for f in found if item is None or f[1] == item]


def units(record, item=None):
    return named(record, "transfer", "transfer to ", item)


def runs(record, item):
    return named(record, "infusion", "start of ", item), named(record, "infusion", "end of ", item)


def cultures(record, item=None):
    found = [
        (r["hour"], *r["text"].removeprefix("culture of ").split(": "), r)
        for r in record
        if r["kind"] == "culture"
    ]
    return [f for f in found if item is None or f[1] == item]


def susceptibilities(record):
    return [r["text"].split(" and ")[1].split(": ") for r in record if r["kind"] == "susceptibility"]


def antibiotics(record, item=None):
    pool = set(registry.load().subjects["antibiotic"].items)
    return [f for f in drugs(record, item) if f[1] in pool]


def conditions(record):
    pool = next(t for t in FORMS if t.id == "condition_known").pool
    return {c for c in pool for r in record if r["kind"] == "diagnosis" and c in r["text"]}


def listed(names):
    return ", ".join(sorted(set(names)))


def yes_no(met):
    return "yes" if met else "no"


def hour_of(rows, position):
    return rows[position][0] if rows else None


def periodic(rows, q):
    return [rows[i] for i, r in enumerate(rows) if in_period([r[-1]], q)]


def values(rows):
    return [r["value"] for r in rows]


def of(kind, choose):
    return lambda q, r: (
        ((rows := measured(r, q["item"], kind)) and choose(values(in_period(rows, q)))) or None
    )


def when(choose):
    def answer(q, record):
        rows = measured(record, q["item"])
        return next(r["hour"] for r in rows if r["value"] == choose(values(rows)))

    return answer


def beyond(q, record):
    side = "low" if "below" in q["question"] else "high"
    return [r for r in measured(record, q["item"]) if status(r) == side]


def at_named(q, record, item):
    return at_hour(measured(record, item), q)["value"]


def beside(pick, side):
    def answer(q, record):
        sides = around(q, record)
        return sides and pick(values(sides[side]))

    return answer


def returned(q, record):
    states = [status(r) for r in measured(record, q["item"])]
    first = next(i for i, s in enumerate(states) if s != "normal")
    return yes_no("normal" in states[first:])


def last_before(q, record, rows, read):
    """What `read` says of the last value before (or the first after) the first of `rows`."""
    start = rows[0][0]
    series = measured(record, q["item"])
    before = [r for r in series if r["hour"] < start]
    return read(before, [r for r in series if r["hour"] > start])


def mean_shift(q, record):
    before, after = (statistics.mean(values(side)) for side in around(q, record))
    return "higher" if after > before else "lower"


def lowest_side(q, record):
    before, after = (min(values(side)) for side in around(q, record))
    return "before" if before < after else "after"


def in_unit(q, record):
    stays = units(record)
    place = next(i for i, s in enumerate(stays) if s[1] == q["item"])
    return stays[place + 1][0] - stays[place][0]


def previous(q, record):
    mine = drugs(record, q["item"])
    if not mine:
        return None
    firsts = {name: hour for hour, name, _ in reversed(drugs(record))}
    earlier = [(h, n) for n, h in firsts.items() if h < mine[0][0] and n != q["item"]]
    return max(earlier)[1]


ORACLES = {
    "score_value_at": lambda q, r: (row := at_hour(measured(r, q["item"], ("score",)), q)) and value(row),
    "score_last": lambda q, r: one(measured(r, q["item"], ("score",)), -1, value),
    "score_lowest": of(("score",), min),
    "output_at": lambda q, r: value(at_hour(measured(r, q["item"], ("output",)), q)),
    "output_total": of(("output",), sum),
    "output_highest": of(("output",), max),
    "output_count": of(("output",), len),
    "vital_count": of(("vital",), len),
    "vital_last_time": lambda q, r: one(measured(r, q["item"], ("vital",)), -1, lambda row: row["hour"]),
    "lab_first_time": lambda q, r: one(measured(r, q["item"], ("lab",)), 0, lambda row: row["hour"]),
    "highest_time": when(max),
    "lowest_time": when(min),
    "median": of(("lab", "vital"), statistics.median),
    "range": lambda q, r: max(v := values(in_period(measured(r, q["item"]), q))) - min(v),
    "status_first": lambda q, r: status(measured(r, q["item"])[0]),
    "different_labs": lambda q, r: len(
        {x["text"] for x in in_period([x for x in r if x["kind"] == "lab" and x["value"] is not None], q)}
    ),
    "different_drugs": lambda q, r: len({f[1] for f in periodic(drugs(r), q)}),
    "drug_list": lambda q, r: listed(f[1] for f in periodic(drugs(r), q)),
    "drug_last_time": lambda q, r: hour_of(drugs(r, q["item"]), -1),
    "drug_first": lambda q, r: drugs(r)[0][1],
    "drug_last": lambda q, r: drugs(r)[-1][1],
    "dose_first": lambda q, r: one(orders(r, q["item"]), 0, lambda f: f[-1]["value"]),
    "dose_last": lambda q, r: one(orders(r, q["item"]), -1, lambda f: f[-1]["value"]),
    "antibiotic_known": lambda q, r: yes_no(antibiotics(r, q["item"])),
    "rate_first": lambda q, r: one(runs(r, q["item"])[0], 0, lambda f: f[-1]["value"]),
    "infusion_start_time": lambda q, r: hour_of(runs(r, q["item"])[0], 0),
    "infusion_end_time": lambda q, r: hour_of(runs(r, q["item"])[1], -1),
    "infusion_duration": lambda q, r: runs(r, q["item"])[1][0][0] - runs(r, q["item"])[0][0][0],
    "infusion_running": lambda q, r: yes_no(
        runs(r, q["item"])[0][0][0] < hour_in(q) < runs(r, q["item"])[1][0][0]
    ),
    "infusion_known": lambda q, r: yes_no(runs(r, q["item"])[0]),
    "transfer_count": lambda q, r: len(periodic(units(r), q)),
    "unit_time": lambda q, r: hour_of(units(r, q["item"]), 0),
    "unit_first": lambda q, r: units(r)[0][1],
    "unit_at": lambda q, r: [f for f in units(r) if f[0] <= hour_in(q)][-1][1],
    "unit_list": lambda q, r: listed(f[1] for f in units(r)),
    "unit_exists": lambda q, r: yes_no(periodic(units(r, q["item"]), q)),
    "condition_known": lambda q, r: yes_no(q["item"] in conditions(r)),
    "condition_list": lambda q, r: listed(conditions(r)),
    "diagnosis_count": lambda q, r: sum(row["kind"] == "diagnosis" for row in r),
    "procedure_known": lambda q, r: yes_no(named(r, "procedure", "procedure: ", q["item"])),
    "procedure_time": lambda q, r: hour_of(named(r, "procedure", "procedure: ", q["item"]), 0),
    "procedure_last": lambda q, r: named(r, "procedure", "procedure: ")[-1][1],
    "procedure_list": lambda q, r: listed(f[1] for f in named(r, "procedure", "procedure: ")),
    "culture_time": lambda q, r: hour_of(cultures(r, q["item"]), 0),
    "culture_count": lambda q, r: len(cultures(r)),
    "specimen_known": lambda q, r: yes_no(cultures(r, q["item"])),
    "growth_known": lambda q, r: yes_no([c for c in cultures(r, q["item"]) if c[2] != "no growth"]),
    "resistant_list": lambda q, r: listed(drug for drug, said in susceptibilities(r) if said == "resistant"),
    "tested_count": lambda q, r: len({drug for drug, _ in susceptibilities(r)}),
    "age_over": lambda q, r: yes_no(r[0]["value"] >= threshold_in(q)),
    "note_time": lambda q, r: hour_of(named(r, "note", "note: ", q["item"]), -1),
    "count_abnormal": lambda q, r: len(beyond(q, r)),
    "first_abnormal_time": lambda q, r: beyond(q, r)[0]["hour"],
    "returned_to_normal": returned,
    "both_abnormal": lambda q, r: yes_no(
        all(status(measured(r, q[slot])[-1]) != "normal" for slot in ("item", "other"))
    ),
    "change_whole": lambda q, r: (v := values(measured(r, q["item"])))[-1] - v[0],
    "change_step": lambda q, r: (v := values(measured(r, q["item"])))[-1] - v[-2],
    "anion_gap": lambda q, r: (
        at_named(q, r, "sodium") - at_named(q, r, "chloride") - at_named(q, r, "bicarbonate")
    ),
    "pulse_pressure": lambda q, r: (
        at_named(q, r, "systolic blood pressure, cuff") - at_named(q, r, "diastolic blood pressure, cuff")
    ),
    "shock_index": lambda q, r: (
        at_named(q, r, "heart rate") / at_named(q, r, "systolic blood pressure, cuff")
    ),
    "urea_creatinine_ratio": lambda q, r: at_named(q, r, "urea nitrogen") / at_named(q, r, "creatinine"),
    "highest_after_drug": beside(max, 1),
    "lowest_before_drug": beside(min, 0),
    "lowest_side": lowest_side,
    "count_after_drug": beside(len, 1),
    "count_before_drug": beside(len, 0),
    "mean_shift_after_drug": mean_shift,
    "drug_before_drug": previous,
    "lab_before_drug": lambda q, r: yes_no(
        measured(r, q["item"], ("lab",))[0]["hour"] < drugs(r, q["other"])[0][0]
    ),
    "hours_between_drugs": lambda q, r: drugs(r, q["other"])[0][0] - drugs(r, q["item"])[0][0],
    "hours_to_antibiotic": lambda q, r: antibiotics(r, q["other"])[0][0] - cultures(r, q["item"])[0][0],
    "antibiotic_before_culture": lambda q, r: yes_no(
        antibiotics(r, q["item"])[0][0] < cultures(r, q["other"])[0][0]
    ),
    "hours_in_unit": in_unit,
    "value_before_transfer": lambda q, r: last_before(
        q, r, units(r, q["other"]), lambda before, _: before[-1]["value"]
    ),
    "value_after_transfer": lambda q, r: last_before(
        q, r, units(r, q["other"]), lambda _, after: after[0]["value"]
    ),
    "status_before_transfer": lambda q, r: last_before(
        q, r, units(r, q["other"]), lambda before, _: status(before[-1])
    ),
    "value_before_procedure": lambda q, r: last_before(
        q, r, named(r, "procedure", "procedure: ", q["other"]), lambda before, _: before[-1]["value"]
    ),
    "change_after_procedure": lambda q, r: last_before(
        q,
        r,
        named(r, "procedure", "procedure: ", q["other"]),
        lambda before, after: "higher" if after[0]["value"] > before[-1]["value"] else "lower",
    ),
    "unit_at_culture": lambda q, r: [f for f in units(r) if f[0] < cultures(r, q["other"])[0][0]][-1][1],
    "antibiotic_before_antibiotic": lambda q, r: yes_no(
        antibiotics(r, q["item"])[0][0] < antibiotics(r, q["other"])[0][0]
    ),
}
