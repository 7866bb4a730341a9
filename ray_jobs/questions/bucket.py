"""One bucket of patients: reads its files, makes its questions, checks their evidence, and keeps the result for a retry.

A task is a dict of plain values, so that it travels to any Ray worker, and so does its result: Parquet as bytes.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping

import fsspec
import polars as pl

from orchestration import catalog
from ray_jobs.questions import make, notes, paraphrase, record, registry

CONCEPTS = catalog.REPOSITORY / "dbt_project" / "seeds" / "concepts.csv"


def work(task: Mapping) -> dict:
    """Both sets of one bucket: `{set: Parquet bytes}` with `bucket`, the counts `late`, `lost` and `dropped`, and `paraphrased`.

    task: bucket, events, splits, notes (URLs), params, kept (URL stem of an earlier attempt's result, or None).
    """
    kept = task["kept"]
    if kept and catalog.filesystem(kept).exists(f"{kept}.json"):
        counts = json.loads(catalog.read_bytes(f"{kept}.json"))
        return counts | {name: catalog.read_bytes(f"{kept}.{name}.parquet") for name in registry.SETS}
    sets, counts = _make(task)
    files = {name: to_bytes(frame) for name, frame in sets.items()}
    if kept:
        for name, content in files.items():
            catalog.write_bytes(f"{kept}.{name}.parquet", content)
        catalog.write_bytes(f"{kept}.json", json.dumps(counts).encode())
    return counts | files


def _make(task: Mapping) -> tuple[dict[str, pl.DataFrame], dict]:
    events, params = read(task["events"]), task["params"]
    made, built = make.make(
        events,
        read(task["splits"]),
        pl.read_csv(CONCEPTS, infer_schema_length=None),
        registry.load(forms=params.get("forms") or "core"),
        params.get("tries") or make.TRIES,
        params.get("cutoffs") or make.CUTOFFS,
    )
    dropped = 0
    settings = notes.settings(params.get("notes"))
    if settings and task["notes"]:
        told, dropped = notes.ask(read(task["notes"]), built, settings)
        made["clinical_reasoning"] = pl.concat([made["clinical_reasoning"], told]).sort("id")
    late, lost = (sum(pair) for pair in zip(*(faults(q, events) for q in made.values()), strict=True))
    said: Counter[str] = Counter()
    reworded = paraphrase.settings(params.get("paraphrase"))
    if reworded:
        for name, questions in made.items():
            made[name], counts = paraphrase.apply(questions, reworded)
            said.update(counts)
    counts = {"bucket": task["bucket"], "late": late, "lost": lost, "dropped": dropped}
    return made, counts | {"paraphrased": dict(said)}


def faults(questions: pl.DataFrame, events: pl.DataFrame) -> tuple[int, int]:
    """(late, lost): evidence that was available only after the cut-off, and evidence that is no row of the visit."""
    told = (
        questions.select(*record.VISIT, "cutoff_at", row_id="evidence").explode("row_id").drop_nulls("row_id")
    )
    known = events.group_by(*record.VISIT, "row_id").agg(pl.col("available_at").min())
    joined = told.join(known, on=[*record.VISIT, "row_id"], how="left")
    late = joined.filter(pl.col("available_at") > pl.col("cutoff_at")).height
    return late, joined["available_at"].null_count()


def read(urls: list[str]) -> pl.DataFrame:
    """These Parquet files as one table."""
    frames = []
    for url in urls:
        with fsspec.open(url, "rb") as file:
            frames.append(pl.read_parquet(io.BytesIO(file.read())))
    return pl.concat(frames, how="vertical_relaxed")


def to_bytes(frame: pl.DataFrame) -> bytes:
    """Parquet with nothing in it but the rows: the same rows give the same bytes."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()
