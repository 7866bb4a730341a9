"""Questions from notes, by a language model at an endpoint of the hospital's own choosing. Off unless configured.

Notes are free text about a patient, so nothing leaves unless the job's YAML names an endpoint and also lists its host
under `allowed_hosts`. An answer is kept only if all its words and numbers stand in the note; the rest is dropped.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from ray_jobs.config import JobError
from ray_jobs.questions import draw
from ray_jobs.questions.record import VISIT
from ray_jobs.questions.wording import COLUMNS, question_id

PROMPT = (
    "Read the clinical note. Ask one short question in lower case that a clinician would ask and that the note answers. "
    'Reply with JSON only: {"question": "...", "answer": "..."}; the answer in at most eight words, taken from the note.'
)


class NotesSettings(BaseModel):
    """params.notes of the job: an OpenAI-compatible chat endpoint, and the hosts that may be sent notes."""

    model_config = ConfigDict(extra="forbid")
    endpoint: str
    allowed_hosts: list[str]
    model: str
    key_env: str | None = None
    share: float = 1.0
    timeout_s: float = 60.0


def settings(params: dict | None) -> NotesSettings | None:
    """None if notes are not configured. Raises JobError if the host of the endpoint is not allowed."""
    if not params:
        return None
    try:
        chosen = NotesSettings(**params)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise JobError(f"params.notes.{key}: {first['msg']}") from None
    host = urlsplit(chosen.endpoint).hostname
    if host not in chosen.allowed_hosts:
        raise JobError(
            f"params.notes.endpoint: host {host} is not in allowed_hosts; add it there if notes may be sent to it"
        )
    return chosen


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
        told = _request(row["text"], chosen)
        if told is None or not supported(told["answer"], row["text"]):
            dropped += 1
            continue
        made.append(_question(row, told["question"].strip().lower(), told["answer"].strip().lower()))
    return pl.DataFrame(made, schema=COLUMNS), dropped


def supported(answer: str, note: str) -> bool:
    """True if the answer has words and each stands in the note."""
    words = set(re.findall(r"[a-z0-9.]*[a-z0-9]", answer.lower()))
    return bool(words) and words <= set(re.findall(r"[a-z0-9.]*[a-z0-9]", note.lower()))


def _request(note: str, chosen: NotesSettings) -> dict[str, str] | None:
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": note}]
    body = json.dumps({"model": chosen.model, "temperature": 0, "messages": messages}).encode()
    headers = {"Content-Type": "application/json"}
    if chosen.key_env:
        headers["Authorization"] = f"Bearer {os.environ.get(chosen.key_env, '')}"
    request = urllib.request.Request(chosen.endpoint, body, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(request, timeout=chosen.timeout_s) as response:
            content = json.load(response)["choices"][0]["message"]["content"]
    except (urllib.error.URLError, TimeoutError, KeyError, json.JSONDecodeError) as error:
        raise JobError(
            f"params.notes.endpoint: {chosen.endpoint} failed ({type(error).__name__}); mend it or remove params.notes"
        ) from None
    try:
        told = json.loads(content)
        return told if isinstance(told["question"], str) and isinstance(told["answer"], str) else None
    except (json.JSONDecodeError, KeyError, TypeError):
        return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead to a host that is not allowed."""

    def redirect_request(self, *_args: object) -> None:
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
