"""Token slots for each answer: padded batches against packing with shared records, at the lengths of a real export.

    python -m tests.benchmarks.packing --data <data root with harmonised/events, such as MIMIC-IV's demo>

Six schema questions and one clinical question an admission, made by the registry. `ratio_slots_vs_padded_8`: all seven are
asked of the admission's record as it stands at its longest cut-off, thinned to the event budget. `..._own_cutoffs`: each
is asked at its own cut-off, and only questions of the same cut-off share a record. A slot is a position of a batch, padding
included. First of all a small model with random weights gives each question of some admissions the same loss either way.
"""

import json
from collections.abc import Iterator

import numpy as np
import polars as pl
import torch

from ray_jobs.llemr.data import EventStore, Questions, dictionary, questions_of, read_frames
from ray_jobs.llemr.model import Llemr, Projector
from ray_jobs.llemr.packing import ROW_LENGTH, Unit, pack
from ray_jobs.llemr.reading import new_llama
from ray_jobs.llemr.recipe import BaseModelRecipe
from ray_jobs.llemr.tokenizer import prompt_parts, train_tokenizer
from ray_jobs.questions import make, registry
from tests.benchmarks.common import finished, padded

ASKED = {"schema_alignment": 6, "clinical_reasoning": 1}
TRIES = {"schema_alignment": 60.0, "clinical_reasoning": 40.0}  # so that hardly an admission lacks questions
RECORDS_A_BATCH = 16  # of the packed side, as in the recipe `tiny`
FEATURES, TOLERANCE = 64, 1e-5


def asked(events: pl.DataFrame, splits: pl.DataFrame, budget: int) -> pl.DataFrame:
    """Seven questions for every admission that allows them, in the order of a hash; `longest` is its last cut-off."""
    ends = [e for e in (16, 64, 256) if e < budget]
    ranges = [[a, b] for a, b in zip([5, *ends], [*ends, budget], strict=True)]
    made, built = make.make(events, splits, pl.read_csv(finished.CONCEPTS), registry.load(), TRIES, ranges)
    visit = ["hospital", "visit_id"]
    few = [made[name].sort("id").group_by(visit, maintain_order=True).head(n) for name, n in ASKED.items()]
    questions = pl.concat(f.select(*visit, "cutoff_at", "question", "says", "id") for f in few)
    whole = pl.len().over(visit) == sum(ASKED.values())
    longest = built.records.group_by(visit).agg(longest=pl.col("cutoff_at").max())
    return questions.filter(whole).join(longest, on=visit).sort("id")


def padded_slots(questions: Questions, before: list[int], batch: int) -> int:
    """Slots of batches in a random order, as a Trainer draws them."""
    lengths = _lengths(questions, before)[np.random.default_rng(0).permutation(len(questions))]
    return sum(int(part.max()) * len(part) for part in np.split(lengths, range(batch, len(lengths), batch)))


def _lengths(questions: Questions, before: list[int]) -> np.ndarray:
    return np.array(
        [
            len(before)
            + len(questions.records[questions.record[i]])
            + len(questions.prompt[i])
            + len(questions.answer[i])
            for i in range(len(questions))
        ]
    )


def units(questions: Questions) -> list[tuple[np.ndarray, Unit]]:
    """Every record with all its questions, in a random order: (question indices, what `pack` takes)."""
    found = [
        (rows, (questions.records[r], [(questions.prompt[i], questions.answer[i]) for i in rows]))
        for r, rows in enumerate(questions.by_record())
    ]
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


def packed_slots(questions: Questions, before: list[int], row_length: int) -> int:
    return sum(
        pack(before, [u for _, u in part], row_length).ids.numel() for part in _batches(units(questions))
    )


def _batches(items: list) -> Iterator[list]:
    yield from (items[i : i + RECORDS_A_BATCH] for i in range(0, len(items), RECORDS_A_BATCH))


@torch.inference_mode()
def worst_difference(
    questions: Questions, before: list[int], tokenizer, admissions: int, row_length: int
) -> float:
    """Largest difference of a question's mean loss a token between padded and packed."""
    lm = new_llama(BaseModelRecipe(layers=2, width=64, heads=2, mlp=128), tokenizer, seed=0)
    projector = Projector(FEATURES, 64)
    table = torch.randn(max(map(np.max, questions.records)) + 1, FEATURES)
    worst = 0.0
    for part in _batches(units(questions)[:admissions]):
        packed = pack(before, [u for _, u in part], row_length)
        logits, _ = Llemr(lm, projector)(packed, table[packed.events])
        loss = torch.nn.functional.cross_entropy(logits, packed.target, reduction="none")
        sizes = [len(a) for _, (_, pairs) in part for _, a in pairs]
        ours = torch.stack([piece.mean() for piece in loss.split(sizes)])
        alone = [(events, q, a) for _, (events, pairs) in part for q, a in pairs]
        theirs = []
        for i in range(0, len(alone), 8):
            batch = padded.pad(before, alone[i : i + 8])
            each = padded.losses(
                lm, projector, batch.ids, batch.attention, batch.labels, table[batch.events], batch.event_at
            )
            theirs.append(each.sum(1) / (batch.labels != padded.IGNORED).sum(1))
        worst = max(worst, float((ours - torch.cat(theirs)).abs().max()))
    return worst


def measure(
    events: pl.DataFrame,
    splits: pl.DataFrame,
    budget: int = 1024,
    row_length: int = 4096,
    admissions: int = 32,
) -> dict[str, object]:
    frame = asked(events, splits, budget)
    store = EventStore.of(events, dictionary(finished.CONCEPTS))
    tokenizer = train_tokenizer([*frame["question"], *frame["says"]], 4000)
    parts = prompt_parts(tokenizer)
    before = parts[0]
    figures: dict[str, object] = {"event_budget": budget, "row_length": row_length, "questions": frame.height}
    cutoffs = {"": frame.with_columns(cutoff_at=pl.col("longest")), "_own_cutoffs": frame}
    for name, rows in cutoffs.items():
        questions = questions_of(rows, store, tokenizer, parts, budget)
        if not name:
            worst = worst_difference(questions, before, tokenizer, admissions, row_length)
            if worst > TOLERANCE:
                raise SystemExit(f"packed and padded losses differ by {worst}")
            figures |= {
                "worst_loss_difference": worst,
                "median_events": int(np.median([len(r) for r in questions.records])),
            }
        packed = packed_slots(questions, before, row_length)
        figures |= {
            f"records{name}": len(questions.records),
            f"slots_an_answer_packed{name}": round(packed / len(questions), 1),
            f"slots_an_answer_packed_rows_of_{ROW_LENGTH}{name}": round(
                packed_slots(questions, before, ROW_LENGTH) / len(questions), 1
            ),
            f"share_of_slots_used{name}": round(_used(questions, before) / packed, 4),
        }
        for batch in (4, 8):
            slots = padded_slots(questions, before, batch)
            figures[f"slots_an_answer_padded_{batch}{name}"] = round(slots / len(questions), 1)
            figures[f"ratio_slots_vs_padded_{batch}{name}"] = round(slots / packed, 2)
    return figures


def _used(questions: Questions, before: list[int]) -> int:
    """Positions that the packed side needs without any padding."""
    said = sum(map(len, questions.prompt)) + sum(map(len, questions.answer))
    return said + sum(len(before) + len(r) for r in questions.records)


def main() -> None:
    parser = finished.parser(__doc__)
    parser.add_argument("--budget", type=int, default=1024, help="most events of a record")
    parser.add_argument("--row-length", type=int, default=4096)
    options = parser.parse_args()
    found = finished.accepted(options.data, "harmonised/events", "splits")
    events, splits = (read_frames(found.files(key)) for key in ("harmonised/events", "splits"))
    print(json.dumps(measure(events, splits, options.budget, options.row_length)))


if __name__ == "__main__":
    main()
