"""When an answer counts as right."""

import polars as pl
import pytest

from ray_jobs.questions.wording import final
from ray_jobs.scoring import exact, score, strict, token_f1


@pytest.mark.parametrize(
    ("answer", "predicted", "kind", "value", "tolerance", "right"),
    [
        ("7.4 mmol/l", "7.4 mmol/l", "number", 7.4, 0.148, True),
        ("7.4 mmol/l", "7.5 mmol/l", "number", 7.4, 0.148, True),
        ("7.4 mmol/l", "7.6 mmol/l", "number", 7.4, 0.148, False),
        ("7.4 mmol/l", "7.4 mg/dl", "number", 7.4, 0.148, False),
        ("7.4 mmol/l", "7.4", "number", 7.4, 0.148, False),
        ("7.4 mmol/l", "not in the record", "number", 7.4, 0.148, False),
        ("7.4 mmol/l", "", "number", 7.4, 0.148, False),
        ("-2.0 mmol/l", "-2.1 mmol/l", "number", -2.0, 0.1, True),
        ("13.5 h", "14.0 h", "time", 13.5, 0.5, True),
        ("13.5 h", "14.1 h", "time", 13.5, 0.5, False),
        ("3", "3", "number", 3.0, 0.5, True),
        ("3", "4", "number", 3.0, 0.5, False),
        ("0.3 mg/dl", "0.35 mg/dl", "number", 0.3, 0.05, True),
        ("yes", " Yes. ", "yes_no", None, None, True),
        ("yes", "no", "yes_no", None, None, False),
        ("medical icu", "medical  ICU", "category", None, None, True),
        ("not in the record", "7.4 mmol/l", "not_in_record", None, None, False),
    ],
)
def test_exact_match(answer, predicted, kind, value, tolerance, right):
    assert exact(answer, predicted, kind, value, tolerance) is right


def test_strict_has_no_tolerance():
    assert strict("7.4 mmol/l", "7.4  MMOL/L")
    assert not strict("7.4 mmol/l", "7.40 mmol/l")


@pytest.mark.parametrize(
    ("answer", "predicted", "f1"),
    [
        ("surgical icu", "surgical icu", 1.0),
        ("surgical icu", "medical icu", 0.5),
        ("surgical icu", "ward", 0.0),
        ("a a b", "a b b", pytest.approx(2 / 3)),
        ("yes", "", 0.0),
    ],
)
def test_token_f1(answer, predicted, f1):
    assert token_f1(answer, predicted) == f1


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("7.2, 8.1: higher", "higher"),
        ("-0.5: low", "low"),
        ("1.5, 3.0, 4.1: 3", "3"),
        ("higher", "higher"),
        ("7.2 mmol/l", "7.2 mmol/l"),
        ("7.2, 8.1:", "7.2, 8.1:"),
        ("albumin: 7.2: low", "albumin: 7.2: low"),
        ("not in the record", "not in the record"),
    ],
)
def test_a_working_is_no_part_of_the_answer(said, answer):
    assert final(said) == answer


def test_score_is_one_figure_a_question():
    questions = pl.DataFrame(
        {
            "answer": ["5.0 h", "no"],
            "answer_type": ["time", "yes_no"],
            "answer_value": [5.0, None],
            "tolerance_abs": [0.5, None],
        }
    )
    scores = score(questions, ["5.2 h", "no"])
    assert scores["exact"].tolist() == [1, 1]
    assert scores["strict"].tolist() == [0, 1]
    assert scores["f1"].tolist() == [0.5, 1]
