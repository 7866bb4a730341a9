"""Questions from notes, by a language model at an endpoint of the hospital's own choosing. Off unless configured.

Notes are free text about a patient, so nothing leaves unless the job's YAML names an endpoint and also lists its host
under `allowed_hosts`. An answer that the note does not tell is dropped. One that the note tells but no event of the record
does, at the cut-off, becomes "not in the record": the trained model sees events, and no note.
"""

from __future__ import annotations

import json

import polars as pl

from ray_jobs.questions import draw, endpoint, support
from ray_jobs.questions.choose import ABSENT
from ray_jobs.questions.record import VISIT, Records
from ray_jobs.questions.wording import COLUMNS, question_id

WHERE = "params.notes"
PROMPT = (
    "Read the clinical note. Ask one short question in lower case that a clinician would ask and that the note answers. "
    'Reply with JSON only: {"question": "...", "answer": "..."}; the answer in at most eight words, taken from the note.'
)


class NotesSettings(endpoint.EndpointSettings):
    """params.notes of the job: the endpoint, and the share of the records that are asked about."""

    share: float = 1.0


def settings(params: dict | None) -> NotesSettings | None:
    """None if notes are not configured. Raises JobError if the host of the endpoint is not allowed."""
    return endpoint.checked(NotesSettings, params, WHERE) if params else None


def ask(notes: pl.DataFrame, built: Records, chosen: NotesSettings) -> tuple[pl.DataFrame, int]:
    """(questions, dropped): one question a record from its newest note, if that note tells the answer.

    notes: input/<hospital>/notes of any hospitals. Evidence are the events of the record that tell the answer. Raises
    JobError if the endpoint fails.
    """
    records = built.records
    wanted = records.filter(pl.Series(draw.share(records["key"], "note")) < chosen.share)
    newest = (
        wanted.join(notes.select(*VISIT, "available_at", "text", "row_id"), on=VISIT)
        .filter(pl.col("available_at") <= pl.col("cutoff_at"))
        .sort("rec", "available_at", "row_id")
        .unique("rec", keep="last", maintain_order=True)
    )
    seen = built.visible.select("rec", "row_id", "text", "value", "unit").rows_by_key("rec")
    made, dropped = [], 0
    for row in newest.iter_rows(named=True):
        told = _told(row["text"], chosen)
        if told is None or not support.tells(row["text"], told["answer"]):
            dropped += 1
            continue
        evidence = support.evidence(told["answer"], seen[row["rec"]])
        made.append(_question(row, _plain(told["question"]), _plain(told["answer"]), evidence))
    return pl.DataFrame(made, schema=COLUMNS), dropped


def _told(note: str, chosen: NotesSettings) -> dict[str, str] | None:
    try:
        told = json.loads(endpoint.say(chosen, PROMPT, note, WHERE))
        return told if isinstance(told["question"], str) and isinstance(told["answer"], str) else None
    except (json.JSONDecodeError, KeyError, TypeError):
        return None


def _question(row: dict, question: str, answer: str, evidence: list[str]) -> dict:
    names = (row["hospital"], row["patient_id"], row["visit_id"], row["cutoff_at"], "note", question)
    kept = ("hospital", "patient_id", "visit_id", "cutoff_at", "split", "admitted_at", "n_visible")
    return {
        **{column: None for column in COLUMNS},
        **{column: row[column] for column in kept},
        "id": question_id(*names),
        "template_id": "note",
        "family": "from_note",
        "item": "",
        "other": "",
        "period": "",
        "question": question,
        "answer": answer if evidence else ABSENT,
        "says": answer if evidence else ABSENT,
        "answer_type": "category" if evidence else "not_in_record",
        "evidence": sorted(set(evidence)),
    }


def _plain(said: str) -> str:
    return " ".join(said.lower().split())
