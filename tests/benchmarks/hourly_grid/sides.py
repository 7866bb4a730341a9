"""The sides of the comparison: each reads the accepted input layer of `root` and leaves its grid in the folder `out`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import duckdb

from orchestration import catalog, dbt, dictionary, harmonise, warehouse_run
from tests.benchmarks.hourly_grid.generate import HERE, HOURS, mapped_concepts


def ours(root: str, out: Path, models: str = "+icu_hourly") -> None:
    """What the night does to one bucket after another, up to the named models; seconds.json tells where the time went."""
    accepted = catalog.load(root)
    inputs = sorted(harmonise.inputs_of(accepted, ["bench"]))
    run = warehouse_run.Run(out, accepted, inputs, {}, "800MB", 1, dbt.PROJECT)
    seconds: dict[str, float] = {}
    for bucket in sorted(run.files["measurements"]):
        database = run.prepared(bucket)
        results = dbt.build(
            database,
            out,
            ["--select", *models.split(), "--exclude-resource-type", "test", "unit_test"],
            memory="800MB",
            threads=1,
        )
        dbt.require_success(results)
        for node in results:
            seconds[node.name] = seconds.get(node.name, 0) + node.seconds
    (out / "seconds.json").write_text(json.dumps(seconds))


def fates(root: str, out: Path) -> None:
    ours(root, out, "+measurements fates")


def textbook(root: str, out: Path) -> None:
    def repeat(match: re.Match) -> str:
        return ",\n".join(
            match[1].replace("{concept}", c["concept"]).replace("{carry_h}", c["carry_h"])
            for c in mapped_concepts()
        )

    text = (HERE / "textbook.sql").read_text()
    text = re.sub(r"\{per_concept: ((?:[^{}]|\{concept\}|\{carry_h\})*)\}", repeat, text)
    config = {
        "threads": 1,
        "memory_limit": "8GB",
        "temp_directory": str(out / "spill"),
        "preserve_insertion_order": False,
    }
    with duckdb.connect(str(out / "textbook.duckdb"), config=config) as connection:
        for table in ("measurements", "stays"):
            connection.execute(
                f"create view {table} as select * from read_parquet({catalog.load(root).files(f'input/bench/{table}')}, "
                "hive_partitioning = false)"
            )
        for name, content in small_tables(root).items():
            connection.register("content", content)
            connection.execute(f"create table {name} as select * from content")
            connection.unregister("content")
        connection.execute(text)


def small_tables(root: str) -> dict:
    """items (unit in UCUM), units, conversions and concepts as pandas frames."""
    import pandas as pd

    concepts = pd.DataFrame(mapped_concepts())
    for column in ("plausible_low", "plausible_high", "carry_h"):
        concepts[column] = concepts[column].astype(float)
    units = pd.DataFrame(dictionary.read_csv(dictionary.SEEDS / "units.csv"))
    items = pd.concat([pd.read_parquet(file) for file in catalog.load(root).files("input/bench/items")])
    items["unit"] = items["unit"].map(units.set_index("spelling")["ucum"])
    return {
        "items": items[["source_table", "code", "concept", "unit"]],
        "units": units,
        "conversions": pd.DataFrame(list(dictionary.conversions())),
        "concepts": concepts[["concept", "plausible_low", "plausible_high", "aggregate", "carry_h"]],
    }


def pandas(root: str, out: Path) -> None:
    """The way that most notebooks and pipelines take: tidy the table, then one stay at a time."""
    import pandas as pd

    small = small_tables(root)
    concepts = small["concepts"].set_index("concept")
    wanted = [
        "patient_id",
        "stay_id",
        "event_at",
        "source_table",
        "code",
        "value_text",
        "value_number",
        "unit",
    ]
    files = catalog.load(root).files("input/bench/measurements")
    rows = pd.concat([pd.read_parquet(file, columns=wanted) for file in files]).drop_duplicates()
    rows = rows.merge(small["items"], on=["source_table", "code"], suffixes=("", "_declared"))
    folded = rows["unit"].str.replace(r"\s", "", regex=True).str.lower()
    rows["unit_from"] = folded.map(small["units"].set_index("spelling")["ucum"]).fillna(rows["unit_declared"])
    rows = rows.merge(small["conversions"], on=["concept", "unit_from"]).merge(
        small["concepts"], on="concept"
    )
    rows["value"] = (rows["value_number"] * rows["factor"] + rows["shift"]).round(10)
    rows = rows[rows["value"].between(rows["plausible_low"], rows["plausible_high"])]
    stays = pd.concat([pd.read_parquet(file) for file in catalog.load(root).files("input/bench/stays")])
    starts = stays.set_index("stay_id")["event_at"]
    kinds = concepts.groupby("aggregate").groups
    grids = []
    for stay_id, of_stay in rows.groupby("stay_id", sort=False):
        of_stay = of_stay.sort_values("event_at")
        of_stay["hour"] = (of_stay["event_at"] - starts[stay_id]) // pd.Timedelta(hours=1)
        grid = pd.RangeIndex(HOURS, name="hour")
        counts = of_stay.groupby(["hour", "concept"]).size().unstack().reindex(grid, columns=concepts.index)
        tables = [
            of_stay[of_stay["concept"].isin(names)].groupby(["hour", "concept"])["value"].agg(kind).unstack()
            for kind, names in kinds.items()
        ]
        values = pd.concat(tables, axis=1).reindex(grid, columns=concepts.index).ffill()
        hours = counts.notna().mul(grid, axis=0).where(counts.notna()).ffill()
        ages = hours.rsub(pd.Series(grid, index=grid), axis=0)
        fresh = ages.le(concepts["carry_h"], axis=1)
        wide = pd.concat(
            [
                values.where(fresh).add_suffix("_value"),
                counts.fillna(0).astype("int32").add_suffix("_n_obs"),
                ages.where(fresh).add_suffix("_age_h"),
            ],
            axis=1,
        )
        grids.append(wide.reset_index().assign(stay_id=stay_id))
    pd.concat(grids).to_parquet(out / "wide.parquet")
