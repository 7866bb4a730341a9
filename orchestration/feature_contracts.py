"""Write the contract of `features/admission_summary` from the dictionary: `python -m orchestration.feature_contracts`.

`models/features/admission_summary.yml` lists one group of columns a concept, and the model iterates over these columns.
Contracts of grids are compiled: orchestration/grids/models.py.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from orchestration.catalog import REPOSITORY
from orchestration.dictionary import SEEDS, read_csv

FEATURES = REPOSITORY / "dbt_project" / "models" / "features"
SLUGS = {"10*3/uL": "k_ul", "10*6/uL": "m_ul", "Cel": "c", "%": "pct", "mm[Hg]": "mmhg", "cm[H2O]": "cmh2o"}
SUMMARISED = [
    "heart_rate",
    "sbp",
    "temperature",
    "respiratory_rate",
    "spo2",
    "glucose",
    "creatinine",
    "urea_nitrogen",
    "sodium",
    "potassium",
    "bicarbonate",
    "hemoglobin",
    "wbc",
    "platelets",
    "lactate",
    "bilirubin_total",
    "inr",
]
STATISTICS = {"first": "First", "last": "Last", "min": "Lowest", "max": "Highest"}

HEAD = """# Made from seeds/concepts.csv by `python -m orchestration.feature_contracts`; edit it there.
version: 2

models:
  - name: {name}
    description: >
      {description}
    columns:
"""
ADMISSION_SUMMARY = """One row a visit: what could be known 24 hours after admission, from rows with available_at up to
      cut_at only. Values are null where nothing was measured."""


def slug(unit: str) -> str:
    """A UCUM unit as the end of a column name: mg/dL is mg_dl, Cel is c; a unit in braces has none."""
    text = re.sub(r"\{[^{}]*\}", "", SLUGS.get(unit, unit)).lower()
    text = re.sub(r"^/", "per_", text).replace("/", "_")
    return re.sub(r"[^a-z0-9_]", "", text)


def column_name(concept: str, unit: str) -> str:
    return "_".join(filter(None, [concept, slug(unit)]))


def _column(name: str, data_type: str, description: str, **meta: str) -> str:
    description = description if description.startswith("{{") else description.replace('"', "'")
    config = ", config: {meta: {" + ", ".join(f"{k}: {v}" for k, v in meta.items()) + "}}" if meta else ""
    return f'      - {{name: {name}, data_type: {data_type}, description: "{description}"{config}}}\n'


def _doc(name: str, data_type: str = "varchar") -> str:
    return _column(name, data_type, "{{ doc('" + name + "') }}")


def admission_summary(concepts: list[dict[str, str]]) -> str:
    text = HEAD.format(name="admission_summary", description=ADMISSION_SUMMARY)
    text += "".join(map(_doc, ("hospital", "patient_id", "visit_id")))
    text += _column("event_at", "timestamp", "Time of admission.")
    text += _column("cut_at", "timestamp", "24 hours after admission; nothing learned later is read.")
    text += _column("age", "integer", "Age in years at admission.")
    text += _column("sex", "varchar", "F or M; null where the hospital says neither.")
    text += _column("visit_type", "varchar", "Kind of admission as the hospital wrote it, lower case.")
    text += _column(
        "n_earlier_visits", "integer", "Visits of the patient to this hospital that began earlier."
    )
    for kind in ("transfers", "labs", "vitals", "cultures", "procedures"):
        text += _column(f"n_{kind}", "integer", f"Events of the visit known by cut_at: {kind}.")
    text += _column("n_drugs", "integer", "Distinct drugs ordered or given, known by cut_at.")
    for row in concepts:
        if row["concept"] in SUMMARISED:
            for statistic, word in STATISTICS.items():
                name = f"{column_name(row['concept'], row['unit'])}_{statistic}"
                what = f"{word} {row['label']} in {row['unit']} known by cut_at."
                text += _column(name, "double", what, concept=row["concept"], statistic=statistic)
    return text


def contracts(seeds: Path = SEEDS) -> dict[Path, str]:
    """The text of each contract by file."""
    concepts = [row for row in read_csv(seeds / "concepts.csv") if row["wide"]]
    return {
        FEATURES / "admission_summary.yml": admission_summary(concepts),
    }


def main() -> int:
    for path, text in contracts().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
