"""South writes ICD-9, conventional units, Fahrenheit, local time, hourly heart rate, sparse laboratories - and errs."""

from __future__ import annotations

import numpy as np
import polars as pl

from orchestration.synthetic.analytes import INTEGER, REFERENCE
from orchestration.synthetic.chemistry import TO_CONVENTIONAL, convert
from orchestration.synthetic.clock import DAY, HOUR
from orchestration.synthetic.mistakes import NO_ICD_VERSION, extra, with_errors
from orchestration.synthetic.truth import Truth
from orchestration.synthetic.writing import Export, Numbers, catalogue, stamp, written

TIME = "%m/%d/%Y %H:%M"
TIMEZONE = "America/Chicago"
SEPARATOR = "|"
UNITS = {
    "medicine": "6 WEST MED", "surgery": "5 NORTH SURG", "cardiology": "4 EAST CARD", "neurology": "7 WEST NEURO",
    "oncology": "8 EAST ONC", "medical intensive care": "MICU", "surgical intensive care": "SICU", "coronary care": "CCU",
    "emergency department": "ED",
}  # fmt: skip
WAYS = {"walk-in": "SELF", "ambulance": "EMS", "transfer": "OTHER FACILITY", "referral": "PHYSICIAN"}
LEFT_TO = {
    "home": "HOME",
    "home with nursing": "HOME HEALTH",
    "rehabilitation": "REHAB",
    "nursing facility": "SNF",
    "died": "EXPIRED",
}
SPECIMENS = {"blood": "BLOOD", "urine": "URINE", "sputum": "SPUTUM", "wound": "SWAB"}
LETTERS = {"S": "SENSITIVE", "I": "INTERMEDIATE", "R": "RESISTANT"}

CADENCE_DAYS = ([1, 2, 3, 7], [0.5, 0.2, 0.15, 0.15])  # laboratories outside intensive care: daily to weekly
BELOW = {"troponin_t": "<0.01", "crp": "<0.1"}


def export(rng: np.random.Generator, truth: Truth) -> tuple[Export, dict[str, int]]:
    """South's files, and how many errors of each kind were planted."""
    numbers = Numbers(rng, truth, "", 7_000_000)
    planted: dict[str, int] = {}
    items = catalogue("south")
    known = pl.DataFrame([vars(i) for i in items]).with_columns(
        digits=pl.when(pl.col("concept").is_in(sorted(INTEGER))).then(0).otherwise("digits")
    )
    laboratory, flowsheet = _values(rng, truth, numbers, known, planted)
    files = {
        "pt_master.csv": _patients(truth, numbers),
        "encounter.csv": _encounters(truth, numbers),
        "bed_history.csv": _beds(truth, numbers),
        "lab_result.csv": laboratory,
        "flowsheet.csv": flowsheet,
        "dx.csv": _diagnoses(rng, truth, numbers, planted),
        "px.csv": _procedures(truth, numbers),
        **_drugs(truth, numbers),
        "micro.csv": _cultures(truth, numbers),
        "item_master.csv": known.select(TBL="source_table", ITEM_ID="code", ITEM_NAME="label", GRP="category", UOM="unit"),
    }  # fmt: skip
    return files, planted


def _ids(*more: pl.Expr) -> list[pl.Expr]:
    return [pl.col("person_nr").alias("PAT_ID"), pl.col("admission_nr").alias("ENC_ID"), *more]


def _local(column: str) -> pl.Expr:
    return stamp(column, TIME, TIMEZONE)


BED = pl.col("stay_nr").alias("BED_ID")


def _patients(truth: Truth, numbers: Numbers) -> pl.DataFrame:
    return truth.persons.join(numbers.maps["person"], on="person").select(
        PAT_ID="person_nr", MPI="person", SEX_CD=pl.when("female").then(pl.lit("2")).otherwise(pl.lit("1")),
        BIRTH_DT=pl.format("07/01/{}", "birth_year"), DEATH_DTTM=_local("death_at"), RACE_CD=pl.col("race").str.to_uppercase(),
    ).sort("PAT_ID")  # fmt: skip


def _encounters(truth: Truth, numbers: Numbers) -> pl.DataFrame:
    rows = (
        truth.admissions.drop("person", "twin")
        .join(numbers.maps["admission"], on="admission")
        .sort("at", "admission_nr")
    )
    return rows.select(
        *_ids(), ADMIT_DTTM=_local("at"), DISCH_DTTM=_local("end"), ADM_TYPE=pl.col("kind").str.to_uppercase(), ADM_SRC=pl.col("way").replace_strict(WAYS),
        DISP=pl.col("left_to").replace_strict(LEFT_TO), PAYOR=pl.col("insurance").str.to_uppercase(),
    )  # fmt: skip


def _beds(truth: Truth, numbers: Numbers) -> pl.DataFrame:
    return numbers.add(truth.stays).sort("start", "stay_nr").select(
        *_ids(BED), IN_DTTM=_local("start"), OUT_DTTM=_local("end"), UNIT=pl.col("unit").replace_strict(UNITS),
    )  # fmt: skip


def _values(
    rng, truth: Truth, numbers: Numbers, known: pl.DataFrame, planted: dict[str, int]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    charted = pl.concat([truth.measurements, _hourly(truth)], how="diagonal").join(
        truth.stays.select("stay", "icu"), on="stay", how="left", maintain_order="left"
    )
    rows = _sparse(rng, numbers.add(charted.sort("at", "admission", "concept")))
    table = pl.when("laboratory").then(pl.lit("lab_result")).otherwise(pl.lit("flowsheet"))
    usual = known.filter((pl.col("concept") != "") & (pl.col("label") != "TEMP (C)"))
    rows = rows.with_columns(source_table=table).join(
        usual, on=["source_table", "concept"], maintain_order="left"
    )
    value = convert(rows["value"].to_numpy(), rows["concept"].to_numpy(), TO_CONVENTIONAL)
    exact = (rows["twin"] & ~rows["concept"].is_in(sorted(INTEGER))).to_numpy()
    rows = rows.with_columns(text=pl.Series(written(value, rows["digits"].to_numpy(), exact)))
    below = pl.col("concept").replace_strict(BELOW, default=None, return_dtype=pl.String)
    limit = below.str.strip_prefix("<").cast(pl.Float64)
    censored = ~pl.col("twin") & (pl.col("text").cast(pl.Float64) < limit)
    rows = rows.with_columns(text=pl.when(censored).then(below).otherwise("text"))
    rows = with_errors(
        rng,
        pl.concat([rows, extra(rng, rows, known)], how="diagonal").sort("at", "admission_nr", "code"),
        known,
        planted,
    )
    laboratory = rows.filter(pl.col("source_table") == "lab_result").join(
        _ranges(), on="concept", how="left", maintain_order="left"
    )
    flowsheet = rows.filter(pl.col("source_table") == "flowsheet")
    return (
        laboratory.select(*_ids(), ITEM_ID="code", COLLECT_DTTM=_local("at"), RESULT_DTTM=_local("stored"), RSLT="text", UOM="unit", REF_LO="low", REF_HI="high"),
        flowsheet.select(*_ids(BED), ITEM_ID="code", CHART_DTTM=_local("at"), FILE_DTTM=_local("stored"), VAL="text", UOM="unit"),
    )  # fmt: skip


def _hourly(truth: Truth) -> pl.DataFrame:
    """The monitor's median of each hour of the stay, charted in that hour's last minute."""
    rows = truth.monitor.join(truth.stays.select("stay", "start"), on="stay", maintain_order="left")
    hour = ((pl.col("at") - pl.col("start")) // HOUR).alias("hour")
    grouped = rows.group_by("admission", "stay", hour, maintain_order=True).agg(
        pl.col("value").median(), pl.col("at").max()
    )
    return grouped.drop("hour").with_columns(
        concept=pl.lit("heart_rate"), stored=pl.col("at"), laboratory=pl.lit(False)
    )


def _sparse(rng: np.random.Generator, rows: pl.DataFrame) -> pl.DataFrame:
    """Outside intensive care, of a concept's laboratory values the first in each period of one to seven days."""
    admissions = rows["admission"].unique(maintain_order=True)
    days = pl.DataFrame(
        {"admission": admissions, "days": rng.choice(CADENCE_DAYS[0], len(admissions), p=CADENCE_DAYS[1])}
    )
    rows = rows.join(days, on="admission", maintain_order="left")
    period = (pl.col("at") - pl.col("at").min().over("admission", "concept")) // (DAY * pl.col("days"))
    first = pl.col("at") == pl.col("at").min().over("admission", "concept", period)
    return rows.filter(~pl.col("laboratory") | pl.col("icu") | pl.col("twin") | first).drop("days")


def _ranges() -> pl.DataFrame:
    concepts = np.array(sorted(REFERENCE))
    low, high = (
        convert(np.array([float(REFERENCE[c][s]) for c in concepts]), concepts, TO_CONVENTIONAL)
        for s in (0, 1)
    )
    return pl.DataFrame(
        {"concept": concepts, "low": [f"{v:.4g}" for v in low], "high": [f"{v:.4g}" for v in high]}
    )


def _diagnoses(
    rng: np.random.Generator, truth: Truth, numbers: Numbers, planted: dict[str, int]
) -> pl.DataFrame:
    rows = numbers.add(truth.diagnoses).sort("at", "admission_nr", "rank")
    unsaid = pl.Series(rng.random(len(rows)) < NO_ICD_VERSION) & ~rows["twin"]
    planted["no_icd_version"] = int(unsaid.sum())
    version = pl.when(unsaid).then(None).otherwise(pl.lit("9"))
    return rows.select(
        *_ids(), DX_CD="icd9", DX_VER=version, SEQ=pl.col("rank").cast(pl.String), CODED_DTTM=_local("at")
    )


def _procedures(truth: Truth, numbers: Numbers) -> pl.DataFrame:
    return numbers.add(truth.procedures).sort("at", "admission_nr", "name").select(
        *_ids(), PX_CD="icd9", PX_NAME=pl.col("name").str.to_uppercase(), START_DTTM=_local("at"), END_DTTM=_local("end"),
    )  # fmt: skip


def _drugs(truth: Truth, numbers: Numbers) -> Export:
    rows = numbers.add(truth.medications).sort("at", "admission_nr", "drug")
    amount = pl.col("amount").cast(pl.String).str.strip_suffix(".0")
    name = pl.col("drug").str.to_uppercase()
    orders, given = rows.filter(pl.col("kind") == "order"), rows.filter(pl.col("kind") != "order")
    action = pl.when(pl.col("kind") == "infusion").then(pl.lit("NEW BAG")).otherwise(pl.lit("GIVEN"))
    return {
        "rx_order.csv": orders.select(*_ids(BED), START_DTTM=_local("at"), STOP_DTTM=_local("end"), MED_NAME=name, DOSE=amount, DOSE_UOM="unit", RTE="route"),
        "mar.csv": given.select(*_ids(BED), TAKEN_DTTM=_local("at"), END_DTTM=_local("end"), ACTION=action, MED_NAME=name, AMT=amount, AMT_UOM="unit", RTE="route"),
    }  # fmt: skip


def _cultures(truth: Truth, numbers: Numbers) -> pl.DataFrame:
    return numbers.add(truth.cultures).sort("at", "admission_nr", "site", "antibiotic").select(
        *_ids(), COLLECT_DTTM=_local("at"), RESULT_DTTM=_local("stored"), SPEC=pl.col("site").replace_strict(SPECIMENS),
        TEST=pl.col("test").str.to_uppercase(), ORG=pl.col("organism").str.to_uppercase(), ABX=pl.col("antibiotic").str.to_uppercase(),
        SUSC=pl.col("interpretation").replace_strict(LETTERS, default=None),
    )  # fmt: skip
