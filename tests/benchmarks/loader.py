"""Samples into the training loop: a file an admission parsed row by row, as Llemr's released loader does it, against ours.

    python -m tests.benchmarks.loader --data <data root with harmonised/events, such as MIMIC-IV's demo>

A sample is one question with the features of every event of its record, in a tensor on the model's device. The usual way is
built as the released code works: for each sample a CSV of the admission's events is read and walked row by row, a number is
searched in each text, and the admission's embedding file is loaded; three scalars are put beside each embedding. Ours is what a
worker's step does before the model runs: plan, packing, gather. First both give the same embeddings and hours of a
record. CPU seconds of this process, one thread.
"""

import csv
import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import torch

from ray_jobs.llemr.corpus import Corpus, rows_of
from ray_jobs.llemr.data import EventStore, dictionary, questions_of, read_frames
from ray_jobs.llemr.packing import pack
from ray_jobs.llemr.plan import Plan
from ray_jobs.llemr.tokenizer import prompt_parts, train_tokenizer
from ray_jobs.llemr.tokens import EventFeatures, Features
from tests.benchmarks.common import finished
from tests.benchmarks.packing import asked

NUMBER = re.compile(r"\d+(?:\.\d+)?")
ROWS, REPEATS, DIMENSIONS = 16, 5, 384  # the dimensions of MiniLM


def write_files(folder: Path, corpus: Corpus, vectors: np.ndarray, records: list[int]) -> None:
    """A CSV and an embedding file a record, as the released preprocessing leaves them for an admission."""
    store = corpus.store
    for record in records:
        events = corpus.questions.records[record]
        with (folder / f"event_{record}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["hadm_id", "event_type", "timestamp", "event_value", "timestamp_avail"])
            for e in events:
                value = "" if np.isnan(store.value[e]) else f": {store.value[e]}"
                kind, text = store.kinds[store.kind[e]], store.texts[store.text[e]]
                writer.writerow(
                    [record, kind, repr(float(store.hours[e])), f"{text}{value}", store.available[e]]
                )
        torch.save(torch.from_numpy(vectors[store.text[events]]), folder / f"event_{record}.pt")


def parsed(folder: Path, record: int) -> torch.Tensor:
    """float32 [events, dimensions + 3]: embedding, hour, first number of the text, duration (0 where there is none)."""
    scalars = []
    for _, row in pd.read_csv(folder / f"event_{record}.csv").iterrows():
        number = NUMBER.search(str(row["event_value"]))
        scalars.append([float(row["timestamp"]), float(number.group()) if number else 0.0, 0.0])
    embedding = torch.load(folder / f"event_{record}.pt", weights_only=True)
    return torch.cat([embedding, torch.tensor(scalars)], dim=1)


def worst_difference(folder: Path, corpus: Corpus, records: list[int]) -> float:
    """Of the embedding and the hour that both sides give for the same records."""
    worst = 0.0
    for record in records:
        events = corpus.questions.records[record]
        theirs, ours = parsed(folder, record), corpus.features[events]
        width = theirs.shape[1] - 3
        unit = torch.nn.functional.normalize(theirs[:, :width], dim=1)
        worst = max(worst, float((torch.nn.functional.normalize(ours[:, :width], dim=1) - unit).abs().max()))
        worst = max(
            worst, float((theirs[:, width] - torch.from_numpy(corpus.store.hours[events])).abs().max())
        )
    return worst


def samples_a_cpu_second(work: Callable[[], int]) -> float:
    """Median over repeats; `work` returns how many samples it made."""
    found = []
    for _ in range(REPEATS):
        started = time.process_time()
        made = work()
        found.append(made / (time.process_time() - started))
    return float(np.median(found))


def measure(
    corpus: Corpus, vectors: np.ndarray, steps: int = 40, parsed_samples: int = 40
) -> dict[str, float]:
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(corpus.questions), min(parsed_samples, len(corpus.questions)), replace=False)
    records = [int(corpus.questions.record[i]) for i in drawn]
    plan = Plan(corpus.questions, ROWS, 0.0, seed=1)

    def ours() -> int:
        made = 0
        for step in range(steps):
            rows = plan.step(step)
            batch = pack(corpus.before, rows_of(corpus, rows))
            batch.to(device), corpus.features[batch.events]
            made += sum(len(row.questions) for row in rows)
        return made

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, corpus, vectors, sorted(set(records)))

        def theirs() -> int:
            for record in records:
                parsed(folder, record).to(device)
            return len(records)

        worst = worst_difference(folder, corpus, records[:10])
        if worst > 1e-3:  # the hour is float32 in a tensor of theirs
            raise SystemExit(f"the two sides differ by {worst}")
        released, fast = samples_a_cpu_second(theirs), samples_a_cpu_second(ours)
    return {
        "events_a_record": round(float(np.mean([len(r) for r in corpus.questions.records])), 1),
        "questions_a_record": round(len(corpus.questions) / len(corpus.questions.records), 2),
        "worst_difference": worst,
        "released_samples_a_cpu_second": round(released, 1),
        "ours_samples_a_cpu_second": round(fast, 1),
        "ratio_samples_vs_released_loader": round(fast / released, 1),
    }


def corpus_of(events: pl.DataFrame, splits: pl.DataFrame, budget: int) -> tuple[Corpus, np.ndarray]:
    """Seven questions an admission, each on the longest record of it, and vectors of the texts (random: they are only moved)."""
    store = EventStore.of(events, dictionary(finished.CONCEPTS))
    vectors = np.random.default_rng(0).normal(size=(len(store.texts), DIMENSIONS)).astype(np.float32)
    features = Features.fit(store, np.arange(len(store.visits)), DIMENSIONS)
    frame = asked(events, splits, budget).with_columns(cutoff_at=pl.col("longest"))
    tokenizer = train_tokenizer([*frame["question"], *frame["says"]], 4000)
    parts = prompt_parts(tokenizer)
    questions = questions_of(frame, store, tokenizer, parts, budget)
    return Corpus(store, EventFeatures(features, store, vectors), questions, parts[0]), vectors


def main() -> None:
    parser = finished.parser(__doc__)
    parser.add_argument("--budget", type=int, default=1024, help="most events of a record")
    options = parser.parse_args()
    found = finished.accepted(options.data, "harmonised/events", "splits")
    events, splits = (read_frames(found.files(key)) for key in ("harmonised/events", "splits"))
    print(json.dumps(measure(*corpus_of(events, splits, options.budget))))


if __name__ == "__main__":
    main()
