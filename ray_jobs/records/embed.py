"""Vectors of many records on Ray Data: each distinct text once, longest together, by a pool of actors that keep what they
have made as they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from orchestration import catalog
from ray_jobs.config import JobError
from ray_jobs.records.encoder import Asked, Encoder, Settings
from ray_jobs.records.store import VectorStore, text_sha
from ray_jobs.runtime import Job

TEXTS_A_PART = 512  # that an actor encodes before it writes them down


def vectors_of(
    job: Job, encoder: Encoder, serialiser: str, texts: Mapping[str, Sequence[Asked]]
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """float16 [n, dimensions] by task, in the order of its texts; and how many texts, distinct and encoded now.

    Parameters of the job: `store`, `shared_prefix`, `cpus_per_worker` (1), `gpus_per_worker` (0).
    Raises JobError if another model wrote the store.
    """
    shas = {task: [text_sha(*_seen(encoder, one)) for one in mine] for task, mine in texts.items()}
    distinct = {sha: one for task in texts for sha, one in zip(shas[task], texts[task], strict=True)}
    store = VectorStore(_url(job, encoder, serialiser), _model(encoder))
    known = store.of(distinct)
    missing = pl.DataFrame(
        [(sha, *one, len(one[0])) for sha, one in distinct.items() if sha not in known],
        schema={"sha": pl.String, "record": pl.String, "instruction": pl.String, "length": pl.Int64},
        orient="row",
    ).sort("length", "record", "instruction")
    if missing.height:
        _encode(job, encoder, store.url, missing)
        known |= store.of(missing["sha"])
    made = {task: np.stack([known[sha] for sha in mine]) for task, mine in shas.items()}
    counted = {
        "texts": sum(map(len, texts.values())),
        "texts_distinct": len(distinct),
        "texts_encoded": missing.height,
    }
    return made, {**counted, "dimensions": encoder.dimensions}


def _encode(job: Job, encoder: Encoder, url: str, missing: pl.DataFrame) -> None:
    import ray

    cpus, gpus = int(job.params.get("cpus_per_worker", 1)), int(job.params.get("gpus_per_worker", 0))
    shared = bool(job.params.get("shared_prefix"))
    if shared:
        encoder.check_shared()
    with job.ray():
        resources = ray.cluster_resources()
        room = int(resources.get("GPU", 0) // gpus if gpus else resources["CPU"] // cpus)
        if room < 1:
            raise JobError(f"Ray has no worker of {cpus} CPUs and {gpus} GPUs; mend params.cpus_per_worker")
        parts = -(-missing.height // TEXTS_A_PART)
        ray.data.DataContext.get_current().enable_progress_bars = False
        data = ray.data.from_arrow([p.to_arrow() for p in missing.iter_slices(TEXTS_A_PART)])
        counted = data.map_batches(
            Embedder,
            fn_constructor_args=(encoder.settings, url, _model(encoder), shared, cpus),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(room, parts)),
            num_cpus=cpus,
            num_gpus=gpus,
        )
        encoded = sum(row["encoded"] for row in counted.iter_rows())
    job.log.info("%d texts in %d parts", encoded, parts)


class Embedder:
    """An actor: one loaded model, which writes each block of texts into the store as one part."""

    def __init__(self, settings: Settings, url: str, model: dict[str, object], shared: bool, threads: int):
        self.encoder, self.shared = Encoder(settings, threads), shared
        self.store = VectorStore(url, model)

    def __call__(self, block) -> dict[str, list[int]]:
        rows = pl.from_arrow(block)
        asked = list(rows.select("record", "instruction").iter_rows())
        vectors = _by_record(self.encoder, asked) if self.shared else self.encoder.embed(asked)
        self.store.add(rows["sha"].to_list(), vectors)
        return {"encoded": [rows.height]}


def _by_record(encoder: Encoder, asked: Sequence[Asked]) -> np.ndarray:
    """Vectors in the order of `asked`, each record read once for all its instructions."""
    places: dict[str, list[int]] = {}
    for place, (record, _) in enumerate(asked):
        places.setdefault(record, []).append(place)
    vectors = np.empty((len(asked), encoder.dimensions), np.float16)
    for record, mine in places.items():
        vectors[mine] = encoder.shared(record, [asked[place][1] for place in mine])
    return vectors


def _seen(encoder: Encoder, one: Asked) -> Asked:
    """What the model sees of it: no instruction where none is given."""
    return (one[0], "") if encoder.settings.instruction == "none" else one


def _model(encoder: Encoder) -> dict[str, object]:
    settings = encoder.settings
    return {
        "sha": encoder.sha, "dimensions": encoder.dimensions, "pooling": settings.pooling,
        "instruction": settings.instruction, "context": encoder.context,
    }  # fmt: skip


def _url(job: Job, encoder: Encoder, serialiser: str) -> str:
    if given := job.params.get("store"):
        return str(given)
    name = encoder.settings.model.rstrip("/").split("/")[-1]
    return catalog.join(job.config.root, "vectors", f"{name}-{encoder.sha[:12]}", serialiser)
