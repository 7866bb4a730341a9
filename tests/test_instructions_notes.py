"""Questions from notes: off by default, sent only to an allowed host, kept only if the note tells the answer."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import polars as pl
import pytest

from ray_jobs.config import JobError
from ray_jobs.questions import make, notes, record
from tests.timeline import timeline


class _Endpoint(BaseHTTPRequestHandler):
    """An OpenAI-compatible chat endpoint: asks about the note's third word; makes things up about notes on fevers."""

    received: list[str]

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        note = body["messages"][1]["content"]
        self.received.append(note)
        told = {"question": "What Is Known?", "answer": "malaria" if "fever" in note else note.split()[2]}
        reply = json.dumps({"choices": [{"message": {"content": json.dumps(told)}}]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_args):
        pass


@pytest.fixture
def endpoint():
    _Endpoint.received = []
    server = HTTPServer(("127.0.0.1", 0), _Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/chat/completions"
    server.shutdown()


@pytest.fixture(scope="module")
def built():
    return record.build(*timeline(6, seed=2), make.CUTOFFS)


def written(records, text, hours_after):
    first = records.unique("visit_id", keep="first", maintain_order=True)
    return first.select(
        *record.VISIT,
        available_at=pl.col("cutoff_at") + timedelta(hours=hours_after),
        text=pl.lit(text),
        row_id=pl.col("visit_id") + ":note",
    )


def test_off_by_default():
    assert notes.settings(None) is None and notes.settings({}) is None


def test_a_host_that_is_not_listed_gets_nothing(endpoint):
    with pytest.raises(JobError, match="not in allowed_hosts"):
        notes.settings({"endpoint": endpoint, "allowed_hosts": ["llm.hospital.example"], "model": "m"})
    assert _Endpoint.received == []


def test_a_question_is_asked_of_the_newest_note_that_was_known(endpoint, built):
    chosen = notes.settings({"endpoint": endpoint, "allowed_hosts": ["127.0.0.1"], "model": "m"})
    told = pl.concat(
        [written(built.records, "patient with pneumonia", -1), written(built.records, "died of it", 1000)]
    )
    questions, dropped = notes.ask(told, built, chosen)
    assert dropped == 0 and questions.height >= 6
    assert set(questions["question"]) == {"what is known?"}
    assert set(_Endpoint.received) == {"patient with pneumonia"}
    assert set(questions["answer"]) == {"not in the record"}, "the note tells it, no event of the record does"
    assert set(questions["answer_type"]) == {"not_in_record"}
    assert questions["evidence"].list.len().to_list() == [0] * questions.height


def test_an_answer_that_the_record_tells_too_stands_with_the_events_as_evidence(endpoint, built):
    chosen = notes.settings({"endpoint": endpoint, "allowed_hosts": ["127.0.0.1"], "model": "m"})
    questions, dropped = notes.ask(written(built.records, "admitted for glucose", -1), built, chosen)
    kept = questions.filter(pl.col("answer") == "glucose")
    assert dropped == 0 and 0 < kept.height < questions.height, (
        "some records show no glucose before their cut-off"
    )
    known = built.visible.select("row_id", "concept", "text")
    shown = kept.select(row_id="evidence").explode("row_id").join(known, on="row_id")
    assert shown["text"].str.contains("glucose").all()


def test_an_answer_that_the_note_does_not_tell_is_dropped(endpoint, built):
    chosen = notes.settings({"endpoint": endpoint, "allowed_hosts": ["127.0.0.1"], "model": "m"})
    questions, dropped = notes.ask(written(built.records, "fever since Monday", -1), built, chosen)
    assert questions.is_empty() and dropped > 0


def test_an_endpoint_that_fails_is_named_without_the_note(built):
    chosen = notes.settings(
        {"endpoint": "http://127.0.0.1:9/v1", "allowed_hosts": ["127.0.0.1"], "model": "m"}
    )
    with pytest.raises(JobError) as failed:
        notes.ask(written(built.records, "secret words", -1), built, chosen)
    assert "params.notes.endpoint" in str(failed.value) and "secret" not in str(failed.value)
