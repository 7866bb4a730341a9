"""North writes ICD-10, SI units, degrees Celsius, UTC, and the monitor's heart rate of every minute."""

from __future__ import annotations

import numpy as np
import polars as pl

from orchestration.synthetic.analytes import INTEGER, REFERENCE
from orchestration.synthetic.chemistry import TO_SI, convert
from orchestration.synthetic.truth import Truth
from orchestration.synthetic.writing import Export, Item, Numbers, catalogue, stamp, written

TIME = "%Y-%m-%d %H:%M:%S"
SEPARATOR = ","
BELOW = {"P-TNT": 5.0, "P-CRP": 1.0}  # what the laboratory cannot tell from nothing, in its own unit
LEVEL = {True: "ICU", False: "ward"}


def export(rng: np.random.Generator, truth: Truth) -> tuple[Export, dict[str, int]]:
    """North's files, and how many errors were planted (none)."""
    numbers = Numbers(rng, truth, "N", 100_000)
    items = catalogue("north")
    files = {
        "patients.csv.gz": _patients(truth, numbers),
        "admissions.csv.gz": _admissions(truth, numbers),
        "ward_stays.csv.gz": _stays(truth, numbers),
        "lab_results.csv.gz": _laboratory(rng, truth, numbers, items),
        "observations.csv.gz": _observations(rng, truth, numbers, items),
        "monitor.csv.gz": _monitor(truth, numbers),
        "diagnoses.csv.gz": _diagnoses(truth, numbers),
        "procedures.csv.gz": _procedures(truth, numbers),
        **_drugs(truth, numbers),
        "cultures.csv.gz": _cultures(truth, numbers),
        "notes.csv.gz": _notes(truth, numbers),
        "catalogue.csv.gz": pl.DataFrame({
            "list": [i.source_table for i in items], "code": [i.code for i in items], "name": [i.label for i in items],
            "chapter": [i.category for i in items], "unit": [i.unit for i in items],
        }),
    }  # fmt: skip
    return files, {}


def _ids(*more: str) -> list[pl.Expr]:
    return [pl.col("person_nr").alias("patient_nr"), "admission_nr", *more]


def _patients(truth: Truth, numbers: Numbers) -> pl.DataFrame:
    return truth.persons.join(numbers.maps["person"], on="person").select(
        patient_nr="person_nr", civil_registry="person", sex=pl.when("female").then(pl.lit("F")).otherwise(pl.lit("M")),
        born=pl.col("birth_year").cast(pl.String), died_at=stamp("death_at", TIME), origin="race",
    ).sort("patient_nr")  # fmt: skip


def _admissions(truth: Truth, numbers: Numbers) -> pl.DataFrame:
    rows = (
        truth.admissions.drop("person", "twin")
        .join(numbers.maps["admission"], on="admission")
        .sort("at", "admission_nr")
    )
    return rows.select(
        *_ids(), admitted_at=stamp("at", TIME), discharged_at=stamp("end", TIME), admission_type="kind", admitted_from="way",
        discharged_to="left_to", payer="insurance", died=pl.col("died").cast(pl.Int8).cast(pl.String),
    )  # fmt: skip


def _stays(truth: Truth, numbers: Numbers) -> pl.DataFrame:
    return numbers.add(truth.stays).sort("start", "stay_nr").select(
        *_ids("stay_nr"), entered_at=stamp("start", TIME), left_at=stamp("end", TIME), ward="unit",
        level=pl.col("icu").replace_strict(LEVEL),
    )  # fmt: skip


def _items(items: list[Item], table: str) -> pl.DataFrame:
    mine = [i for i in items if i.source_table == table]
    return pl.DataFrame({
        "concept": [i.concept for i in mine], "code": [i.code for i in mine], "unit": [i.unit for i in mine],
        "digits": [0 if i.concept in INTEGER else i.digits for i in mine],
    })  # fmt: skip


def _charted(truth: Truth, numbers: Numbers, items: list[Item], table: str, laboratory: bool) -> pl.DataFrame:
    known = _items(items, table).filter(pl.col("concept") != "")
    rows = truth.measurements.filter(pl.col("laboratory") == laboratory).join(
        known, on="concept", maintain_order="left"
    )
    rows = numbers.add(rows)
    value = convert(rows["value"].to_numpy(), rows["concept"].to_numpy(), TO_SI)
    exact = (rows["twin"] & ~rows["concept"].is_in(sorted(INTEGER))).to_numpy()
    return rows.with_columns(
        number=pl.Series(value), text=pl.Series(written(value, rows["digits"].to_numpy(), exact))
    )


def _laboratory(rng: np.random.Generator, truth: Truth, numbers: Numbers, items: list[Item]) -> pl.DataFrame:
    rows = _charted(truth, numbers, items, "lab_results", laboratory=True)
    concepts = np.array(sorted(REFERENCE))
    limits = {
        side: convert(np.array([float(REFERENCE[c][side]) for c in concepts]), concepts, TO_SI)
        for side in (0, 1)
    }
    ranges = pl.DataFrame(
        {
            "concept": concepts,
            "ref_low": [f"{v:.4g}" for v in limits[0]],
            "ref_high": [f"{v:.4g}" for v in limits[1]],
        }
    )
    low = pl.col("code").replace_strict(BELOW, default=None, return_dtype=pl.Float64)
    text = (
        pl.when(~pl.col("twin") & (pl.col("number") < low))
        .then(pl.format("<{}", low.cast(pl.Int64)))
        .otherwise("text")
    )
    rows = rows.with_columns(text=text).join(ranges, on="concept", how="left", maintain_order="left")
    rows = pl.concat([rows, _extra(rng, rows, ["P-URAT", "P-TSH", "P-FERR", "U-COL"], items)], how="diagonal")
    return rows.sort("at", "admission_nr", "code").select(
        *_ids(), analysis="code", sampled_at=stamp("at", TIME), validated_at=stamp("stored", TIME), result="text",
        unit="unit", ref_low="ref_low", ref_high="ref_high",
    )  # fmt: skip


def _observations(
    rng: np.random.Generator, truth: Truth, numbers: Numbers, items: list[Item]
) -> pl.DataFrame:
    rows = _charted(truth, numbers, items, "observations", laboratory=False)
    rows = pl.concat([rows, _extra(rng, rows, ["BRADEN", "HRMAX", "POS", "TSKIN"], items)], how="diagonal")
    return rows.sort("at", "admission_nr", "code").select(
        *_ids("stay_nr"), observation="code", observed_at=stamp("at", TIME), entered_at=stamp("stored", TIME), value="text", unit="unit",
    )  # fmt: skip


EXTRA = {
    "P-URAT": (150, 520), "P-TSH": (0.3, 6), "P-FERR": (20, 600), "U-COL": ["yellow", "amber", "red"],
    "BRADEN": (9, 23), "HRMAX": (110, 140), "POS": ["left side", "right side", "back", "chair"], "TSKIN": (26, 34),
}  # fmt: skip


def _extra(rng: np.random.Generator, rows: pl.DataFrame, codes: list[str], items: list[Item]) -> pl.DataFrame:
    """Items that no concept describes, written beside one in fifty values of everybody but the twins."""
    others = rows.filter(~pl.col("twin"))
    picked = others[np.sort(rng.permutation(len(others))[: len(others) // 50])]
    code = rng.choice(codes, len(picked))
    by_code = {i.code: i for i in items}
    text = [
        rng.choice(EXTRA[c])
        if isinstance(EXTRA[c], list)
        else f"{rng.uniform(*EXTRA[c]):.{by_code[c].digits}f}"
        for c in code
    ]
    unit = [by_code[c].unit for c in code]
    kept = picked.select(
        "admission_nr", "person_nr", *(["stay_nr"] if "stay_nr" in picked.columns else []), "at", "stored"
    )
    return kept.with_columns(
        code=pl.Series(code),
        text=pl.Series([str(t) for t in text], dtype=pl.String),
        unit=pl.Series(unit, dtype=pl.String),
    )


def _monitor(truth: Truth, numbers: Numbers) -> pl.DataFrame:
    rows = numbers.add(truth.monitor)
    rounded = pl.col("value").round().cast(pl.Int64).cast(pl.String)
    exact = pl.Series(
        "exact",
        [repr(v) if twin else None for v, twin in zip(rows["value"], rows["twin"], strict=True)],
        dtype=pl.String,
    )
    return rows.with_columns(exact).sort("stay_nr", "at").select(
        *_ids("stay_nr"), at=stamp("at", TIME), parameter=pl.lit("HR-M"), value=pl.coalesce("exact", rounded), unit=pl.lit("/min"),
    )  # fmt: skip


def _diagnoses(truth: Truth, numbers: Numbers) -> pl.DataFrame:
    return numbers.add(truth.diagnoses).sort("at", "admission_nr", "rank").select(
        *_ids(), coded_at=stamp("at", TIME), position=pl.col("rank").cast(pl.String), icd10cm="icd10",
    )  # fmt: skip


def _procedures(truth: Truth, numbers: Numbers) -> pl.DataFrame:
    return numbers.add(truth.procedures).sort("at", "admission_nr", "name").select(
        *_ids(), started_at=stamp("at", TIME), ended_at=stamp("end", TIME), icd10pcs="icd10", description="name",
    )  # fmt: skip


def _drugs(truth: Truth, numbers: Numbers) -> Export:
    rows = numbers.add(truth.medications).sort("at", "admission_nr", "drug")
    amount = pl.col("amount").cast(pl.String).str.strip_suffix(".0")
    start, stop = stamp("at", TIME), stamp("end", TIME)
    of = {kind: rows.filter(pl.col("kind") == kind) for kind in ("order", "administration", "infusion")}
    return {
        "prescriptions.csv.gz": of["order"].select(*_ids("stay_nr"), ordered_at=start, stopped_at=stop, drug="drug", dose=amount, dose_unit="unit", route="route"),
        "given_drugs.csv.gz": of["administration"].select(*_ids("stay_nr"), given_at=start, drug="drug", dose=amount, dose_unit="unit", route="route"),
        "infusions.csv.gz": of["infusion"].select(*_ids("stay_nr"), started_at=start, ended_at=stop, drug="drug", rate=amount, rate_unit="unit", route="route"),
    }  # fmt: skip


def _cultures(truth: Truth, numbers: Numbers) -> pl.DataFrame:
    return numbers.add(truth.cultures).sort("at", "admission_nr", "site", "antibiotic").select(
        *_ids(), collected_at=stamp("at", TIME), reported_at=stamp("stored", TIME), specimen="site", test="test",
        organism="organism", antibiotic="antibiotic", interpretation="interpretation",
    )  # fmt: skip


def _notes(truth: Truth, numbers: Numbers) -> pl.DataFrame:
    return numbers.add(truth.notes).sort("at", "admission_nr", "kind").select(
        *_ids(), written_at=stamp("at", TIME), signed_at=stamp("stored", TIME), kind="kind", text="text",
    )  # fmt: skip
