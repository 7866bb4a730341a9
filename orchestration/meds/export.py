"""From the street's tables to MEDS folders, one a hospital and one of all: `python -m orchestration.meds.export`.

A row's `time` is its `available_at`, because MEDS lets a model read everything with `time <= prediction_time`: a result is
read when it was known, not when the blood was drawn, which stays in `event_at`. A subject is a patient of one hospital;
its number is 60 bits of a hash, so that hospitals can be read together. The bucket of the warehouse is the unit of work.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import duckdb
import meds

from orchestration import catalog, exporting
from orchestration.meds import check

ALL = "all"
SPLITS = (meds.train_split, meds.tuning_split, meds.held_out_split)
EVENTS = "harmonised/events"
BUCKET = re.compile(r"/bucket=(\d+)/")
EXTENSIONS = {
    "hospital": "site_id_columns",
    "visit_id": "raw_source_id_columns",
    "stay_id": "raw_source_id_columns",
    "event_at": "other_extension_columns",
    "end_at": "other_extension_columns",
    "unit": "other_extension_columns",
}
SUBJECT_ID = "cast('0x' || left(md5(hospital || chr(31) || patient_id), 15) as bigint)"
CODE = """case
    when kind in ('lab', 'vital', 'output', 'score')
        then upper(kind) || '//' || concept || '//' || coalesce(unit, '')
    when kind in ('diagnosis', 'procedure') and code is not null
        then upper(kind) || '//' || coalesce(code_system, 'UNKNOWN') || '//' || code
    else upper(kind) || '//' || upper(replace(replace(text, kind || ': ', ''), ' ', '_'))
end"""
GROUP = """case
    when kind in ('prescription', 'infusion') then 'DRUG/' || concept
    when kind = 'culture' then 'ORGANISM/' || concept
    when kind = 'diagnosis' then 'CCSR/' || concept
end"""
PARENT = """case
    when code_system = 'ICD10CM' then 'ICD10CM/' || left(code, 3)
    when code is not null then coalesce(code_system, 'UNKNOWN') || '/' || code
end"""
ORDER = "subject_id, time nulls first, code, numeric_value, event_at, end_at, visit_id, stay_id"
# What is known of a person beside the timeline: code, description, time (null: static), condition. A birth is a year.
PERSON = [
    (f"'{meds.birth_code}'", "birth", "make_timestamp(birth_year, 1, 1, 0, 0, 0)", "birth_year is not null"),
    (f"'{meds.death_code}'", "death", "death_at", "death_at is not null"),
    ("'SEX//' || sex", "sex", "cast(null as timestamp)", "sex is not null"),
    ("'RACE//' || upper(replace(race, ' ', '_'))", "race", "cast(null as timestamp)", "race is not null"),
]


def inputs_of(accepted: catalog.Catalog, names: Sequence[str]) -> dict[str, str]:
    """Asset key to version of all that is read. Raises NotPublished where the warehouse has not been made."""
    labels = sorted(
        key for key in accepted.accepted if key.startswith("labels/") and key != "labels/attrition"
    )
    keys = [EVENTS, "splits", *labels, *(f"input/{name}/patients" for name in names)]
    return {key: accepted.version(key) for key in keys}


def export(root: str, run_id: str, names: Sequence[str], memory: str = "1200MB", threads: int = 2) -> dict:
    """Write, judge and publish `meds/<hospital>` of each hospital and `meds/all`, or reuse what was made from just this.

    Returns asset key to metadata (counts). Raises catalog.CatalogError if the validator finds a fault in what was written.
    """
    accepted = catalog.load(root)
    present = [name for name in names if f"input/{name}/patients" in accepted.accepted]
    inputs = inputs_of(accepted, present)
    fingerprint = catalog.fingerprint(
        inputs=inputs, code=catalog.code_hash(Path(__file__).parent), meds=meds.__version__
    )
    keys = [f"meds/{name}" for name in [*present, ALL]]
    if all(accepted.reusable(key, fingerprint) for key in keys):
        return {key: {**accepted.entry(key)["metadata"], "reused": True} for key in keys}
    with catalog.scratch("meds") as scratch:
        writers = {name: _Hospital(accepted, name, scratch, memory, threads) for name in present}
        metadata = {f"meds/{name}": writer.write() for name, writer in writers.items()}
        unite({name: writer.folder for name, writer in writers.items()}, scratch / "out" / ALL)
        describe(scratch / "out" / ALL, ALL, accepted)
        metadata[f"meds/{ALL}"] = judged(scratch / "out" / ALL)
        catalog.publish(
            root,
            run_id,
            [
                catalog.Candidate(
                    key, scratch / "out" / key.split("/")[1], fingerprint, inputs, values, False
                )
                for key, values in metadata.items()
            ],
        )
    return metadata


class _Hospital:
    """One hospital's folder, written bucket by bucket."""

    def __init__(self, accepted: catalog.Catalog, name: str, scratch: Path, memory: str, threads: int):
        self.accepted, self.name, self.scratch = accepted, name, scratch
        self.folder = scratch / "out" / name
        self.connection = duckdb.connect(
            config={"memory_limit": memory, "threads": threads, "temp_directory": str(scratch / "spill")}
        )

    def write(self) -> dict[str, object]:
        """Data, labels and metadata; returns counts. Raises catalog.CatalogError if what was written is not valid."""
        with self.connection:
            self.connection.execute(
                "create table everyone (patient_id varchar, subject_id bigint, split varchar)"
            )
            self.connection.execute("create table codes (code varchar, description varchar, parent varchar)")
            patients = f"input/{self.name}/patients"
            for bucket in sorted(self._files(patients)):
                self._open(bucket, patients)
                self._shards(bucket)
            for key in inputs_of(self.accepted, [self.name]):
                if key.startswith("labels/"):
                    self._labels(key)
            self._metadata()
        describe(self.folder, self.name, self.accepted)
        return judged(self.folder)

    def _files(self, key: str) -> dict[int, list[str]]:
        by_bucket: dict[int, list[str]] = {}
        for url in self.accepted.files(key):
            by_bucket.setdefault(int(BUCKET.search(url)[1]), []).append(url)
        return by_bucket

    def _relation(self, urls: Sequence[str]) -> str:
        """A select over this hospital's rows of exactly these files."""
        files = ", ".join(f"'{catalog.fetched(url, self.scratch)}'" for url in urls)
        return f"(from read_parquet([{files}], hive_partitioning = false) where hospital = '{self.name}')"

    def _open(self, bucket: int, patients: str) -> None:
        """Views of one bucket: its people, its events and its rows of MEDS."""
        people = self._relation(self._files(patients)[bucket])
        self.connection.execute(
            f"create or replace table people as select *, {SUBJECT_ID} as subject_id from {people}"
        )
        self.connection.execute("insert into everyone select patient_id, subject_id, split from people")
        events = self._files(EVENTS)  # a bucket of people without an event has no file of its own
        urls = events.get(bucket) or next(iter(events.values()))
        self.connection.execute(f"create or replace view events as from {self._relation(urls)}")
        persons = [
            f"select subject_id, split, {at}, {code}, null, hospital, null, null, {at}, null, null from people where {known}"
            for code, _, at, known in PERSON
        ]
        self.connection.execute(
            f"create or replace view rows as select subject_id, split, available_at as time, {CODE} as code, "
            "cast(value as float) as numeric_value, events.hospital, visit_id, stay_id, event_at, end_at, unit "
            f"from events join people using (patient_id) union all {' union all '.join(persons)}"
        )

    def _shards(self, bucket: int) -> None:
        """One file a split; the codes that occur are remembered."""
        for split in SPLITS:
            path = self.folder / meds.data_subdirectory / split / f"{bucket}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            [(written,)] = self.connection.execute(
                f"copy (select * exclude (split) from rows where split = '{split}' order by {ORDER}) "
                f"to '{path}' (format parquet, compression zstd, row_group_size 122880)"
            ).fetchall()
            if not written:
                path.unlink()
        self.connection.execute(
            f"insert into codes select distinct {CODE}, text, unnest([{PARENT}, {GROUP}]) from "
            "(select distinct kind, code_system, code, concept, unit, text from events)"
        )
        for code, description, _, known in PERSON:
            self.connection.execute(
                f"insert into codes select distinct {code}, '{description}', null from people where {known}"
            )

    def _labels(self, key: str) -> None:
        """`labels/<task>/<split>.parquet`; a task of several groups has a folder a group."""
        task, source = key.split("/")[1], self._relation(self.accepted.files(key))
        columns = dict(
            self.connection.execute(f"select column_name, column_type from (describe {source})").fetchall()
        )
        value, kind = (
            ("boolean_value", "boolean") if columns["label"] == "INTEGER" else ("float_value", "float")
        )
        parts = [(task, "true")]
        if "code_group" in columns:
            groups = self.connection.execute(
                f"select distinct code_group from {source} order by 1"
            ).fetchall()
            parts = [(f"{task}/{group}", f"code_group = '{group}'") for (group,) in groups]
        for name, condition in parts:
            for split in SPLITS:
                path = self.folder / check.LABELS / name / f"{split}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                self.connection.execute(
                    f"copy (select subject_id, prediction_at as prediction_time, cast(label as {kind}) as {value} "
                    f"from {source} join everyone using (patient_id) where split = '{split}' and {condition} "
                    f"order by all) to '{path}' (format parquet, compression zstd)"
                )

    def _metadata(self) -> None:
        (self.folder / "metadata").mkdir(parents=True, exist_ok=True)
        self.connection.execute(
            "copy (select code, min(description) as description, "
            "list_sort(list(distinct parent) filter (where parent is not null)) as parent_codes "
            f"from codes group by code order by code) to '{self.folder / meds.code_metadata_filepath}' (format parquet)"
        )
        self.connection.execute(
            "copy (select subject_id, split from everyone order by subject_id) "
            f"to '{self.folder / meds.subject_splits_filepath}' (format parquet)"
        )


def unite(folders: Mapping[str, Path], target: Path) -> None:
    """One dataset of several: their shards and labels side by side, their codes and splits as one table each."""
    for name, folder in folders.items():
        for source in sorted(folder.rglob("*.parquet")):
            inside = source.relative_to(folder)
            if inside.parts[0] != "metadata":
                place = target / inside.with_name(f"{name}-{inside.name}")
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, place)
    (target / "metadata").mkdir(parents=True)
    with duckdb.connect() as connection:
        for path, select in (
            (meds.subject_splits_filepath, "from {} order by subject_id"),
            (
                meds.code_metadata_filepath,
                "select code, min(description) as description, list_sort(list_distinct(flatten(list(parent_codes)))) "
                "as parent_codes from {} group by code order by code",
            ),
        ):
            files = ", ".join(f"'{folder / path}'" for folder in folders.values())
            connection.execute(
                f"copy ({select.format(f'read_parquet([{files}])')}) to '{target / path}' (format parquet)"
            )


def describe(folder: Path, name: str, accepted: catalog.Catalog) -> None:
    """metadata/dataset.json; its times are those of the tables that it was made from, so that the same gives the same."""
    made_from = accepted.entry(EVENTS)
    content = {
        "dataset_name": f"wardline/{name}",
        "dataset_version": made_from["version"],
        "etl_name": "wardline",
        "etl_version": version("wardline"),
        "meds_version": meds.__version__,
        "created_at": made_from["published_at"],
    }
    for column, role in EXTENSIONS.items():
        content.setdefault(role, []).append(column)
    text = json.dumps(content, indent=1, sort_keys=True)
    (folder / meds.dataset_metadata_filepath).write_text(text, encoding="utf-8")


def judged(folder: Path) -> dict[str, object]:
    """Counts of a folder. Raises catalog.CatalogError with the validator's first fault."""
    report = check.check(folder)
    if report.faults:
        raise catalog.CatalogError(f"meds/{folder.name}: {report.faults[0]}")
    return {"rows": report.rows, "subjects": report.subjects, "codes": report.codes, "labels": report.labels}


if __name__ == "__main__":
    sys.exit(exporting.command("meds", export))
