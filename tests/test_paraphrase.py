"""Other words: the meaning survives every rule, and every planted corruption is refused and named."""

from __future__ import annotations

import polars as pl
import pytest

from ray_jobs.config import JobError
from ray_jobs.questions import bucket, make, paraphrase, registry
from tests.timeline import timeline

RULES = paraphrase.load()


@pytest.fixture(scope="module")
def questions():
    known = pl.read_csv(bucket.CONCEPTS, infer_schema_length=None)
    world = timeline(150, seed=8, full=True)
    return pl.concat(make.make(*world, known, registry.load(forms="all"))[0].values()).sort("id")


@pytest.mark.parametrize(
    ("original", "said", "reason"),
    [
        ("what was the glucose at 4.5 h?", "tell me the glucose at 4:30.", "number"),
        ("what was the glucose at 4.5 h?", "tell me the glucose at 4.5 min.", "number"),
        ("was glucose below 70 mg/dl?", "was glucose below 70 mmol/l?", "number"),
        ("is the last glucose not normal?", "is the last glucose normal?", "polarity"),
        ("was glucose measured?", "was glucose never measured?", "polarity"),
        (
            "was glucose measured in the first 24 hours?",
            "was glucose measured in the last 24 hours?",
            "window",
        ),
        ("was glucose measured in the first 24 hours?", "was glucose measured in 24 hours?", "window"),
        (
            "what was the glucose before the first heparin?",
            "what was the glucose after the first heparin?",
            "window",
        ),
        ("what was the highest glucose?", "what was the peak glucose?", "direction"),
        ("is the last glucose higher or lower?", "is the last glucose higher?", "direction"),
        ("which other drug came with glucose?", "which drug came with glucose?", "other"),
        ("was glucose high after heparin?", "was glucose high after enoxaparin?", "entity"),
        ("was glucose high after heparin?", "was the sugar high after heparin?", "entity"),
        ("was glucose high after heparin?", "", "empty"),
    ],
)
def test_a_changed_meaning_is_refused(original, said, reason):
    names = ("glucose", "heparin" if "heparin" in original else "")
    assert paraphrase.refusal(original, said, names, RULES) == reason
    assert paraphrase.refusal(original, original, names, RULES) is None


def test_numbers_inside_a_name_are_part_of_the_name():
    names = ("vitamin b 12", "")
    assert paraphrase.refusal("what was the vitamin b 12?", "tell me the vitamin b 12.", names, RULES) is None
    assert (
        paraphrase.refusal("what was the vitamin b 12?", "tell me the vitamin b 6.", names, RULES) == "entity"
    )


def test_rules_say_most_questions_anew_and_none_is_refused(questions):
    said, counts = paraphrase.apply(questions, paraphrase.LocalSettings(by="rules", share=1.0))
    assert set(counts) <= {"kept", "unchanged"}
    assert counts["kept"] >= 0.7 * questions.height
    assert (said["question"] != questions["question"]).sum() == counts["kept"]
    assert said.drop("question").equals(questions.drop("question"))
    again, _ = paraphrase.apply(questions, paraphrase.LocalSettings(by="rules", share=1.0))
    assert again.equals(said)


def test_a_question_is_said_the_same_alone(questions):
    half = paraphrase.LocalSettings(by="rules", share=0.5)
    said, counts = paraphrase.apply(questions, half)
    assert 0.4 < sum(counts.values()) / questions.height < 0.6
    alone, _ = paraphrase.apply(questions.head(30), half)
    assert alone.equals(said.head(30))


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"by": "rules", "shares": 1}, "params.paraphrase.shar"),
        ({"by": "rules", "share": 2}, "params.paraphrase.share"),
        (
            {
                "by": "endpoint",
                "share": 1,
                "endpoint": "http://a.example/v1",
                "allowed_hosts": [],
                "model": "m",
            },
            "a.example is not in allowed_hosts",
        ),
    ],
)
def test_wrong_settings_are_refused(params, says):
    with pytest.raises(JobError, match=says):
        paraphrase.settings(params)
