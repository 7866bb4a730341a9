"""Two made-up hospitals as rows of the input layer: `north`, with an ICU stay in each visit, and `house`, whose patients come again."""

from __future__ import annotations

import copy
import random
from datetime import datetime, timedelta

from orchestration import input_layer

START = datetime(2150, 3, 1, 8, 30)
CUT = START + timedelta(hours=24)
ITEMS = [
    {
        "source_table": "lab",
        "code": "glu",
        "label": "glucose",
        "unit": "mmol/L",
        "concept": "glucose",
        "decision": "map",
    },
    {
        "source_table": "lab",
        "code": "cre",
        "label": "creatinine",
        "unit": "umol/L",
        "concept": "creatinine",
        "decision": "map",
    },
    {
        "source_table": "icu",
        "code": "hr",
        "label": "heart rate",
        "unit": "/min",
        "concept": "heart_rate",
        "decision": "map",
    },
    {
        "source_table": "icu",
        "code": "urine",
        "label": "urine",
        "unit": "mL",
        "concept": "urine_output",
        "decision": "map",
    },
    {
        "source_table": "icu",
        "code": "fio2",
        "label": "fio2",
        "unit": "%",
        "concept": "fio2",
        "decision": "map",
    },
    {"source_table": "icu", "code": "alarm", "label": "alarm", "decision": "ignore", "reason": "alarm_limit"},
]


def world(patients: int = 6, seed: int = 7) -> dict[str, list[dict]]:
    """Visits of four days with an ICU stay; results that arrive late, copies, open ends, facts after the cut."""
    draw = random.Random(seed)
    tables: dict[str, list[dict]] = {name: [] for name in input_layer.tables()}
    tables["items"] = copy.deepcopy(ITEMS)
    for number in range(patients):
        who = {"patient_id": f"p{number}", "visit_id": f"v{number}"}
        tables["patients"].append(
            {"patient_id": who["patient_id"], "person_group": "demo", "person_id": str(number), "sex": "F"}
            | {"birth_year": 2090, "split": split_of("demo", str(number))}
        )
        end = START + timedelta(days=4) if number else None
        tables["visits"].append(
            who
            | {
                "event_at": START,
                "end_at": end,
                "available_at": START,
                "visit_type": "URGENT",
                "died_in_visit": False,
            }
        )
        stay_start, stay_end = START + timedelta(hours=2), START + timedelta(hours=30)
        tables["stays"].append(
            who
            | {"stay_id": f"s{number}", "event_at": stay_start, "end_at": stay_end if number else None}
            | {"available_at": stay_start, "care_unit": "MICU", "is_icu": True}
        )
        for code, high in (
            ("glu", 12),
            ("cre", 300),
            ("hr", 140),
            ("urine", 200),
            ("fio2", 60),
            ("alarm", 9),
        ):
            for _ in range(40):
                at = START + timedelta(minutes=draw.randrange(-60, 40 * 60))
                late = timedelta(minutes=draw.choice([0, 0, 5, 70, 200, 900]))
                value = round(draw.uniform(high / 3, high), 1)
                row = who | {"source_table": "lab" if code in ("glu", "cre") else "icu", "code": code}
                row |= {
                    "event_at": at,
                    "available_at": at + late,
                    "value_text": str(value),
                    "value_number": value,
                }
                tables["measurements"] += [dict(row) for _ in range(draw.choice([1, 1, 1, 2]))]
        for hours in (3, 12, 50):
            at = START + timedelta(hours=hours)
            tables["medications"].append(
                who
                | {"event_at": at, "end_at": at + timedelta(hours=20), "available_at": at, "kind": "infusion"}
                | {
                    "drug": "Heparin 25000 units/250 mL",
                    "rate": 10.0 + hours,
                    "rate_unit": "mL/h",
                    "route": "IV",
                }
            )
        tables["microbiology"].append(
            who
            | {"event_at": START, "available_at": START + timedelta(hours=26), "specimen": "BLOOD"}
            | {"organism": "ESCHERICHIA COLI", "antibiotic": "CEFEPIME", "interpretation": "S"}
        )
        tables["diagnoses"].append(
            who | {"event_at": START + timedelta(days=4), "code": "4280", "code_system": "ICD9CM", "rank": 1}
        )
    return tables


def house(patients: int = 4, seed: int = 11) -> dict[str, list[dict]]:
    """A hospital whose moments lie before the cut: earlier visits with diagnoses, intensive care since the day before it, and
    arrivals in the emergency department, each with facts that come after the cut."""
    draw = random.Random(seed)
    hour = timedelta(hours=1)
    tables: dict[str, list[dict]] = {name: [] for name in input_layer.tables()}
    codes = {"hr": "heart_rate", "spo2": "spo2", "acuity": "triage_acuity", "plt": "platelets"}
    units = {"hr": "/min", "spo2": "%", "acuity": "score", "plt": "10*3/uL"}
    tables["items"] = [
        {
            "source_table": "vital",
            "code": c,
            "label": c,
            "unit": units[c],
            "concept": concept,
            "decision": "map",
        }
        for c, concept in codes.items()
    ]
    for number in range(patients):
        patient = {"patient_id": f"q{number}"}
        tables["patients"].append(
            patient
            | {"person_group": "house", "person_id": str(number), "sex": "M", "birth_year": 2080}
            | {"split": split_of("house", str(number))}
        )
        for kind, start, lasts in (
            ("earlier", START - 240 * hour, 96), ("icu", START - 6 * hour, 100), ("emergency", START + 20 * hour, 2 + number),
            ("later", START + 130 * hour, 9),
        ):  # fmt: skip
            who = patient | {"visit_id": f"{kind}{number}"}
            span = {"event_at": start, "end_at": start + lasts * hour, "available_at": start}
            seen = {"emergency": "EMERGENCY DEPARTMENT"}.get(kind, "URGENT")
            tables["visits"].append(who | span | {"visit_type": seen, "is_inpatient": kind != "emergency"})
            if kind == "icu":
                span = {"event_at": start + 2 * hour, "end_at": start + (30 + 20 * number) * hour}
            tables["stays"].append(
                who | span | {"stay_id": f"s-{kind}{number}", "care_unit": kind, "is_icu": kind == "icu"}
            )
            for code in codes:
                for after in [0, 0, *(draw.uniform(0, lasts) for _ in range(30))]:
                    at = start + after * hour
                    value = round(draw.uniform(60, 99)) if code != "acuity" else draw.choice([1, 2, 3])
                    row = who | {"source_table": "vital", "code": code, "value_number": value, "event_at": at}
                    late = draw.choice([0, 0, 1, 7]) * hour
                    tables["measurements"].append(row | {"value_text": str(value), "available_at": at + late})
            for code, at in (("4280", start + hour), ("25000", start + lasts * hour)):
                tables["diagnoses"].append(
                    who | {"event_at": at, "code": code, "code_system": "ICD9CM", "rank": 1}
                )
    return tables


def split_of(group: str, person: str) -> str:
    from hashlib import md5

    place = int(md5(f"{group}\x1f{person}".encode()).hexdigest()[:8], 16) / 2**32
    return "train" if place < 0.8 else "tuning" if place < 0.9 else "held_out"


def another_future(tables: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """The same past, another future: what was known after the cut is deleted or changed, ends after it move."""
    tables = copy.deepcopy(tables)
    for name, content in tables.items():
        kept = []
        for number, row in enumerate(content, start=1):
            row["row_id"] = f"{name}:{number}"
            if row.get("end_at") and row["end_at"] > CUT:
                row["end_at"] += timedelta(hours=5)
            if row.get("available_at", row.get("event_at", START)) > CUT:
                if number % 3 == 0:
                    continue
                if "value_number" in row:
                    row["value_number"] = round(row["value_number"] * 0.8 + 1, 1)
                    row["value_text"] = str(row["value_number"])
                row |= {"code": "41071"} if name == "diagnoses" else {}
            kept.append(row)
        tables[name] = kept
    for visit in tables["visits"]:
        visit["died_in_visit"] = not visit["end_at"] or visit["end_at"] > CUT
    return tables
