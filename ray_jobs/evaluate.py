"""Scores both stages and the standing champion on one frozen question set, against controls that see no record or another's.

The tuning split decides about promotion; held_out is reported and never decides. Reads the instructions, the events, the
embeddings and the weights; writes `evaluation/<set>/<version>/metrics.json` with a table and a plot.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping

import numpy as np
import polars as pl

from ray_jobs import contestants, controls, metrics, plots
from ray_jobs.config import JobError
from ray_jobs.contestants import SETS, Contestant, Sheet
from ray_jobs.llemr.data import read_frames
from ray_jobs.metrics import Row
from ray_jobs.runtime import Job, Markdown, main
from ray_jobs.scoring import score
from ray_jobs.statistics import DRAWS, mean_difference

SPLITS = DECIDES, REPORTED = "tuning", "held_out"


def run(job: Job) -> None:
    instructions = {name: read_frames(job.files(f"instructions/{name}")) for name in SETS}
    pools = {
        (name, split): f.filter(pl.col("split") == split)
        for name, f in instructions.items()
        for split in SPLITS
    }
    asked = frozen_questions(pools, int(job.params["questions_per_split"]))
    rows = {
        key: baselines(instructions[key[0]].filter(pl.col("split") == "train"), frame)
        for key, frame in asked.items()
    }
    started = time.monotonic()
    work = [(c, sheets(c, asked, pools)) for c in contestants.of(job)]
    visits = pl.concat([pool.select("hospital", "visit_id") for pool in pools.values()]).unique()
    for contestant, answers in contestants.ask_all(job, work, visits):
        for place, said in answers.items():
            rows[place][contestant.row] = scored(asked[place], said, dict(work)[contestant][place])
        job.log.info("%s answered, %.0f s since the start", contestant.row, time.monotonic() - started)
    rows = {key: metrics.with_blind(value) for key, value in rows.items()}
    decision = decide(job, asked, rows)
    job.publish({f"evaluation/{name}": written(job, name, asked, rows, decision) for name in SETS})


def frozen_questions(
    pools: Mapping[tuple[str, str], pl.DataFrame], most: int
) -> dict[tuple[str, str], pl.DataFrame]:
    """At most `most` questions of each set and split that has any. Raises JobError if nobody stands in the tuning split."""
    empty = [name for (name, split), pool in pools.items() if split == DECIDES and pool.is_empty()]
    if empty:
        raise JobError(
            f"instructions/{empty[0]} has no question in the {DECIDES} split; more patients are needed"
        )
    return {key: controls.frozen(pool, most) for key, pool in pools.items() if not pool.is_empty()}


def baselines(train: pl.DataFrame, questions: pl.DataFrame) -> dict[str, Row]:
    """Controls that need no model: the most frequent answer, and the shortcut rule of the templates that have one."""
    everywhere = np.ones(questions.height, bool)
    shortcut = questions["shortcut_answer"]
    return {
        metrics.FREQUENT: Row(score(questions, controls.most_frequent(train, questions)), everywhere),
        metrics.SHORTCUT: Row(
            score(questions, shortcut.fill_null("").to_list()), shortcut.is_not_null().to_numpy()
        ),
    }


def sheets(contestant: Contestant, asked: Mapping, pools: Mapping) -> dict[tuple[str, str], Sheet]:
    """What one contestant is asked, by set and split."""
    swapped = contestant.control == "swapped"
    return {
        place: Sheet(questions, controls.swaps(questions, pools[place]) if swapped else None)
        for place, questions in asked.items()
        if place[0] in contestant.sets
    }


def scored(questions: pl.DataFrame, said: list[str], sheet: Sheet) -> Row:
    """Scores; a question for which no other patient's record serves was not asked of a swapped contestant."""
    could = np.array([s is not None for s in sheet.swap]) if sheet.swap else np.ones(questions.height, bool)
    return Row(score(questions, said), could)


def decide(job: Job, asked: Mapping, rows: Mapping) -> dict[str, object]:
    """The paired figure that promotes: stage 2 minus the standing champion, or minus blind if none stands; mean of sets."""
    champion = job.config.inputs.get("weights/champion")
    other = metrics.CHAMPION if champion else metrics.BLIND
    parts = [
        (metrics.patients_of(frame), rows[key][metrics.STAGE2].exact, rows[key][other].exact)
        for key, frame in asked.items()
        if key[1] == DECIDES
    ]
    difference = mean_difference(parts)
    job.log.info("stage 2 minus %s: %s", other, metrics.sentence(difference))
    return {
        "split": DECIDES,
        "candidate": {"version": job.config.inputs["weights/stage2"], "exact": _mean(parts, 1)},
        "other": {"row": other, "version": champion, "exact": _mean(parts, 2)},
        "difference": difference.as_dict(),
        "draws": DRAWS,
        "questions_sha256": {
            key[0]: controls.sha256(frame) for key, frame in asked.items() if key[1] == DECIDES
        },
    }


def _mean(parts: list[tuple], index: int) -> float:
    return round(float(np.mean([part[index].mean() for part in parts])), 4)


def written(job: Job, name: str, asked: Mapping, rows: Mapping, decision: Mapping) -> dict[str, object]:
    """Write one set's metrics.json; returns what the catalog and the UI show."""
    splits = {
        split: {**metrics.split_metrics(frame, rows[name, split]), "questions_sha256": controls.sha256(frame)}
        for (of, split), frame in asked.items()
        if of == name
    }
    versions = {
        key: job.config.inputs.get(key) for key in ("weights/stage1", "weights/stage2", "weights/champion")
    }
    content = {"set": name, "versions": versions, "splits": splits, "decision": decision}
    text = json.dumps(content, indent=1, sort_keys=True)
    (job.output(f"evaluation/{name}") / "metrics.json").write_text(text, encoding="utf-8")
    return {**shown(name, splits[REPORTED if REPORTED in splits else DECIDES]), "table": tables(splits)}


def shown(title: str, figures: Mapping[str, Mapping]) -> dict[str, object]:
    """The figures of one split that matter most, and a plot of them by family."""
    rows = figures["rows"]
    names = [
        r
        for r in (metrics.STAGE1, metrics.STAGE2, metrics.swapped(metrics.STAGE2), metrics.BLIND)
        if r in rows
    ]
    by_family = {r: {f: v["value"] or 0 for f, v in rows[r]["by_family"].items()} for r in names}
    exact = {f"exact_{re.sub(r'[^a-z0-9]+', '_', r)}": rows[r]["exact"]["value"] for r in names}
    return {**exact, "by_family": plots.bars_by_family(by_family, title)}


def tables(splits: Mapping[str, Mapping]) -> Markdown:
    return Markdown("\n\n".join(metrics.table(figures, split) for split, figures in splits.items()))


if __name__ == "__main__":
    main(run)
