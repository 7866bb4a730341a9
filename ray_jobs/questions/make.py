"""From a timeline to both sets of questions: the whole computation of one bucket of patients, without input or output."""

from __future__ import annotations

import polars as pl

from ray_jobs.questions import choose, record, wording
from ray_jobs.questions.facts import Facts
from ray_jobs.questions.registry import Registry

CUTOFFS = [[5, 12], [12, 28], [28, 60], [60, 97]]  # visible events of the up to four records of a visit
TRIES = {"schema_alignment": 11.0, "clinical_reasoning": 7.5}  # a visit; about 8 and 3 find an answer


def make(
    events: pl.DataFrame,
    splits: pl.DataFrame,
    concepts: pl.DataFrame,
    registry: Registry,
    tries: dict[str, float] = TRIES,
    cutoffs: list[list[int]] = CUTOFFS,
) -> tuple[dict[str, pl.DataFrame], record.Records]:
    """(questions by set, each sorted by id; the records that were asked, with what they show).

    events: harmonised/events of some patients. splits: the splits table. concepts: the clinical dictionary.
    tries: how many questions a visit is tried for, by set; a record that has no fitting answer gives none.
    """
    built = record.build(events, splits, cutoffs)
    facts = Facts(built, registry.subjects, concepts)
    made = {}
    for name, templates in registry.templates.items():
        whole = sum(t.weight for t in templates)
        asked = [pl.DataFrame(schema=wording.COLUMNS)]
        for template in templates:
            rate = tries[name] * template.weight * template.times / whole
            chosen = choose.ask(template, facts, built.records, rate)
            asked.append(wording.rows(template, chosen, built.records, registry))
        made[name] = pl.concat(asked).unique("id", keep="first", maintain_order=True).sort("id")
    return made, built
