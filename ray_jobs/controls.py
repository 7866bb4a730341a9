"""What a model must beat: answers that need no record, and its own answers on someone else's."""

from __future__ import annotations

import bisect
import hashlib
from collections import defaultdict

import polars as pl


def frozen(questions: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most `most` of the questions, drawn by a hash of their id: the same ones for every model and every night."""
    order = pl.Series(
        "order", [hashlib.sha256(i.encode()).hexdigest() for i in questions["id"]], dtype=pl.String
    )
    return questions.with_columns(order).sort("order").head(most).sort("id").drop("order")


def sha256(questions: pl.DataFrame) -> str:
    """Identity of a question set: ids, questions, answers and cut-offs, in order of id."""
    digest = hashlib.sha256()
    for row in questions.sort("id").select("id", "question", "answer", "cutoff_at").iter_rows():
        digest.update(chr(31).join(map(str, row)).encode() + b"\n")
    return digest.hexdigest()


def most_frequent(train: pl.DataFrame, questions: pl.DataFrame) -> list[str]:
    """For each question the answer that is most frequent in its template on the train split; '' for a new template."""
    counted = train.group_by("template_id", "answer").len().sort(["len", "answer"], descending=[True, False])
    best = dict(
        counted.unique("template_id", keep="first", maintain_order=True)
        .select("template_id", "answer")
        .iter_rows()
    )
    return [best.get(template, "") for template in questions["template_id"]]


def swaps(questions: pl.DataFrame, pool: pl.DataFrame) -> list[tuple[str, str, object] | None]:
    """For each question another patient's record, as (hospital, visit_id, cutoff_at), that also holds what is asked.

    pool: all questions of the split, from whose records one is taken.

    A record holds it if the same template was asked there about the same item and had an answer; one that also shares
    the second item, such as the drug, comes first. Of those, the one whose number of visible events is nearest: the
    same position of the cut-off. None if there is no such patient.
    """
    full, item = ["template_id", "item", "other"], ["template_id", "item"]
    own = questions.select("hospital", "patient_id").rows()
    found = [
        [
            _nearest(pools.get(key, []), n, patient)
            for key, n, patient in zip(keys, questions["n_visible"], own, strict=True)
        ]
        for keys, pools in ((questions.select(c).rows(), _pools(pool, c)) for c in (full, item))
    ]
    return [closer or wider for closer, wider in zip(*found, strict=True)]


def _pools(questions: pl.DataFrame, columns: list[str]) -> dict[tuple, list[tuple]]:
    """Answered questions by what they ask, as (visible events, hospital, patient, visit, cut-off), sorted."""
    held = questions.filter(pl.col("answer_type") != "not_in_record").sort("n_visible", "id")
    records = held.select("n_visible", "hospital", "patient_id", "visit_id", "cutoff_at").rows()
    pools: dict[tuple, list[tuple]] = defaultdict(list)
    for key, record in zip(held.select(columns).rows(), records, strict=True):
        pools[key].append(record)
    return pools


def _nearest(pool: list[tuple], n: int, own: tuple[str, str]) -> tuple[str, str, object] | None:
    """Of a pool sorted by the number of visible events, the other patient's record nearest to `n`."""
    middle = bisect.bisect_left(pool, n, key=lambda r: r[0])
    below = next((r for r in reversed(pool[:middle]) if r[1:3] != own), None)
    above = next((r for r in pool[middle:] if r[1:3] != own), None)
    nearest = min((r for r in (below, above) if r), key=lambda r: abs(r[0] - n), default=None)
    return (nearest[1], nearest[3], nearest[4]) if nearest else None
