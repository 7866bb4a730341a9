"""ICU stays as the files that YAIB reads: `python -m orchestration.yaib.export`.

`yaib/<hospital>/<version>/<task>/` holds dyn.parquet (stay_id, time, 48 variables; one row an hour, nothing carried), sta.parquet
(stay_id, age, sex, height, weight) and outc.parquet (stay_id, with several labels a stay also time, label) of every task over
ICU stays; `base/` has dyn and sta of all stays, and in stays.parquet which stay a number is.
Contract: van de Water et al., YAIB (ICLR 2024), and its cohort scripts; variables.csv says which concept a variable is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from orchestration import catalog, dbt, exporting
from orchestration.dictionary import read_csv
from orchestration.tasks import definition

VARIABLES = Path(__file__).parent / "variables.csv"
TABLES = ("features/icu_hourly", "harmonised/measurements_hourly", "splits")
VARIANTS = {  # at which hour of the stay an hour of measurement stands
    "corrected": "greatest(hour, cast(ceil((epoch_us(available_at) - epoch_us(start_at)) / 3600000000) as int) - 1)",
    "as_published": "hour",
}
BASE = "base"
# The number of a stay: the hospital's own where it is one, else 60 bits of a hash.
STAY_ID = (
    "coalesce(try_cast(stay as bigint), cast('0x' || left(md5(hospital || chr(31) || stay), 15) as bigint))"
)


def variables() -> list[str]:
    """The 48 variables, in YAIB's order."""
    return list(dict.fromkeys(row["variable"] for row in read_csv(VARIABLES)))


def dyn_schema() -> pa.Schema:
    columns = {"stay_id": pa.int64(), "time": pa.duration("s")}
    return pa.schema(columns | {name: pa.float64() for name in variables()})


STA_SCHEMA = pa.schema(
    {
        "stay_id": pa.int64(),
        "age": pa.float64(),
        "sex": pa.string(),
        "height": pa.float64(),
        "weight": pa.float64(),
    }
)


def tasks() -> list[str]:
    """Names of the tasks that have one label or more an ICU stay."""
    return sorted(name for name, task in definition.read(dbt.PROJECT).items() if task.cohort == "stays")


def inputs_of(accepted: catalog.Catalog, name: str) -> dict[str, str]:
    """Asset key to version of all that is read. Raises NotPublished where the warehouse has not been made."""
    keys = [*TABLES, f"input/{name}/patients", *(f"labels/{task}" for task in tasks())]
    return {key: accepted.version(key) for key in keys}


def export(
    root: str,
    run_id: str,
    names: Sequence[str],
    variant: str = "corrected",
    memory: str = "1200MB",
    threads: int = 2,
) -> dict[str, dict[str, object]]:
    """Write and publish `yaib/<hospital>` of each accepted hospital, or reuse what was made from just this.

    variant: `corrected` writes a value at the hour in which it was known, `as_published` at the hour of its measurement.
    Returns asset key to metadata (counts). Raises catalog.CatalogError.
    """
    accepted = catalog.load(root)
    made, candidates = {}, []
    with catalog.scratch("yaib") as scratch:
        for name in names:
            key = f"yaib/{name}"
            if f"input/{name}/patients" not in accepted.accepted:
                continue
            inputs = inputs_of(accepted, name)
            code = catalog.code_hash(Path(__file__).parent)
            fingerprint = catalog.fingerprint(inputs=inputs, code=code, variant=variant)
            if accepted.reusable(key, fingerprint):
                made[key] = {**accepted.entry(key)["metadata"], "reused": True}
                continue
            made[key] = _Hospital(accepted, name, scratch, variant, memory, threads).write()
            candidates.append(
                catalog.Candidate(key, scratch / "out" / name, fingerprint, inputs, made[key], False)
            )
        if candidates:
            catalog.publish(root, run_id, candidates)
    return made


class _Hospital:
    """One hospital's folder."""

    def __init__(
        self, accepted: catalog.Catalog, name: str, scratch: Path, variant: str, memory: str, threads: int
    ):
        self.accepted, self.name, self.scratch, self.variant = accepted, name, scratch, variant
        self.folder = scratch / "out" / name
        self.connection = duckdb.connect(
            config={"memory_limit": memory, "threads": threads, "temp_directory": str(scratch / "spill")}
        )

    def write(self) -> dict[str, object]:
        """All files; returns counts."""
        with self.connection:
            self._stays()
            self._cells()
            counts: dict[str, object] = {"variant": self.variant}
            for task in [BASE, *tasks()]:
                place = self.folder / task
                place.mkdir(parents=True)
                if task == BASE:
                    self.connection.execute(
                        "create or replace table chosen as select stay_id, patient_id, hours - 1 as last_hour, "
                        "start_at + interval 24 hours as known_at from stays"
                    )
                else:
                    counts[f"labels_{task}"] = self._outc(f"labels/{task}", place)
                counts[f"stays_{task}"] = self._write(
                    place / "sta.parquet", STA_SCHEMA, SQL_STA.format(patients=self._rows(self._patients))
                )
                counts[f"rows_{task}"] = self._write(place / "dyn.parquet", dyn_schema(), self._dyn())
            self._write(
                self.folder / BASE / "stays.parquet",
                None,
                "select stay_id, hospital, patient_id, visit_id, stay, split from stays join "
                f"{self._rows('splits')} using (hospital, patient_id) order by stay_id",
            )
        return counts

    @property
    def _patients(self) -> str:
        return f"input/{self.name}/patients"

    def _rows(self, key: str) -> str:
        """A select over this hospital's rows of exactly the accepted files."""
        files = ", ".join(f"'{catalog.fetched(url, self.scratch)}'" for url in self.accepted.files(key))
        return f"(from read_parquet([{files}], hive_partitioning = false) where hospital = '{self.name}')"

    def _stays(self) -> None:
        self.connection.execute(
            f"create table stays as select *, {STAY_ID} as stay_id from (select hospital, patient_id, visit_id, "
            "stay_id as stay, min(known_at) - interval 1 hour as start_at, cast(count(*) as int) as hours "
            f"from {self._rows('features/icu_hourly')} where stay_id is not null group by all)"
        )

    def _cells(self) -> None:
        """One value a stay, variable and hour: of several concepts or hours the newest, then the first in variables.csv."""
        self.connection.register("meant", pa.Table.from_pylist(_ranked()))
        hourly = self._rows("harmonised/measurements_hourly")
        self.connection.execute(
            "create table cells as select stays.stay_id, variable, "
            f"{VARIANTS[self.variant]} as at_hour, "
            "max({'hour': hour, 'rank': -rank, 'value': value}).value as value "
            f"from {hourly} as hourly join meant using (concept) join stays "
            "on hourly.patient_id = stays.patient_id and hourly.stay_id = stays.stay "
            "where hour >= 0 group by all"
        )
        self.connection.execute(
            "create table bodies as select patient_id, concept, value, available_at, event_at "
            f"from {hourly} where concept in ('height', 'weight')"
        )

    def _outc(self, key: str, place: Path) -> int:
        """The labels of a task by stay, and which stays and hours belong to it; returns their number."""
        self.connection.execute(
            "create or replace table labelled as select stay_id, stays.patient_id, prediction_at, label, "
            "cast(floor((epoch_us(prediction_at) - epoch_us(start_at)) / 3600000000) as int) - 1 as at_hour "
            f"from {self._rows(key)} as labels join stays on labels.patient_id = stays.patient_id "
            "and prediction_at > start_at and prediction_at <= start_at + to_hours(hours) "
            "qualify row_number() over (partition by labels.patient_id, prediction_at order by start_at desc) = 1"
        )
        self.connection.execute(
            "create or replace table chosen as select stay_id, patient_id, max(at_hour) as last_hour, "
            "min(prediction_at) as known_at from labelled group by all"
        )
        [(several, kind)] = self.connection.execute(
            "select count(*) > count(distinct stay_id), any_value(typeof(label)) from labelled"
        ).fetchall()
        fields = {"stay_id": pa.int64()} | ({"time": pa.duration("s")} if several else {})
        fields["label"] = pa.float64() if kind == "DOUBLE" else pa.int64()
        seconds = "at_hour * 3600 as time, " if several else ""
        return self._write(
            place / "outc.parquet",
            pa.schema(fields),
            f"select stay_id, {seconds}label from labelled order by stay_id, at_hour",
        )

    def _dyn(self) -> str:
        columns = ", ".join(
            f"max(value) filter (where variable = '{name}') as {name}" for name in variables()
        )
        return (
            "with grid as (select stay_id, unnest(range(0, last_hour + 1)) as at_hour from chosen) "
            f"select stay_id, at_hour * 3600 as time, {columns} "
            "from grid left join cells using (stay_id, at_hour) group by stay_id, at_hour order by stay_id, at_hour"
        )

    def _write(self, path: Path, schema: pa.Schema | None, query: str) -> int:
        """Write what the query finds, cast to the schema; returns the number of rows. DuckDB writes no durations itself."""
        reader = self.connection.sql(query).to_arrow_reader(65_536)
        rows = 0
        with pq.ParquetWriter(path, schema or reader.schema, compression="zstd") as file:
            for batch in reader:
                table = pa.Table.from_batches([batch])
                file.write_table(table.cast(schema) if schema else table)
                rows += batch.num_rows
        return rows


SQL_STA = """with known as (
    select stay_id, concept, arg_max(value, bodies.event_at) as value
    from chosen join bodies on chosen.patient_id = bodies.patient_id and bodies.available_at <= chosen.known_at
    group by all
)
select
    stay_id,
    date_part('year', start_at) - birth_year as age,
    case sex when 'F' then 'Female' when 'M' then 'Male' end as sex,
    height.value as height,
    weight.value as weight
from chosen
join stays using (stay_id)
left join {patients} as patients on stays.patient_id = patients.patient_id
left join (from known where concept = 'height') as height using (stay_id)
left join (from known where concept = 'weight') as weight using (stay_id)
order by stay_id"""


def _ranked() -> list[dict[str, object]]:
    return [
        {"variable": row["variable"], "concept": row["concept"], "rank": rank}
        for rank, row in enumerate(read_csv(VARIABLES))
    ]


if __name__ == "__main__":
    sys.exit(exporting.command("yaib", export))
