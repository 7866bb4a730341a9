"""Questions from notes, by a language model at an endpoint of the hospital's own choosing. Off unless configured.

Notes are free text about a patient, so nothing leaves unless the job's YAML names an endpoint and also lists its host
under `allowed_hosts`. An answer is kept only if all its words and numbers stand in the note; the rest is dropped.
"""

from __future__ import annotations

import json
import re

import polars as pl

from ray_jobs.questions import draw, endpoint
from ray_jobs.questions.record import VISIT
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


def ask(notes: pl.DataFrame, records: pl.DataFrame, chosen: NotesSettings) -> tuple[pl.DataFrame, int]:
    """(questions, dropped): one question a record from its newest note, if that note tells the answer.

    notes: input/<hospital>/notes of any hospitals. records: as made by record.build. Raises JobError if the endpoint fails.
    """
    wanted = records.filter(pl.Series(draw.share(records["key"], "note")) < chosen.share)
    newest = (
        wanted.join(notes.select(*VISIT, "available_at", "text", "row_id"), on=VISIT)
        .filter(pl.col("available_at") <= pl.col("cutoff_at"))
        .sort("rec", "available_at", "row_id")
        .unique("rec", keep="last", maintain_order=True)
    )
    made, dropped = [], 0
    for row in newest.iter_rows(named=True):
        told = _told(row["text"], chosen)
        if told is None or not supported(told["answer"], row["text"]):
            dropped += 1
            continue
        made.append(_question(row, told["question"].strip().lower(), told["answer"].strip().lower()))
    return pl.DataFrame(made, schema=COLUMNS), dropped


def supported(answer: str, note: str) -> bool:
    """True if the answer has words and each stands in the note."""
    words = set(re.findall(r"[a-z0-9.]*[a-z0-9]", answer.lower()))
    return bool(words) and words <= set(re.findall(r"[a-z0-9.]*[a-z0-9]", note.lower()))


def _told(note: str, chosen: NotesSettings) -> dict[str, str] | None:
    try:
        told = json.loads(endpoint.say(chosen, PROMPT, note, WHERE))
        return told if isinstance(told["question"], str) and isinstance(told["answer"], str) else None
    except (json.JSONDecodeError, KeyError, TypeError):
        return None


def _question(row: dict, question: str, answer: str) -> dict:
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
        "answer": answer,
        "answer_type": "category",
        "evidence": [row["row_id"]],
    }
