"""Controls of the evaluation: what can be said without the record, and whose record is swapped in."""

from datetime import datetime

import polars as pl

from ray_jobs import controls, metrics
from ray_jobs.metrics import Row
from ray_jobs.scoring import score

AT = datetime(2020, 1, 1)


def questions(rows):
    names = ["id", "patient_id", "template_id", "item", "other", "answer", "answer_type", "n_visible"]
    frame = pl.DataFrame(rows, schema=names, orient="row")
    return frame.with_columns(
        hospital=pl.lit("north"),
        visit_id=pl.lit("v") + pl.col("patient_id"),
        cutoff_at=pl.lit(AT),
        question=pl.lit("?"),
        family=pl.col("template_id"),
        answer_value=pl.lit(None, pl.Float64),
        tolerance_abs=pl.lit(None, pl.Float64),
    )


def test_the_most_frequent_answer_of_the_template_and_ties_are_settled():
    train = pl.DataFrame(
        {"template_id": ["t"] * 5 + ["u"] * 2, "answer": ["a", "b", "b", "c", "a", "z", "y"]}
    )
    asked = pl.DataFrame({"template_id": ["u", "t", "new"]})
    assert controls.most_frequent(train, asked) == ["y", "a", ""]


def test_swapped_is_another_patient_who_holds_the_item_at_the_nearest_position():
    asked = questions(
        [
            ("1", "A", "value", "glucose", "", "5", "number", 50),
            ("2", "A", "value", "glucose", "", "6", "number", 51),  # the same patient is no other
            ("3", "B", "value", "glucose", "", "7", "number", 60),
            ("4", "C", "value", "glucose", "", "not in the record", "not_in_record", 50),  # does not hold it
            ("5", "D", "value", "glucose", "", "8", "number", 30),
            ("6", "E", "value", "sodium", "", "8", "number", 50),  # holds another item
        ]
    )
    found = controls.swaps(asked, asked)
    assert found[0] == ("north", "vB", AT)
    assert found[3] == ("north", "vA", AT)
    assert found[5] is None


def test_a_record_that_shares_the_drug_too_comes_first():
    asked = questions(
        [
            ("1", "A", "after", "glucose", "insulin", "yes", "yes_no", 50),
            ("2", "B", "after", "glucose", "aspirin", "yes", "yes_no", 50),
            ("3", "C", "after", "glucose", "insulin", "yes", "yes_no", 90),
        ]
    )
    assert [s[1] for s in controls.swaps(asked, asked)] == ["vC", "vA", "vA"]


def test_the_question_set_is_frozen_whatever_the_order_and_its_hash_sees_every_change():
    asked = questions([(str(i), "A", "t", "", "", "yes", "yes_no", i) for i in range(50)])
    some = controls.frozen(asked, 20)
    assert some.equals(controls.frozen(asked.reverse(), 20)) and some.height == 20
    assert set(controls.frozen(asked, 10)["id"]) <= set(some["id"])
    assert controls.sha256(some) == controls.sha256(some.reverse())
    assert controls.sha256(some) != controls.sha256(some.with_columns(answer=pl.lit("no")))


def test_blind_is_the_better_control_and_the_table_shows_every_row():
    asked = questions(
        [(str(i), f"P{i % 5}", "t" if i % 2 else "u", "", "", "yes", "yes_no", i) for i in range(20)]
    )
    every = pl.Series([True] * 20).to_numpy()

    def row(answers):
        return Row(score(asked, answers), every)

    rows = metrics.with_blind(
        {
            metrics.FREQUENT: row(["no"] * 20),
            metrics.TRAINED_BLIND: row(["yes"] * 10 + ["no"] * 10),
            metrics.STAGE2: row(["yes"] * 20),
        }
    )
    figures = metrics.split_metrics(asked, rows)
    assert figures["rows"][metrics.BLIND]["exact"]["value"] == 0.5
    gain = figures["differences"][f"{metrics.STAGE2} minus {metrics.BLIND}"]
    assert gain["value"] == 0.5 and gain["by_family"]["t"]["questions"] == 10
    table = metrics.table(figures, "tuning")
    assert f"| {metrics.STAGE2} | 20 | 100.0 (100.0 to 100.0) |" in table
