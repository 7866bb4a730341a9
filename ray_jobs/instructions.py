"""Job: questions and answers over the harmonised timeline, in two sets, schema alignment and clinical reasoning.

Reads harmonised/events and splits, writes instructions/schema_alignment and instructions/clinical_reasoning, one file a
bucket of patients, sorted by id: the same inputs give the same bytes. Parameters (all optional): `tries` (questions tried
a visit, by set), `cutoffs` (ranges of visible events), `forms` (`core` or `all`, see templates/README.md), `workers` (above 1, or with a cluster, buckets are made in parallel
by Ray Data), `paraphrase` (other words for a share of the questions, see questions/paraphrase.py), `notes` (an endpoint that may read notes, which then are inputs too; see questions/notes.py).
"""

from __future__ import annotations

import io
import re
import time
from collections import Counter, defaultdict

import polars as pl

from orchestration import catalog
from ray_jobs.config import JobError
from ray_jobs.questions import bucket, notes, paraphrase, record, registry
from ray_jobs.runtime import Check, Job, main


def run(job: Job) -> None:
    """Make, check and publish both sets. Raises JobError if there is no admission to ask about."""
    started = time.monotonic()
    tasks = plan(job)
    parallel = len(tasks) > 1 and (job.config.ray_address or _workers(job) > 1)
    parts = _on_ray(job, tasks) if parallel else [bucket.work(task) for task in tasks]
    faults = {kind: sum(part[kind] for part in parts) for kind in ("late", "lost", "dropped")}
    splits = bucket.read(sorted(job.files("splits")))
    said = sum((Counter(part["paraphrased"]) for part in parts), Counter())
    metadata, checks = {}, []
    for name in registry.SETS:
        key = f"instructions/{name}"
        for part in parts:
            stem = "data" if len(parts) == 1 else f"bucket-{part['bucket']}"
            (job.output(key) / f"{stem}.parquet").write_bytes(part[name])
        questions = pl.concat(pl.read_parquet(io.BytesIO(part[name])) for part in parts)
        if questions.is_empty():
            raise JobError(f"no question for {key}: harmonised/events holds no admission that allows one")
        metadata[key] = summary(questions) | ({"paraphrased": dict(sorted(said.items()))} if said else {})
        checks += [
            _check(key, "nothing_from_the_future", faults["late"]),
            _check(key, "every_answer_has_its_evidence", faults["lost"]),
            _check(key, "split_is_by_person", torn(questions, splits)),
        ]
        job.log.info("%s: %d questions", key, questions.height)
    seconds, made = time.monotonic() - started, sum(m["questions"] for m in metadata.values())
    job.log.info(
        "made in %.1f s, %.0f questions/s; %d questions from notes dropped",
        seconds,
        made / seconds,
        faults["dropped"],
    )
    if said:
        job.log.info("paraphrases: %s", ", ".join(f"{n} {outcome}" for outcome, n in sorted(said.items())))
    job.publish(metadata, checks)
    _forget(job)


def plan(job: Job) -> list[dict]:
    """One task a bucket of patients, as plain values (see bucket.work)."""
    events = defaultdict(list)
    for url in sorted(job.files("harmonised/events")):
        found = re.search(r"/bucket=(\d+)/", url)
        events[int(found.group(1)) if found else 0].append(url)
    asks_notes = notes.settings(job.params.get("notes")) is not None
    paraphrase.settings(job.params.get("paraphrase"))
    note_keys = [key for key in sorted(job.config.inputs) if re.fullmatch(r"input/[^/]+/notes", key)]
    common = {
        "splits": sorted(job.files("splits")),
        "notes": [url for key in note_keys for url in sorted(job.files(key))] if asks_notes else [],
        "params": {
            key: job.params[key]
            for key in ("tries", "cutoffs", "forms", "notes", "paraphrase")
            if job.params.get(key)
        },
    }
    keep = len(events) > 1
    return [
        {"bucket": k, "events": urls, "kept": f"{_kept(job)}/{k}" if keep else None, **common}
        for k, urls in sorted(events.items())
    ]


def summary(questions: pl.DataFrame) -> dict[str, object]:
    """Counts of one set, for the catalog and the UI."""
    absent = questions["answer_type"] == "not_in_record"
    ruled = questions.filter(pl.col("shortcut_answer").is_not_null())
    return {
        "questions": questions.height,
        "questions_per_admission": round(questions.height / questions.select(record.VISIT).n_unique(), 2),
        "share_not_in_the_record": round(absent.mean(), 4),
        "share_right_by_shortcut": round((ruled["answer"] == ruled["shortcut_answer"]).mean() or 0.0, 4),
        "families": _counts(questions, "family"),
        "splits": _counts(questions, "split"),
    }


def torn(questions: pl.DataFrame, splits: pl.DataFrame) -> int:
    """Persons whose questions stand in more than one split."""
    people = splits.select("hospital", "patient_id", "person_group", "person_id")
    named = questions.join(people, on=["hospital", "patient_id"], how="left")
    by_person = named.group_by("person_group", "person_id").agg(pl.col("split").n_unique())
    return by_person.filter(pl.col("split") > 1).height


def _check(key: str, name: str, found: int) -> Check:
    return Check(key, name, found == 0, metadata={"faults": found})


def _counts(questions: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(questions.group_by(column).len().sort(column).iter_rows())


def _workers(job: Job) -> int:
    return int(job.params.get("workers", 1))


def _on_ray(job: Job, tasks: list[dict]) -> list[dict]:
    with job.ray(num_cpus=_workers(job)):
        import ray

        ray.data.DataContext.get_current().enable_progress_bars = False
        made = ray.data.from_items([{"task": t} for t in tasks], override_num_blocks=len(tasks))
        parts = made.map(lambda row: {"part": bucket.work(row["task"])}, num_cpus=1).take_all()
    return sorted((row["part"] for row in parts), key=lambda part: part["bucket"])


def _kept(job: Job) -> str:
    """Where buckets that are done wait for the others: a retry of the same work goes on from there."""
    return catalog.join(job.config.root, "candidates", f"instructions-{job.config.fingerprint[:12]}")


def _forget(job: Job) -> None:
    fs = catalog.filesystem(job.config.root)
    if fs.exists(_kept(job)):
        fs.rm(_kept(job), recursive=True)


if __name__ == "__main__":
    main(run)
