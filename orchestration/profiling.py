"""What an unknown export holds, as counts: its tables, what each column seems to be, and the items that were measured.

Roles of columns follow from their names and from what share of their values reads as a time, a number or a known unit.
Nothing that is returned quotes a record; statistics of fewer than SMALL_CELL patients are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from orchestration import dictionary
from orchestration.expressions import literal, quoted

SMALL_CELL = 10
SAMPLE = 200_000  # rows that are looked at to tell what a column is
ITEMS = 5_000  # a column with more distinct values is no list of items
TIME_FORMATS = ("%m/%d/%Y %H:%M", "%m/%d/%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%Y%m%d%H%M%S", "%Y%m%d")
NAMES = {
    "patient": r"^(subject_?id|patient(_?(id|nr|no|number))?|person_?id|pat_?id|pid|mrn|record_?id|subject)$",
    "visit": r"^(hadm_?id|visit_?(occurrence_?)?id|enc(ounter)?(_?id)?|admission_?(id|nr|no)|case_?(id|no)|stay_?id)$",
    "code": r"^(item_?id|code|test|parameter|analysis|observation|item|loinc|concept_?code|measurement|ndc|"
    r"(test|loinc|icd(_?(9|10))?|snomed|rxnorm|atc|dx|diagnosis|drug|medication|procedure)_?code)$",
    "system": r"^(code_?system|vocabulary(_id)?|coding_?system|icd_?version)$",
    "label": r"^((item|concept|test)_?name|label|name|description|display|long_?(name|title)|text)$",
    "number": r"^(value_?(num|number|as_number)?|valuenum|result(_value)?|rslt|val|numeric_value)$",
    "unit": r"^(units?|uom|value_?uom|unit_?of_?measure|unit_source_value)$",
    "sex": r"^(sex|gender)(_cd|_code|_source_value|_concept_id)?$",
    "birth": r"^(dob|birth_?date(time)?|date_of_birth|birth_?dt|born|year_of_birth|birth_?year)$",
}
OWN_CODE = r"_(source_value|concept_id|code|item)$"  # after a word of the table's own name: lab_code of labs
SHARES = {
    "filled": "{c} not in ('', '0')",
    "time": "try_cast({c} as timestamp) is not null and not regexp_full_match({c}, '[0-9.]+')",
    "offset": "regexp_full_match({c}, '-?[0-9]+:[0-5][0-9](:[0-5][0-9])?')",
    "number": "try_cast({c} as double) is not null",
    "unit": "{c_spelled} in (from spellings)",
} | {fmt: f"try_strptime({{c}}, {literal(fmt)}) is not null" for fmt in TIME_FORMATS}


@dataclass
class Table:
    """One file of the export. `roles` maps a role to its columns, the likeliest first; `keys` are columns without repeats."""

    name: str
    path: str
    delimiter: str
    rows: int
    columns: list[str]
    roles: dict[str, list[str]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    times: dict[str, str] = field(default_factory=dict)

    def one(self, role: str) -> str | None:
        return next(iter(self.roles.get(role, ())), None)

    def own_ids(self) -> set[str]:
        """Columns that are named after the table: `case_id` of cases, `visit_detail_id` of visit_detail, or a mere `id`."""
        own = {"id"} | {f"{name}{mark}id" for name in (self.name, self.singular) for mark in ("_", "")}
        return {column for column in self.columns if column.lower() in own}

    @property
    def singular(self) -> str:
        return self.name.removesuffix("s")

    def is_own_code(self, column: str) -> bool:
        """Whether the column tells by its name what the row is about: `drug_concept_id` of drug_exposure, `lab_code` of labs."""
        stem, ends = re.subn(OWN_CODE, "", column.lower())
        first = self.name.split("_")[0]
        return bool(ends) and stem in {self.name, self.singular, first, first.removesuffix("s")}

    @property
    def is_measured(self) -> bool:
        """Long: one row a reading, with a patient, a time, a code that repeats, and a number."""
        return all(self.one(role) for role in ("patient", "time", "code", "number"))


@dataclass
class Seen:
    """One item as it was observed. Numbers are None where fewer than SMALL_CELL patients have it."""

    source_table: str
    code: str
    label: str
    patients: int | None
    rows: int | None
    units: list[str]
    quantiles: tuple[float, float, float] | None


def connect(scratch: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(str(scratch / "profile.duckdb"))
    connection.execute("set memory_limit = '800MB'; set enable_progress_bar = false")
    connection.execute("create table spellings (spelling varchar)")
    known = {
        dictionary.spelled(row["spelling"]) for row in dictionary.read_csv(dictionary.SEEDS / "units.csv")
    }
    connection.executemany("insert into spellings values (?)", [[spelling] for spelling in sorted(known)])
    return connection


def profile(connection: duckdb.DuckDBPyConnection, name: str, path: str, local: Path) -> Table:
    """Read one file into the table `name` of text columns and say what it holds. Raises duckdb.Error if it cannot be read."""
    delimiter = ","
    if local.suffix == ".parquet":
        source = f"read_parquet({literal(str(local))})"
    else:
        options = "all_varchar = true, header = true, sample_size = 20000, ignore_errors = true"
        found = connection.execute(
            f"select delimiter from sniff_csv({literal(str(local))}, all_varchar = true)"
        ).fetchall()
        delimiter = found[0][0]
        source = f"read_csv({literal(str(local))}, delim = {literal(delimiter)}, {options})"
    connection.execute(f"create table {quoted(name)} as select columns(*)::varchar from {source}")
    columns = [row[0] for row in connection.execute(f"describe {quoted(name)}").fetchall()]
    rows = connection.execute(f"select count(*) from {quoted(name)}").fetchall()[0][0]
    table = Table(name, path, delimiter, rows, columns)
    for column in columns if rows else []:
        _assign(connection, table, column)
    for role in ("patient", "visit", "code", "other_id"):
        table.keys += [c for c in table.roles.get(role, ()) if _is_key(connection, table, c)]
    table.keys.sort(key=lambda c: c not in table.own_ids())
    for columns in table.roles.values():  # what the source wrote comes before a number of a vocabulary
        columns.sort(key=lambda c: c.lower().endswith("_concept_id"))
    return table


def _assign(connection: duckdb.DuckDBPyConnection, table: Table, column: str) -> None:
    """Put the column under the roles that its name or its values speak for; a name beats values."""
    c = quoted(column)
    spelled = f"lower(regexp_replace({c}, '\\s', '', 'g'))"
    counts = ", ".join(f"count(*) filter ({t.format(c=c, c_spelled=spelled)})" for t in SHARES.values())
    present, *found = connection.execute(
        f"select count({c}), {counts} from (select {c} from {quoted(table.name)} limit {SAMPLE})"
    ).fetchall()[0]
    shares = {name: count / present if present else 0.0 for name, count in zip(SHARES, found, strict=True)}
    name = f"{table.singular}_id" if column.lower() == "id" else column.lower()  # of patients: patient_id
    named = next((role for role, pattern in NAMES.items() if re.match(pattern, name)), None)
    if (
        not named
        and table.is_own_code(column)
        and shares["filled"] > 0.5
        and not _is_key(connection, table, column)
    ):
        named = "code"
    is_id = column.lower().endswith("id")
    form = next((fmt for fmt in TIME_FORMATS if shares[fmt] > 0.9 and not is_id), None)
    if named == "birth":
        role = named
    elif shares["time"] > 0.9 or shares["offset"] > 0.9 or (form and not named):
        role = "time"
        table.times[column] = "" if shares["time"] > 0.9 else "offset" if shares["offset"] > 0.9 else form
    elif named == "number" and shares["number"] < 0.3:
        role = "text"
    elif named:
        role = named
    elif shares["unit"] > 0.8 and shares["number"] < 0.5:
        role = "unit"
    elif is_id:
        role = "other_id"
    else:
        return
    listed = table.roles.setdefault(role, [])
    listed.insert(0 if role == "number" and shares["number"] > 0.9 else len(listed), column)


def _is_key(connection: duckdb.DuckDBPyConnection, table: Table, column: str) -> bool:
    c = quoted(column)
    return connection.execute(f"select count(distinct {c}) = count(*) from {quoted(table.name)}").fetchall()[
        0
    ][0]


def items(connection: duckdb.DuckDBPyConnection, table: Table, tables: list[Table]) -> list[Seen]:
    """The items of a long table by how many rows they have; none if its code column holds too many values for a list."""
    code, number, unit, patient = (table.one(r) for r in ("code", "number", "unit", "patient"))
    c, n, u = quoted(code), f"try_cast({quoted(number)} as double)", quoted(unit) if unit else "null"
    found = connection.execute(
        f"""with units as (
              select code, list(unit order by rows desc, unit)[:5] as spellings
              from (select {c} as code, trim({u}) as unit, count(*) as rows from {quoted(table.name)} group by all)
              where unit <> '' group by code)
            select base.*, units.spellings from (
              select {c} as code, {_label(table)} as label, count(distinct {quoted(patient)}) as patients, count(*) as rows,
                quantile_cont({n}, [0.05, 0.5, 0.95]) as quantiles
              from {quoted(table.name)} where {c} is not null group by {c}) as base
            left join units on base.code = units.code order by base.rows desc, base.code limit {ITEMS + 1}"""
    ).fetchall()
    if len(found) > ITEMS:
        return []
    labels = _labels(connection, table, tables)
    seen = []
    for item, label, patients, rows, quantiles, spellings in found:
        few = patients < SMALL_CELL
        known = None if few or not quantiles or quantiles[0] is None else tuple(quantiles)
        seen.append(
            Seen(
                table.name,
                item,
                labels.get(item) or label or "",
                None if few else patients,
                None if few else rows,
                spellings or [],
                known,
            )
        )
    return seen


def _label(table: Table) -> str:
    label = table.one("label")
    return f"max({quoted(label)})" if label else "null"


def _labels(connection: duckdb.DuckDBPyConnection, table: Table, tables: list[Table]) -> dict[str, str]:
    """Code to label from a table of the export that is a dictionary of the same codes, or of another code of the same rows."""
    code = quoted(table.one("code"))
    for column in table.roles["code"]:
        for other in (t for t in tables if t is not table and t.one("label")):
            theirs = next((c for c in other.keys if _means(column.lower(), c.lower())), None)
            if theirs:
                return dict(
                    connection.execute(
                        f"select coded.{code}, max(labels.{quoted(other.one('label'))}) from {quoted(table.name)} as coded "
                        f"join {quoted(other.name)} as labels on coded.{quoted(column)} = labels.{quoted(theirs)} group by 1"
                    ).fetchall()
                )
    return {}


def _means(column: str, key: str) -> bool:
    """`itemid` finds `itemid`, `drug_concept_id` finds `concept_id`; a mere `id` is found by nothing but itself."""
    return column == key or ("_" in key and column.endswith(f"_{key}"))
