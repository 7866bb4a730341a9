"""Begin with an unknown export: what it holds, a draft of its mapping, and every item with a guess that decides nothing.

    python -m orchestration.onboard <hospital> <location>     writes orchestration/defs/hospitals/<hospital>/
    python -m orchestration.onboard check <hospital>          says what is undecided, weighted by rows

It writes `defs.yaml` (absent until <HOSPITAL>_LOCATION is set), `tables.yaml` (a draft: its columns are guessed by name and
content), `items.csv` (every item, no decision; the note ranks concepts) and `profile.csv` (rows, patients, spellings of units,
quantiles of each item). Counts only; what fewer than 10 patients have is left out. Nothing that is there is overwritten.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import duckdb
import fsspec
import yaml

from orchestration import catalog, guessing, hospitals, profiling
from orchestration.items_csv import ITEMS_HEADER
from orchestration.layout import load
from orchestration.layout_words import NAME, SUFFIXES
from orchestration.profiling import Seen, Table
from orchestration.wording import LayoutError, near, relative

PROFILE_HEADER = [
    "source_table",
    "code",
    "label",
    "rows",
    "patients",
    "units",
    "q05",
    "q50",
    "q95",
    "guesses",
]
DEFS = """# Switched on by {variable}, the folder or URL of its export; absent while it is not set.
type: orchestration.components.HospitalSource

attributes:
  hospital: {hospital}
  location_env: {variable}
  buckets: 1
"""
DRAFT = """# A draft by `python -m orchestration.onboard`: columns were guessed by name and content. Correct them, add the other input
# tables (docs/hospitals.md lists them), set the timezone, and see that patients and visits are right: every row hangs on them.
"""


def onboard(hospital: str, location: str, base: Path | None = None) -> str:
    """Write the hospital's folder; returns a summary in counts. Raises LayoutError with its mend."""
    folder = (base or hospitals.FOLDER) / hospital
    if not NAME.match(hospital):
        raise LayoutError(f"{hospital}: name the hospital in lower case letters, digits and underscores")
    if folder.exists():
        raise LayoutError(f"{relative(folder)} is there already; remove it, or choose another name")
    with catalog.scratch("onboard") as scratch, profiling.connect(scratch) as connection:
        tables = [_profiled(connection, name, path, local) for name, path, local in _files(location, scratch)]
        measured = [table for table in tables if table.is_measured]
        seen = [item for table in measured for item in profiling.items(connection, table, tables)]
    guessed = [(item, _guesses(item)) for item in seen]
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text(DEFS.format(hospital=hospital, variable=f"{hospital.upper()}_LOCATION"))
    (folder / "tables.yaml").write_text(DRAFT + yaml.safe_dump(_draft(tables), sort_keys=False, width=110))
    _write(folder / "items.csv", ITEMS_HEADER, (_item(*one) for one in guessed))
    _write(folder / "profile.csv", PROFILE_HEADER, (_profile_row(*one) for one in guessed))
    listed = "\n".join(f"  {t.path}: {t.rows} rows, {_roles(t)}" for t in tables)
    return f"{relative(folder)}: {len(tables)} tables, {len(seen)} items to decide\n{listed}"


def check(hospital: str, base: Path | None = None) -> str:
    """What is undecided in the hospital's items.csv, the items with most rows first. Raises LayoutError."""
    folder = (base or hospitals.FOLDER) / hospital
    if not (folder / "profile.csv").is_file():
        names = [path.parent.name for path in (base or hospitals.FOLDER).glob("*/profile.csv")]
        raise LayoutError(f"{relative(folder)}: was not onboarded; {near(hospital, names)}")
    layout = load(folder, None)
    decided = {item.key for item in layout.items if item.values["decision"]}
    with (folder / "profile.csv").open(newline="", encoding="utf-8") as file:
        rows = [((row["source_table"], row["code"]), row) for row in csv.DictReader(file)]
    weight = {key: int(row["rows"] or 0) for key, row in rows}
    total, done = sum(weight.values()), sum(n for key, n in weight.items() if key in decided)
    left = sorted((item for item in rows if item[0] not in decided), key=lambda item: -weight[item[0]])
    lines = [
        f"{hospital}: {len(rows) - len(left)} of {len(rows)} items decided, {done / max(total, 1):.1%} of their rows"
    ]
    for key, row in left[:20]:
        lines.append(f"  {weight[key] or 'few':>10} rows  {'/'.join(key)}  {row['label']}  {row['guesses']}")
    return "\n".join(lines)


def _files(location: str, scratch: Path):
    """(name, path in the export, local file) of every table file. Raises LayoutError if there is none."""
    fs, root = fsspec.core.url_to_fs(location)
    if not fs.isdir(root):
        raise LayoutError(f"{location} is no folder; name the folder or URL that holds the export's tables")
    root = root.rstrip("/")
    paths = sorted(p for p in fs.find(root, maxdepth=3) if re.search(rf"\.({SUFFIXES})$", p))
    if not paths:
        raise LayoutError(
            f"{location} holds no csv, txt, tsv or parquet file; name the folder that holds the tables"
        )
    names: set[str] = set()
    for full in paths:
        path = full.removeprefix(root + "/")
        name = re.sub(
            r"[^a-z0-9]+", "_", re.sub(rf"\.({SUFFIXES})$", "", path.rsplit("/", 1)[-1]).lower()
        ).strip("_")
        name = name if name[:1].isalpha() and name not in names else f"t_{len(names)}_{name}"
        names.add(name)
        local = Path(full)
        if not catalog.is_local(location):
            local = scratch / full.rsplit("/", 1)[-1]
            fs.get_file(full, str(local))
        yield name, path, local


def _profiled(connection: duckdb.DuckDBPyConnection, name: str, path: str, local: Path) -> Table:
    try:
        return profiling.profile(connection, name, path, local)
    except duckdb.Error as error:  # its text may quote rows
        kind = type(error).__name__
        raise LayoutError(f"{path} cannot be read ({kind}); correct or move it, then run again") from None


def _draft(tables: list[Table]) -> dict:
    """tables.yaml as far as it can be guessed: all raw tables, patients, visits and what was measured."""
    raw = {
        t.name: {"path": t.path}
        | ({"delimiter": t.delimiter} if t.delimiter != "," else {})
        | ({"key": t.keys[:1]} if t.keys else {})
        for t in tables
    }
    sources: dict[str, list[dict]] = {"patients": [], "visits": [], "measurements": []}
    once_each = [t for t in tables if t.one("patient") in t.keys]
    person = max(
        once_each, key=lambda t: len({"sex", "birth"} & set(t.roles)) - ("visit" in t.roles), default=None
    )
    if person:
        birth = person.one("birth") and f"left({person.one('birth')}, 4)"
        columns = {"patient_id": person.one("patient"), "sex": person.one("sex"), "birth_year": birth}
        sources["patients"].append({"from": person.name, "columns": {k: v for k, v in columns.items() if v}})
    for table in tables:
        patient, visit, time = table.one("patient"), table.one("visit"), table.one("time")
        if patient and time and visit in table.keys and not sources["visits"]:
            columns = {"patient_id": patient, "visit_id": visit, "event_at": _time(table, time)}
            if len(table.roles["time"]) > 1:
                columns["end_at"] = _time(table, table.roles["time"][1])
            sources["visits"].append({"from": table.name, "columns": columns})
        if table.is_measured:
            columns = {"patient_id": patient, "visit_id": visit, "event_at": _time(table, time)}
            columns |= {"source_table": f"'{table.name}'", "code": table.one("code")}
            columns |= {"value_text": table.one("number"), "unit": table.one("unit")}
            sources["measurements"].append(
                {"from": table.name, "columns": {k: v for k, v in columns.items() if v}}
            )
    return {"timezone": "as_written", "raw": raw, "input": {k: v for k, v in sources.items() if v}}


def _time(table: Table, column: str) -> str:
    form = table.times[column]
    if form == "offset":
        return f"after('2000-01-01', {column})"
    return f"try_strptime({column}, '{form}')" if form else column


def _item(item: Seen, guesses: str) -> list[str]:
    unit = item.units[0] if item.units and guessing.is_known(item.units[0]) else ""
    return [
        item.source_table,
        item.code,
        item.label,
        "",
        "",
        "",
        unit,
        "",
        f"guess: {guesses}" if guesses else "",
    ]


def _profile_row(item: Seen, guesses: str) -> list[object]:
    quantiles = [f"{value:g}" for value in item.quantiles] if item.quantiles else [""] * 3
    units = "; ".join(item.units) if item.patients else ""
    return [
        item.source_table,
        item.code,
        item.label,
        item.rows,
        item.patients,
        units,
        *quantiles,
        _guesses(item),
    ]


def _guesses(item: Seen) -> str:
    return ", ".join(f"{concept} {score:g}" for concept, score in guessing.ranked(item))


def _roles(table: Table) -> str:
    roles = "; ".join(
        f"{role}: {', '.join(columns)}" for role, columns in table.roles.items() if role != "other_id"
    )
    return (f"key {', '.join(table.keys)}; " if table.keys else "") + (roles or "no column that is known")


def _write(path: Path, header: list[str], rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(
            "usage: python -m orchestration.onboard <hospital> <location>   or   check <hospital>",
            file=sys.stderr,
        )
        return 2
    try:
        print(check(arguments[1]) if arguments[0] == "check" else onboard(*arguments))
    except LayoutError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
