"""Begin with an unknown export: what it holds, a draft of its mapping, and every item with a guess that decides nothing.

    python -m orchestration.onboard <hospital> <location>     writes orchestration/defs/hospitals/<hospital>/
    python -m orchestration.onboard check <hospital>          says what is undecided, weighted by rows; of a hospital
                                                              that was not onboarded, in its accepted input

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

from orchestration import catalog, drafting, guessing, hospitals, profiling
from orchestration.items_csv import ITEMS_HEADER
from orchestration.layout import SCHEMAS, load
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
    (folder / "tables.yaml").write_text(
        DRAFT + yaml.safe_dump(drafting.draft(tables), sort_keys=False, width=110)
    )
    _write(folder / "items.csv", ITEMS_HEADER, (_item(*one) for one in guessed))
    _write(folder / "profile.csv", PROFILE_HEADER, (_profile_row(*one) for one in guessed))
    listed = "\n".join(f"  {t.path}: {t.rows} rows, {_roles(t)}" for t in tables)
    return f"{relative(folder)}: {len(tables)} tables, {len(seen)} items to decide\n{listed}"


def check(hospital: str, base: Path | None = None) -> str:
    """What is undecided of the hospital's items, those with most rows first. Raises LayoutError.

    The rows are those of the profile that onboarding wrote; of a hospital that was not onboarded, those of its accepted input.
    """
    folder = (base or hospitals.FOLDER) / hospital
    known = hospitals.known(folder.parent)
    if hospital not in known:
        raise LayoutError(f"{relative(folder)}: no hospital is called {hospital}; {near(hospital, known)}")
    extends = known[hospital].extends
    if (folder / "profile.csv").is_file():
        with (folder / "profile.csv").open(newline="", encoding="utf-8") as file:
            rows = [((row["source_table"], row["code"]), row) for row in csv.DictReader(file)]
        nothing = (
            f"{relative(folder)}: no table was recognised as measurements, so there is no item to decide; write input.measurements "
            "in tables.yaml (docs/hospitals.md). The next run lists its items in harmonised/unmapped, with the header of items.csv"
        )
    else:
        rows = _accepted(hospital, folder, extends)
        nothing = f"{hospital}: its accepted input holds no measurement"
    if not rows:
        return nothing
    decided = {item.key for item in load(folder, extends).items if item.values["decision"]}
    weight = {key: int(row["rows"] or 0) for key, row in rows}
    total, done = sum(weight.values()), sum(n for key, n in weight.items() if key in decided)
    left = sorted((item for item in rows if item[0] not in decided), key=lambda item: -weight[item[0]])
    lines = [
        f"{hospital}: {len(rows) - len(left)} of {len(rows)} items decided, {done / max(total, 1):.1%} of their rows"
    ]
    for key, row in left[:20]:
        lines.append(f"  {weight[key] or 'few':>10} rows  {'/'.join(key)}  {row['label']}  {row['guesses']}")
    return "\n".join(lines)


def _accepted(hospital: str, folder: Path, extends: str | None) -> list[tuple[tuple[str, str], dict]]:
    """The items of the hospital's accepted input with their rows. Raises LayoutError if no input of it is accepted."""
    published = catalog.load()
    tables = {name: f"input/{hospital}/{name}" for name in ("measurements", "items")}
    if not set(tables.values()) <= set(published.accepted):
        items = SCHEMAS / extends if extends else folder
        raise LayoutError(
            f"{relative(folder)}: was not onboarded, and no input of it is accepted yet; its items are in "
            f"{relative(items / 'items.csv')}. Run python -m orchestration.ingest {hospital}, then check again"
        )
    with catalog.scratch("check") as scratch, duckdb.connect() as connection:
        for name, key in tables.items():
            files = [catalog.fetched(url, scratch) for url in published.files(key)]
            connection.read_parquet(files, hive_partitioning=False).create_view(name)
        found = connection.execute(
            f"""select source_table, code, max(label), case when count(distinct patient_id) >= {profiling.SMALL_CELL}
                then count(*) end from measurements left join items using (source_table, code) group by all"""
        ).fetchall()
    return [((t, code), {"label": label or "", "rows": n, "guesses": ""}) for t, code, label, n in found]


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
