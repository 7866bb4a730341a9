"""The support check: planted answers that no clause tells, negation, numbers at the answer's precision."""

import pytest

from ray_jobs.questions import support

EVENTS = [
    ("a", "glucose in blood in mg/dl", 141.6, "mg/dL"),
    ("b", "culture of blood: no growth", None, None),
    ("c", "diagnosis: pneumonia, right lower lobe", None, None),
    ("d", "order of lisinopril by po", 10.0, "mg"),
]


@pytest.mark.parametrize(
    ("note", "answer", "told"),
    [
        ("patient with pneumonia.", "pneumonia", True),
        ("no pneumonia. fever since monday", "pneumonia", False),
        ("no pneumonia. fever since monday", "fever", True),
        ("denies fever, chills or pneumonia", "pneumonia", False),
        ("pneumonia was ruled out", "pneumonia", False),
        ("no pneumonia on the film", "no pneumonia", True),
        ("fever without cough", "no cough", False),
        ("fever without cough", "without fever", False),
        ("glucose 7.4 mmol/l, sodium 140", "7.4", True),
        ("glucose 7.4 mmol/l. sodium 140", "4", False),
        ("pneumonia on the left. effusion on the right", "right pneumonia", False),
        ("it is so: yes", "yes", False),
        ("anything", "", False),
    ],
)
def test_a_note_tells_an_answer_in_one_clause_and_with_its_polarity(note, answer, told):
    assert support.tells(note, answer) is told


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        ("pneumonia", ["c"]),
        ("142 mg/dl", ["a"]),
        ("141.6 mg/dl", ["a"]),
        ("141 mg/dl", []),
        ("10 mg lisinopril", ["d"]),
        ("20 mg lisinopril", []),
        ("10 mg/dl", []),  # the number of one event with the unit of another
        ("no growth", ["b"]),
        ("growth", []),
        ("malaria", []),
    ],
)
def test_the_events_that_tell_an_answer_are_its_evidence(answer, rows):
    assert support.evidence(answer, EVENTS) == rows
