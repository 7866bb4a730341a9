"""A small made-up timeline with the columns and the texts of harmonised/events, for tests that need many records."""

from __future__ import annotations

import csv
import hashlib
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from orchestration.catalog import REPOSITORY

LABS = {
    "glucose": (140, 45), "creatinine": (1.4, 0.7), "urea_nitrogen": (26, 12), "sodium": (138, 5),
    "potassium": (4.2, 0.6), "chloride": (103, 5), "bicarbonate": (24, 4), "hemoglobin": (10.8, 2), "wbc": (11, 5),
    "platelets": (210, 80), "lactate": (2.2, 1.3), "magnesium": (2.0, 0.3), "phosphate": (3.5, 1),
}  # fmt: skip
VITALS = {"heart_rate": (88, 15), "respiratory_rate": (19, 4), "spo2": (95, 3), "temperature": (37.1, 0.6)}
DRUGS = ["furosemide", "heparin", "insulin lispro", "metoprolol", "pantoprazole", "acetaminophen", "morphine",
         "potassium chloride", "lisinopril", "ondansetron", "aspirin", "atorvastatin"]  # fmt: skip
ANTIBIOTICS = [
    "vancomycin",
    "ceftriaxone",
    "piperacillin-tazobactam",
    "cefepime",
    "meropenem",
    "ciprofloxacin",
]
ORGANISMS = ["escherichia coli", "staphylococcus aureus", "klebsiella pneumoniae", "enterococcus faecalis"]
WARDS = ["medical icu", "surgical icu", "cardiac icu", "medicine ward", "surgery ward"]
COLUMNS = {
    "hospital": pl.String, "patient_id": pl.String, "visit_id": pl.String, "stay_id": pl.String,
    "event_at": pl.Datetime("us"), "end_at": pl.Datetime("us"), "available_at": pl.Datetime("us"), "kind": pl.String,
    "code": pl.String, "code_system": pl.String, "concept": pl.String, "value": pl.Float64, "unit": pl.String,
    "text": pl.String, "row_id": pl.String,
}  # fmt: skip


def concepts() -> dict[str, dict[str, str]]:
    with open(REPOSITORY / "dbt_project" / "seeds" / "concepts.csv", encoding="utf-8") as file:
        return {row["concept"]: row for row in csv.DictReader(file)}


def timeline(admissions: int, seed: int = 1, full: bool = False) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(events, splits) of one admission a patient, in two hospitals; `full` adds the rarer kinds of events."""
    made = [_Admission(i, seed, full) for i in range(admissions)]
    events = pl.DataFrame([e for a in made for e in a.events], schema=COLUMNS, orient="row")
    people = [(a.hospital, a.patient, _split(a.hospital, a.patient)) for a in made]
    splits = pl.DataFrame(people, schema=["hospital", "patient_id", "split"], orient="row")
    splits = splits.with_columns(person_group="hospital", person_id="patient_id")
    return events.sort("hospital", "patient_id", "event_at", "row_id"), splits.sort("hospital", "patient_id")


def _split(*names: str) -> str:
    u = int(hashlib.md5(chr(31).join(names).encode()).hexdigest()[:8], 16) / 2**32
    return "train" if u < 0.8 else "tuning" if u < 0.9 else "held_out"


class _Admission:
    def __init__(self, number: int, seed: int, full: bool = False):
        self.seed = seed, number
        self.rng = np.random.default_rng(self.seed)
        self.hospital, self.patient = ("north", "south")[number % 2], f"p{number}"
        self.visit, self.events, self.dictionary = f"v{number}", [], concepts()
        minutes = int(self.rng.integers(0, 500_000))
        self.admitted = datetime(2130, 1, 1) + timedelta(minutes=minutes)
        self.hours = float(np.exp(self.rng.normal(3.6, 0.8))) + 6
        self._arrive()
        self._measure()
        self._treat()
        if full:
            self._chart()
        self.add(self.hours, "discharge", "discharge: home")

    def add(self, hour, kind, text, value=None, unit=None, concept=None, delay=0.0):
        at = self.admitted + timedelta(minutes=round(hour * 60))
        known = at + timedelta(minutes=round(delay * 60))
        row_id = f"{kind}:{self.visit[1:]}-{len(self.events)}"
        names = (self.hospital, self.patient, self.visit, None)
        self.events.append(
            (*names, at, None, known, kind, None, None, concept, value, unit, text.lower(), row_id)
        )

    def measure(self, hour, concept, value, delay):
        entry = self.dictionary[concept]
        kind = "vital" if entry["category"] == "vital" else "lab"
        value = round(float(value), int(entry["digits"]))
        self.add(hour, kind, f"{entry['label']} in {entry['unit']}", value, entry["unit"], concept, delay)

    def _arrive(self):
        sex, kind = self.rng.choice(["female", "male"]), self.rng.choice(["emergency", "elective", "urgent"])
        self.add(0, "admission", f"admission: {kind}, {sex}", float(self.rng.integers(18, 95)), "a")
        self.icu = self.rng.random() < 0.4
        self.add(0, "transfer", f"transfer to {self.rng.choice(WARDS[:3] if self.icu else WARDS[3:])}")
        if self.icu and self.hours > 30:
            self.add(
                self.rng.uniform(16, self.hours * 0.8),
                "transfer",
                f"transfer to {self.rng.choice(WARDS[3:])}",
            )

    def _measure(self):
        panel = [c for c in LABS if self.rng.random() < 0.55]
        some_only = np.random.default_rng([*self.seed, 1])  # some labs are asked for later, some no longer
        ordered = {c: [(0, 1e9), (6, 1e9), (0, 6)][some_only.choice(3, p=[0.7, 0.15, 0.15])] for c in panel}
        state = {c: self.rng.normal() for c in [*LABS, *VITALS]}
        for hour in np.arange(self.rng.uniform(0.2, 2), self.hours, self.rng.choice([6, 8, 12, 24]))[:14]:
            for concept in (c for c in panel if ordered[c][0] <= hour <= ordered[c][1]):
                mean, spread = LABS[concept]
                state[concept] = 0.65 * state[concept] + 0.76 * self.rng.normal()
                value = max(mean + spread * state[concept], mean * 0.2)
                self.measure(hour, concept, value, self.rng.uniform(0.4, 2))
        if self.icu:
            charted = [c for c in VITALS if self.rng.random() < 0.6]
            for hour in range(int(min(self.rng.integers(3, 14), self.hours))):
                for concept in charted:
                    mean, spread = VITALS[concept]
                    state[concept] = 0.8 * state[concept] + 0.6 * self.rng.normal()
                    self.measure(hour + 0.1, concept, min(mean + spread * state[concept], 1e3), 0.8)

    def _treat(self):
        for drug in self.rng.choice(DRUGS, size=self.rng.integers(1, 6), replace=False):
            hour, route = self.rng.uniform(0, self.hours * 0.7), self.rng.choice(["iv", "po"])
            self.add(hour, "prescription", f"order of {drug} by {route}", 10.0, "mg", str(drug))
        if self.rng.random() < 0.6:
            hour, site = (
                self.rng.uniform(0, min(24, self.hours / 2)),
                self.rng.choice(["blood", "urine", "sputum"]),
            )
            organism, delay = str(self.rng.choice(ORGANISMS)), self.rng.uniform(6, 24)
            grown = organism if self.rng.random() < 0.75 else "no growth"
            self.add(hour, "culture", f"culture of {site}: {grown}", concept=organism, delay=delay)
            first, second, third = self.rng.choice(ANTIBIOTICS, size=3, replace=False)
            for drug, share, low, high in (
                (first, 0.5, -hour, 0),
                (second, 0.8, 0.5, 9),
                (third, 0.3, 10, 20),
            ):
                if self.rng.random() < share:
                    start = max(hour + self.rng.uniform(low, high), 0)
                    self.add(start, "prescription", f"order of {drug} by iv", 1.0, "g", str(drug))
            for drug in (first, second):
                word = self.rng.choice(["susceptible", "resistant"])
                self.add(
                    hour, "susceptibility", f"{organism} and {drug}: {word}", concept=str(drug), delay=delay
                )

    def _chart(self):
        """Scores, outputs, infusions, procedures, diagnoses, notes, cuff pressures."""
        for hour in np.arange(1.0, self.hours, 6)[:5]:
            for axis, high in (("gcs_eye", 4), ("gcs_motor", 6)):
                entry = self.dictionary[axis]
                value = float(self.rng.integers(1, high + 1))
                self.add(hour, "score", entry["label"], value, entry["unit"], axis)
            self.add(
                hour + 0.2,
                "output",
                "urine output in ml",
                float(self.rng.integers(50, 400)),
                "mL",
                "urine_output",
            )
            for concept, mean in (("heart_rate", 88), ("sbp", 120), ("dbp", 70)):
                self.measure(hour + 0.4, concept, mean * self.rng.uniform(0.6, 1.4), 0.5)
        for drug in self.rng.choice(
            ["propofol", "norepinephrine", "dextrose"], self.rng.integers(0, 3), replace=False
        ):
            start = self.rng.uniform(0, self.hours / 3)
            stop = start + self.rng.uniform(1, self.hours / 3)
            self.add(
                start,
                "infusion",
                f"start of {drug} by iv",
                float(self.rng.integers(5, 90)),
                "mL/h",
                str(drug),
            )
            self.add(stop, "infusion", f"end of {drug} by iv", concept=str(drug))
        for name in self.rng.choice(
            ["intubation", "bronchoscopy", "central line"], self.rng.integers(0, 3), replace=False
        ):
            self.add(self.rng.uniform(2, self.hours), "procedure", f"procedure: {name}")
        named = [
            "essential (primary) hypertension",
            "type 2 diabetes mellitus",
            "sepsis, unspecified organism",
            "gout",
        ]
        for name in self.rng.choice(named, self.rng.integers(1, 4), replace=False):
            self.add(self.rng.uniform(1, 4), "diagnosis", f"diagnosis: {name}")
        self.add(self.rng.uniform(1, 5), "note", "note: admission note")
        if self.rng.random() < 0.5 and self.hours > 12:
            self.add(
                self.rng.uniform(4, self.hours * 0.5), "transfer", f"transfer to {self.rng.choice(WARDS)}"
            )
