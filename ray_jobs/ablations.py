"""Ablations of a finished night as one command: what each part of the model is worth, on patients it was never trained on.

    python -m ray_jobs.ablations --data .wardline --write docs/ablations.md

Takes over the night's events, questions, embeddings, base model and both stages, and works in a scratch data root beside them:
nothing is published in the night's own. Trained anew, by the same job and recipe: stage 2 straight from the base model, both
stages on Llemr v1's event token, and stage 2 on records written as text, cut to as many tokens as the record has events at most.
Each row answers the same frozen held-out questions; intervals are 95 %, by patient bootstrap.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from orchestration import catalog
from ray_jobs import controls, embed_events
from ray_jobs.contestants import CONCEPTS, SETS
from ray_jobs.house import EVENTS, INSTRUCTIONS, MINILM, STAGES, House
from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.data import EVENT_COLUMNS, EventStore, dictionary, read_frames, text_vectors
from ray_jobs.llemr.recipe import Recipe
from ray_jobs.llemr.records_as_text import ask_in_text
from ray_jobs.metrics import patients_of
from ray_jobs.scoring import score
from ray_jobs.statistics import PatientBootstrap

WITH_VALUES = "embeddings/minilm_with_values"
TAKEN = (EVENTS, MINILM, *INSTRUCTIONS, *STAGES)
FAMILIES = {"value at a time": "value_at_time", "maximum, minimum": "extreme"}


@dataclass(frozen=True)
class Row:
    """One line of the table: weights, under a condition."""

    name: str
    weights: Path
    embeddings: str
    control: str | None = None
    questions: pl.DataFrame | None = None  # asked instead, with the record in words


def variants(house: House, recipe: Recipe, asked: pl.DataFrame) -> Iterator[Row]:
    """Every row of the table; trains what the night did not. The order matters: later variants replace published weights."""
    both, first = house.kept("weights/stage2", "night"), house.kept("weights/stage1", "night")
    yield Row("both stages", both, MINILM)
    for control in ("withheld", "swapped", "shuffled"):
        yield Row(f"both stages, events {control}", both, MINILM, control)
    yield Row("stage 1 only", first, MINILM)
    budget = recipe.event_budget
    stage2 = recipe.stage2.model_copy(update={"blind_steps": 0})
    recipe = recipe.model_copy(update={"stage2": stage2})
    house.publish("weights/stage1", house.kept("weights/base_model", "base"), "no stage 1")
    yield Row("stage 2 only", house.stage("stage2", MINILM, "stage2-only", recipe), MINILM)
    house.job(embed_events, [WITH_VALUES], (EVENTS,), "v1", {"with_values": True})
    house.publish("weights/base_model", v1_base(house), "v1")
    house.stage("stage1", WITH_VALUES, "v1", recipe)
    yield Row("both stages, token of Llemr v1", house.stage("stage2", WITH_VALUES, "v1", recipe), WITH_VALUES)
    house.publish("weights/base_model", house.root / "variants/base/weights/base_model", "text")
    house.publish("weights/stage1", house.root / "variants/base/weights/base_model", "text")
    told = in_text(house, asked, budget)
    blind = {"blind_steps": stage2.steps, "steps": 1}
    changed = recipe.model_copy(update={"stage2": stage2.model_copy(update=blind)})
    trained = house.stage("stage2", MINILM, "text", changed) / "blind"
    yield Row("stage 2 on the record as text", trained, MINILM, "withheld", told)


def v1_base(house: House) -> Path:
    """The base model with features of the token v1: nothing else of it depends on the token."""
    folder = house.root / "variants/v1/base"
    shutil.copytree(house.path("weights/base_model"), folder)
    settings = json.loads((folder / "llemr.json").read_text())
    width = json.loads((house.path(WITH_VALUES) / "meta.json").read_text())["dim"]
    settings["features"] |= {"token": "v1", "text_width": width}
    (folder / "llemr.json").write_text(json.dumps(settings, indent=1, sort_keys=True))
    (folder / "projector.safetensors").unlink(missing_ok=True)  # of another width
    checkpoint.seal(folder)
    return folder


def in_text(house: House, asked: pl.DataFrame, budget: int) -> pl.DataFrame:
    """Replace the instructions by ones that hold their record in words; returns `asked` in the same way."""
    weights = checkpoint.load_weights(house.path("weights/base_model"))
    store = EventStore.read(house.files(EVENTS), dictionary(CONCEPTS))
    for name in SETS:
        folder = house.root / "variants/text" / name
        folder.mkdir(parents=True)
        frame = read_frames(house.files(f"instructions/{name}"))
        ask_in_text(frame, store, weights.tokenizer, budget).write_parquet(folder / "data.parquet")
        house.enter(f"instructions/{name}", folder / "data.parquet")
    return ask_in_text(asked, store, weights.tokenizer, budget)


def exact(house: House, row: Row, asked: pl.DataFrame, store: EventStore) -> tuple[np.ndarray, np.ndarray]:
    """(right or not, float64 [n]; whether it was asked, bool [n]: there may be no other record to swap in)."""
    answerer = checkpoint.load(row.weights)
    vectors = text_vectors(str(house.path(row.embeddings)), answerer.weights.features.texts_of(store))
    swaps = controls.swaps(asked, asked) if row.control == "swapped" else None
    has = np.array([s is not None for s in swaps]) if swaps else np.ones(asked.height, bool)
    control, kept = (None, [s for s in swaps if s]) if swaps else (row.control, None)
    questions = row.questions if row.questions is not None else asked
    said = np.full(asked.height, "", object)
    said[has] = answerer.answer(questions.filter(pl.Series(has)), store, vectors, control, kept)
    return score(asked, said.tolist())["exact"], has


def table(rows: Mapping[str, tuple[np.ndarray, np.ndarray]], asked: pl.DataFrame) -> str:
    """Markdown: a line a row, in % with intervals: both sets, value at a time, extremes; and against both stages, paired."""
    bootstrap = PatientBootstrap(patients_of(asked))
    sets = {name.replace("_", " "): (asked["set"] == name).to_numpy() for name in SETS}
    sets |= {title: (asked["family"] == family).to_numpy() for title, family in FAMILIES.items()}
    lines = [f"| | {' | '.join(sets)} | minus both stages, all |", "|---|" + "---|" * (len(sets) + 1)]
    reference = next(iter(rows.values()))
    for name, (right, has) in rows.items():
        cells = [_percent(bootstrap.interval(right, has & mask)) for mask in sets.values()]
        both = _percent(bootstrap.difference(right, reference[0], has & reference[1]))
        lines.append(f"| {name} | {' | '.join(cells)} | {both if name != next(iter(rows)) else ''} |")
    return "\n".join(lines)


def _percent(found) -> str:
    if not found.questions:
        return ""
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def run(night: str, recipe: Recipe, questions: int, root: Path, log: logging.Logger) -> str:
    """The whole of it; returns the table. Raises JobError, CatalogError as the jobs do."""
    house = House(root, night, TAKEN, log)
    asked = pl.concat(
        controls.frozen(frame.filter(pl.col("split") == "held_out"), questions).with_columns(set=pl.lit(name))
        for name in SETS
        for frame in [read_frames(house.files(f"instructions/{name}"))]
    )
    store = EventStore.of(
        read_frames(house.files(EVENTS), EVENT_COLUMNS).join(
            asked.select("hospital", "visit_id").unique(), on=["hospital", "visit_id"], how="semi"
        ),
        dictionary(CONCEPTS),
    )
    rows = {}
    for row in variants(house, recipe, asked):
        rows[row.name] = exact(house, row, asked, store)
        log.info("%s: %.1f %% of %d", row.name, 100 * rows[row.name][0].mean(), asked.height)
    return table(rows, asked)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=catalog.data_root(), help="data root of a finished night")
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--questions", type=int, default=500, help="most questions of a set")
    parser.add_argument("--write", type=Path, help="the document to write")
    options = parser.parse_args()
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout, level=logging.WARNING
    )
    log = logging.getLogger("wardline.ablations")
    log.setLevel(logging.INFO)
    recipe = Recipe.named(options.recipe)
    with catalog.scratch("ablations") as scratch:
        found = run(options.data, recipe, options.questions, scratch / "root", log)
    print(found)
    if options.write:
        command = f"python -m ray_jobs.ablations --recipe {options.recipe} --questions {options.questions}"
        head = f"# Ablations\n\n`{command}`: exact match on held-out patients, %, with 95 % intervals by patient bootstrap.\n\n"
        options.write.write_text(f"{head}{found}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
