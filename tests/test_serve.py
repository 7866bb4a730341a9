"""The server and the chat over a champion, asked by the real OpenAI client on loopback, against the evaluation's own path."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import openai
import polars as pl
import pytest

from orchestration import catalog
from ray_jobs import serve
from ray_jobs.config import JobError
from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.data import EVENT_COLUMNS, EventStore, dictionary, text_vectors
from ray_jobs.questions.wording import final
from ray_jobs.serving.champion import KEY, Asked, CannotAnswer, Champion
from tests import untaught

SENTINEL = "zebrafinch"  # in a question; it must be in no log


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("champion")
    events = untaught.house(folder / "root", folder, admissions=24)
    stand(folder / "root", folder, events, seed=1)
    return folder / "root"


def stand(root: Path, folder: Path, events: pl.DataFrame, seed: int) -> str:
    made = untaught.weights(folder / f"weights{seed}", events, seed)
    checkpoint.seal(made)
    return untaught.publish(root, KEY, made, catalog.fingerprint(seed=seed))


@pytest.fixture(scope="module")
def questions(root) -> pl.DataFrame:
    """Some questions of both sets, with what evaluation hears from the same weights."""
    accepted = catalog.load(str(root))
    columns = ["hospital", "patient_id", "visit_id", "cutoff_at", "question"]
    sets = [accepted.files(f"instructions/{name}")[0] for name in ("schema_alignment", "clinical_reasoning")]
    asked = pl.concat(pl.read_parquet(file, columns=columns).gather_every(40) for file in sets)
    events = pl.read_parquet(accepted.files("harmonised/events")[0], columns=EVENT_COLUMNS)
    store = EventStore.of(events, dictionary(str(untaught.CONCEPTS)))
    vectors = text_vectors(accepted.folder(untaught.EMBEDDINGS), store.texts)
    said = checkpoint.load(accepted.folder(KEY)).answer(asked, store, vectors)
    return asked.with_columns(pl.Series("said", said))


class Server:
    """`python -m ray_jobs.serve` on a free port, with everything that it writes below `scratch`."""

    def __init__(self, root: Path, scratch: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.scratch, self.token_file = scratch, scratch / "token"
        environment = {k: v for k, v in os.environ.items() if k != serve.TOKEN}
        environment |= {"WARDLINE_DATA": str(root), "WARDLINE_SCRATCH": str(scratch)}
        command = [sys.executable, "-m", "ray_jobs.serve", "--port", str(self.port)]
        self.output = scratch / "output"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [*command, "--token-file", str(self.token_file)],
                cwd=catalog.REPOSITORY,
                env=environment,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + 300
        while "/v1, token in" not in self.output.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.1)

    def client(self, token: str | None = None) -> openai.OpenAI:
        key = token or self.token_file.read_text().strip()
        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key=key, max_retries=0, timeout=120
        )

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def server(root):
    with tempfile.TemporaryDirectory(prefix="ws", dir="/tmp") as scratch:  # Ray's sockets want a short path
        running = Server(root, Path(scratch))
        yield running
        running.stop()
        assert running.process.returncode == 0, running.output.read_text()


def ask(client: openai.OpenAI, row: dict, **more):
    metadata = {
        "patient": f"{row['hospital']}/{row['patient_id']}",
        "visit": row["visit_id"],
        "at": row["cutoff_at"].isoformat(),
    }
    given = {
        "model": "champion",
        "messages": [{"role": "user", "content": row["question"]}],
        "metadata": metadata,
    }
    return client.chat.completions.create(**given | more)


def test_it_says_what_evaluation_hears_whole_and_streamed(root, questions, server):
    client = server.client()
    assert [model.id for model in client.models.list()] == ["champion"]
    asked = questions
    assert asked["said"].n_unique() > 1
    for row in asked.iter_rows(named=True):
        answer = ask(client, row)
        assert answer.choices[0].message.content == row["said"]
        chunks = list(ask(client, row, stream=True, stream_options={"include_usage": True}))
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == row["said"]
        assert chunks[-1].usage == answer.usage and chunks[0].wardline["events"] == answer.wardline["events"]
        assert chunks[-2].choices[0].finish_reason == answer.choices[0].finish_reason
        assert answer.system_fingerprint == catalog.load(str(root)).version(KEY)
        assert answer.wardline["in_record"] is (row["said"] != "not in the record")
        assert answer.wardline["answer"] == final(row["said"])
        assert chunks[-2].wardline == {key: answer.wardline[key] for key in ("answer", "in_record")}


def test_the_events_in_view_are_those_known_by_then(root, questions, server):
    row = questions.row(0, named=True)
    told = ask(server.client(), row).wardline
    events = pl.read_parquet(catalog.load(str(root)).files("harmonised/events")[0])
    known = events.filter(pl.col("visit_id") == row["visit_id"], pl.col("available_at") <= row["cutoff_at"])
    assert told["events_known"] == known.height == len(told["events"])
    assert {e["row_id"] for e in told["events"]} == set(known["row_id"])
    shown = {(e["row_id"], e["text"], e["value"]) for e in told["events"]}
    assert shown == set(known.select("row_id", "text", "value").rows())


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"metadata": {"patient": "north/nobody"}}, openai.NotFoundError, "patient_not_found"),
        ({"metadata": {"patient": "north/p0", "at": "1999-01-01"}}, openai.NotFoundError, "record_not_found"),
        ({"metadata": {"patient": "north/p0", "visit": "other"}}, openai.NotFoundError, "record_not_found"),
        ({"metadata": {"patient": "north/p0", "ward": "4"}}, openai.BadRequestError, "invalid_request"),
        ({"metadata": openai.omit}, openai.BadRequestError, "invalid_request"),
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found"),
        ({"n": 2}, openai.BadRequestError, "invalid_request"),
        ({"logprobs": True}, openai.BadRequestError, "invalid_request"),
        (
            {"messages": [{"role": "user", "content": "why " * 9000}]},
            openai.BadRequestError,
            "context_length_exceeded",
        ),
        (
            {"messages": [{"role": "user", "content": "why " * 300_000}]},
            openai.APIStatusError,
            "request_too_large",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_in_openais_form(root, questions, server, change, error, code):
    row = questions.row(0, named=True)
    with pytest.raises(error) as refused:
        ask(server.client(), row, **change)
    assert refused.value.code == code and 400 <= refused.value.status_code < 500
    assert "nobody" not in str(refused.value)


def test_without_the_token_nothing_is_said(root, questions, server):
    client = server.client(token="x" * 40)
    for call in (client.models.list, lambda: ask(client, questions.row(0, named=True))):
        with pytest.raises(openai.AuthenticationError, match="send the server's token"):
            call()
    with pytest.raises(openai.NotFoundError):
        server.client().completions.create(model="champion", prompt="")


def test_no_log_holds_a_question_a_patient_or_the_token(root, questions, server):
    row = questions.row(0, named=True)
    before = ask(server.client(), row).wardline["unknown_words"]
    row["question"] += f" {SENTINEL}"
    assert ask(server.client(), row).wardline["unknown_words"] == before + 1
    with pytest.raises(openai.NotFoundError):
        ask(server.client(), row, metadata={"patient": f"north/{SENTINEL}"})
    token = server.token_file.read_bytes().strip()
    written = [p for p in server.scratch.rglob("*") if p.is_file() and p != server.token_file]
    assert any("serve" in p.name for p in written)
    for file in written:
        content = file.read_bytes()
        assert SENTINEL.encode() not in content and token not in content, file.name


def test_a_record_over_the_budget_is_thinned_or_refused(root):
    events = pl.read_parquet(catalog.load(str(root)).files("harmonised/events")[0])
    longest = events.group_by("hospital", "patient_id").len().sort("len", "patient_id").row(-1, named=True)
    assert longest["len"] > 96
    champion, patient = Champion(str(root)), f"{longest['hospital']}/{longest['patient_id']}"
    reading = champion.read(Asked(patient, "what was the last glucose?"))
    assert (len(reading.view), reading.known) == (96, longest["len"])
    with pytest.raises(CannotAnswer, match=r"holds \d+ events by then and the model reads 96"):
        champion.read(Asked(patient, "what was the last glucose?", whole=True))


def test_what_is_known_later_changes_neither_view_nor_answer(root, questions, tmp_path):
    asked = questions.gather_every(4)
    events = pl.read_parquet(catalog.load(str(root)).files("harmonised/events")[0])
    cutoffs = asked.group_by("hospital", "patient_id").agg(pl.col("cutoff_at").min().alias("cut"))
    late = pl.col("available_at") > pl.col("cut")
    changed = (
        events.join(cutoffs, on=["hospital", "patient_id"])
        .with_columns(
            value=pl.when(late).then(pl.col("value") * 3 + 1).otherwise("value"),
            event_at=pl.when(late).then(pl.col("event_at") + timedelta(hours=1)).otherwise("event_at"),
        )
        .drop("cut")
    )
    other = shutil.copytree(root, tmp_path / "other")
    changed.write_parquet(catalog.load(str(other)).files("harmonised/events")[0])
    before, after = Champion(str(root)), Champion(str(other))
    for row in asked.join(cutoffs, on=["hospital", "patient_id"]).iter_rows(named=True):
        one = Asked(f"{row['hospital']}/{row['patient_id']}", row["question"], row["cut"])
        first, second = before.read(one), after.read(one)
        assert list(first) == list(second) and first.events() == second.events()


def test_a_new_champion_answers_without_a_restart(root, tmp_path):
    later = shutil.copytree(root, tmp_path / "root")
    events = pl.read_parquet(catalog.load(str(later)).files("harmonised/events")[0])
    champion, asked = Champion(str(later)), Asked("north/p0", "what was the last glucose?")
    first = champion.read(asked).version
    second = stand(later, tmp_path, events, seed=2)
    assert champion.read(asked).version == second != first


def test_without_a_champion_it_says_what_to_run(tmp_path):
    with pytest.raises(catalog.CatalogError, match="weights/champion has no accepted version"):
        Champion(str(tmp_path)).published_at()


def test_the_chat_answers_on_the_command_line(root, questions):
    row = questions.row(3, named=True)
    patient = f"{row['hospital']}/{row['patient_id']}"
    command = [sys.executable, "-m", "ray_jobs.chat", "--patient", patient, "--visit", row["visit_id"]]
    command += ["--at", row["cutoff_at"].isoformat(), "--evidence"]
    told = subprocess.run(
        command,
        input=row["question"] + "\n",
        cwd=catalog.REPOSITORY,
        env=os.environ | {"WARDLINE_DATA": str(root)},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0 and not told.stderr, told.stderr
    assert told.stdout.splitlines()[0] == row["said"]
    known = int(re.search(r"of (\d+) events in view", told.stdout)[1])
    assert told.stdout.count(" h  ") == known > 0


def test_the_token_is_made_for_the_owner_alone_and_must_be_long(tmp_path, monkeypatch):
    monkeypatch.delenv(serve.TOKEN, raising=False)
    file = tmp_path / "deep" / "token"
    made = serve.token(file)
    assert len(made) > 40 and file.stat().st_mode & 0o777 == 0o600 and serve.token(file) == made
    file.chmod(0o644)
    with pytest.raises(JobError, match="can be read by others; chmod 600"):
        serve.token(file)
    monkeypatch.setenv(serve.TOKEN, "short")
    with pytest.raises(JobError, match="fewer than 16 characters"):
        serve.token(file)
    monkeypatch.setenv(serve.TOKEN, "a-token-of-the-environment")
    assert serve.token(file) == "a-token-of-the-environment"


def test_records_do_not_leave_this_machine_in_the_clear():
    with pytest.raises(JobError, match="is not loopback: give --certificate and --key"):
        serve.check_address("0.0.0.0", 0, encrypted=False)
    with pytest.raises(JobError, match="is no IP address"):
        serve.check_address("hospital", 0, encrypted=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(JobError, match="cannot be used; give another --port"):
            serve.check_address("127.0.0.1", taken.getsockname()[1], encrypted=False)
