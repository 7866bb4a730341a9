"""The truth that both demo hospitals write down: one seeded generator, polars tables in canonical units, full precision.

`generate` draws one population from (seed, stream). Twins are the stream that hospitals with one seed share; everybody
else comes from the hospital's own stream, so that hospitals can be built apart and still agree about their twins.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import polars as pl

from orchestration.synthetic import care, charting, narrative
from orchestration.synthetic.coding import PROCEDURES, SHARPER
from orchestration.synthetic.cohort import Cohort, draw
from orchestration.synthetic.diseases import DISEASES
from orchestration.synthetic.frames import frame
from orchestration.synthetic.infections import infections
from orchestration.synthetic.physiology import Physiology
from orchestration.synthetic.places import stays


@dataclass(frozen=True)
class Truth:
    """Tables in polars. Times are int64 minutes since 1970 UTC; `person`, `admission` and `stay` are unique texts.

    persons: person, twin, female, birth_year, race, death_at
    admissions: admission, person, twin, at, end, kind, way, died, insurance, left_to
    stays: admission, stay, start, end, unit, icu
    measurements: admission, stay, concept, at, stored, value, laboratory; heart rate in intensive care is in `monitor`
    monitor: admission, stay, at, value (each minute)
    diagnoses: admission, at, rank, icd10, icd9, name
    procedures: admission, at, end, icd10, icd9, name
    medications: admission, stay, kind, drug, amount, unit, route, at, end
    cultures: admission, at, stored, site, test, organism, antibiotic, interpretation
    notes: admission, at, stored, kind, text
    """

    persons: pl.DataFrame
    admissions: pl.DataFrame
    stays: pl.DataFrame
    measurements: pl.DataFrame
    monitor: pl.DataFrame
    diagnoses: pl.DataFrame
    procedures: pl.DataFrame
    medications: pl.DataFrame
    cultures: pl.DataFrame
    notes: pl.DataFrame


def hospital_truth(seed: int, hospital: str, patients: int, twins: int) -> Truth:
    """`patients` persons of one hospital, the first `twins` of whom every hospital of this seed has too."""
    parts = [generate(seed, "twins", twins, twin=True)] if twins else []
    if patients > twins:
        parts.append(generate(seed, hospital, patients - twins, twin=False))
    return Truth(**{name: pl.concat([getattr(p, name) for p in parts]) for name in Truth.__annotations__})


def generate(seed: int, stream: str, persons: int, twin: bool) -> Truth:
    """One population: same arguments, same tables."""
    rng = np.random.default_rng([seed, zlib.crc32(stream.encode())])
    cohort = draw(rng, persons)
    body = Physiology(cohort)
    places = stays(cohort)
    drugs = [care.orders(rng, cohort), care.infusions(rng, cohort)]
    given, rechecks = care.doses(rng, body)
    cultures, antibiotics, organism = infections(rng, cohort)
    measurements = charting.measure(rng, body, pl.concat([charting.schedule(rng, cohort), rechecks]))
    monitor = charting.monitor(body)
    procedures = care.procedures(rng, cohort)
    diagnoses = _diagnoses(rng, cohort, organism)
    medications = pl.concat([*drugs, given, antibiotics], how="diagonal").sort(
        "admission", "at", "drug", "kind", "amount"
    )
    medications = medications.unique(["admission", "at", "drug"], maintain_order=True)
    names = _Names(seed, stream, cohort, places)
    tables = {
        "measurements": names.place(measurements), "monitor": names.place(monitor), "diagnoses": diagnoses,
        "procedures": procedures.sort("admission", "at", "name").with_columns(_coded("name")),
        "medications": names.place(medications), "cultures": cultures,
        "notes": narrative.notes(rng, cohort, medications, cultures, procedures),
    }  # fmt: skip
    tables = {name: names.admission(table) for name, table in tables.items()}
    return Truth(
        persons=_persons(cohort, names, twin),
        admissions=_admissions(rng, cohort, names, twin),
        stays=names.stay_table(),
        **tables,
    )


class _Names:
    """Unique texts for persons, admissions and stays, and which stay a moment belongs to."""

    def __init__(self, seed: int, stream: str, cohort: Cohort, places: dict[str, np.ndarray]):
        prefix = f"{zlib.crc32(f'{seed}/{stream}'.encode()):08x}"
        self.persons = np.array([f"{prefix}-{i:06d}" for i in range(len(cohort.female))], dtype=object)
        self.admissions = np.array([f"{prefix}-{i:06d}" for i in range(cohort.size)], dtype=object)
        stay = np.array([f"{prefix}-{i:06d}" for i in range(len(places["start"]))], dtype=object)
        self.places = frame(**places, stay=stay)

    def place(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Add `stay`, the place in which the row's moment lies."""
        found = rows.with_row_index("order").sort("at", "order").join_asof(
            self.places.select("admission", "stay", start="start").sort("start"), left_on="at", right_on="start",
            by="admission", check_sortedness=False,
        )  # fmt: skip
        return found.sort("order").drop("order", "start")

    def admission(self, rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(
            admission=pl.Series(self.admissions[rows["admission"].to_numpy()].tolist(), dtype=pl.String)
        )

    def stay_table(self) -> pl.DataFrame:
        return self.admission(self.places).select("admission", "stay", "start", "end", "unit", "icu")


def _persons(cohort: Cohort, names: _Names, twin: bool) -> pl.DataFrame:
    return frame(
        person=names.persons, female=cohort.female, birth_year=cohort.birth_year, race=cohort.race, death_at=cohort.death_at,
    ).with_columns(twin=pl.lit(twin), death_at=pl.when(pl.col("death_at") >= 0).then("death_at"))  # fmt: skip


def _admissions(rng: np.random.Generator, cohort: Cohort, names: _Names, twin: bool) -> pl.DataFrame:
    elective = np.array([d.elective for d in DISEASES])[cohort.principal]
    home = rng.choice(
        ["home", "home with nursing", "rehabilitation", "nursing facility"],
        cohort.size,
        p=[0.6, 0.18, 0.1, 0.12],
    )
    way = rng.choice(["walk-in", "ambulance", "transfer"], cohort.size, p=[0.4, 0.4, 0.2])
    return frame(
        admission=names.admissions, person=names.persons[cohort.person], at=cohort.admit, end=cohort.discharge,
        kind=np.where(elective, "elective", np.where(way == "transfer", "urgent", "emergency")), way=np.where(elective, "referral", way), died=cohort.died, insurance=cohort.insurance,
        left_to=np.where(cohort.died, "died", home),
    ).with_columns(twin=pl.lit(twin))  # fmt: skip


def _diagnoses(rng: np.random.Generator, cohort: Cohort, organism: np.ndarray) -> pl.DataFrame:
    """Coded at discharge: the reason for admission first, then the others in random order; a code once."""
    who, disease = np.nonzero(cohort.has)
    rank = np.where(disease == cohort.principal[who], -1.0, rng.random(len(who)))
    codes = [(d.icd10, d.icd9) for d in DISEASES]
    pairs = [
        SHARPER.get((DISEASES[d].name, organism[a]), codes[d]) for a, d in zip(who, disease, strict=True)
    ]
    pairs = np.array(pairs, object).reshape(-1, 2)
    name = np.array([d.name for d in DISEASES])[disease]
    table = frame(
        admission=who, at=cohort.discharge[who], order=rank, icd10=pairs[:, 0], icd9=pairs[:, 1], name=name
    )
    table = table.sort("admission", "order").unique(["admission", "icd10"], keep="first", maintain_order=True)
    return table.with_columns(rank=pl.int_range(1, pl.len() + 1).over("admission")).drop("order")


def _coded(name: str) -> list[pl.Expr]:
    return [
        pl.col(name).replace_strict({k: v[0] for k, v in PROCEDURES.items()}).alias("icd10"),
        pl.col(name).replace_strict({k: v[1] for k, v in PROCEDURES.items()}).alias("icd9"),
    ]
