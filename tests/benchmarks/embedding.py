"""Event embeddings: batches of a token budget, sorted by length, against unsorted batches of 32; and distinct texts only.

    python -m tests.benchmarks.embedding --data <data root with harmonised/events, such as MIMIC-IV's demo>

Batches are compared on the same distinct texts. End to end is the embedding of every event of whole admissions, in the order
of the timeline, against finding their distinct texts, embedding those and putting the vectors where the events stand; that
share grows with the number of admissions. First of all both sides give the same vectors. Medians, CPU seconds, one thread.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

from ray_jobs import embed_events
from ray_jobs.llemr.data import read_frames
from tests.benchmarks.common import finished

UNSORTED, TOLERANCE = 32, 2e-3  # float16 vectors of length 1


def unsorted(texts: Sequence[str], folder: Path) -> np.ndarray:
    """float16 [n, dimensions] in batches of 32 as they come: the example of the encoder's model card."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    vectors = []
    with torch.inference_mode():
        for i in range(0, len(texts), UNSORTED):
            batch = tokenizer(
                list(texts[i : i + UNSORTED]),
                padding=True,
                truncation=True,
                max_length=embed_events.LONGEST,
                return_tensors="pt",
            )
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
            vectors.append(torch.nn.functional.normalize(mean, dim=-1).numpy().astype(np.float16))
    return np.concatenate(vectors)


def distinct(texts: Sequence[str], folder: Path) -> np.ndarray:
    """The same, each distinct text once, as the job does it."""
    found = sorted(set(texts))
    row = {text: i for i, text in enumerate(found)}
    return embed_events.embed(found, folder, threads=1)[[row[text] for text in texts]]


def timed(work: Callable[[], np.ndarray], repeats: int) -> tuple[float, np.ndarray]:
    """Median CPU seconds, and what came out."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        found = work()
        seconds.append(time.process_time() - started)
    return float(np.median(seconds)), found


def measure(
    events: pl.DataFrame, texts: int = 600, most_events: int = 8000, repeats: int = 3
) -> dict[str, float]:
    torch.set_num_threads(1)
    folder = embed_events.encoder_folder("minilm")
    rng = np.random.default_rng(0)
    told = events.drop_nulls(["text", "visit_id"])
    all_distinct = np.array(sorted(told["text"].unique()))
    some = rng.permutation(all_distinct)[:texts].tolist()
    sorted_s, ours = timed(lambda: embed_events.embed(some, folder, threads=1), repeats)
    unsorted_s, theirs = timed(lambda: unsorted(some, folder), repeats)
    stream = whole_admissions(told, rng, most_events)
    distinct_s, once = timed(lambda: distinct(stream, folder), repeats)
    every_s, each = timed(lambda: unsorted(stream, folder), 1)
    worst = max(float(np.abs(a.astype(np.float32) - b).max()) for a, b in ((ours, theirs), (once, each)))
    if worst > TOLERANCE:
        raise SystemExit(f"the vectors differ by {worst}")
    return {
        "worst_difference": worst,
        "texts": len(some),
        "texts_a_cpu_second_sorted": round(len(some) / sorted_s, 1),
        "texts_a_cpu_second_unsorted_32": round(len(some) / unsorted_s, 1),
        "ratio_sorted_vs_unsorted_32": round(unsorted_s / sorted_s, 2),
        "events": len(stream),
        "distinct_texts_of_them": len(set(stream)),
        "events_of_the_export": told.height,
        "distinct_texts_of_the_export": len(all_distinct),
        "cpu_s_every_event": round(every_s, 2),
        "cpu_s_distinct_texts": round(distinct_s, 2),
        "ratio_distinct_end_to_end": round(every_s / distinct_s, 1),
    }


def whole_admissions(events: pl.DataFrame, rng: np.random.Generator, most: int) -> list[str]:
    """Texts of all events of admissions drawn at random, until there are `most`."""
    sizes = events.group_by("hospital", "visit_id").len().sort("hospital", "visit_id")
    sizes = sizes[rng.permutation(sizes.height)]
    kept = sizes.filter(sizes["len"].cum_sum() <= most) if sizes["len"][0] <= most else sizes.head(1)
    chosen = events.join(kept, on=["hospital", "visit_id"], how="semi")
    return chosen.sort("hospital", "visit_id", "event_at", "row_id")["text"].to_list()


def main() -> None:
    parser = finished.parser(__doc__)
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--events", type=int, default=8000)
    options = parser.parse_args()
    found = finished.accepted(options.data, "harmonised/events")
    columns = ["hospital", "visit_id", "event_at", "row_id", "text"]
    events = read_frames(found.files("harmonised/events"), columns)
    print(json.dumps(measure(events, options.texts, options.events)))


if __name__ == "__main__":
    main()
