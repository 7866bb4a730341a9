"""The path to a language model, against a real OpenAI-compatible server on loopback: `transformers serve` with a tiny model.

The model's weights are random, so it says nothing of use: every paraphrase is refused and the original stays, every
answer from a note is dropped, and both are counted.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import polars as pl
import pytest

from ray_jobs.questions import bucket, endpoint, make, notes, paraphrase, record, registry
from tests import small_model
from tests.test_instructions_notes import written
from tests.timeline import timeline

pytestmark = pytest.mark.night


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """params that name the server."""
    folder = tmp_path_factory.mktemp("served")
    model = small_model.save(folder / "some-instruct")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(model)]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], env=offline, stdout=log, stderr=log
        )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(0.5)
        yield {"endpoint": f"{url}/v1/chat/completions", "allowed_hosts": ["127.0.0.1"], "model": str(model)}
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def made():
    known = pl.read_csv(bucket.CONCEPTS, infer_schema_length=None)
    sets, built = make.make(*timeline(8, seed=2), known, registry.load())
    return sets["schema_alignment"].head(6), built


def test_the_server_speaks(served):
    chosen = endpoint.checked(endpoint.EndpointSettings, served, "params.notes")
    assert isinstance(endpoint.say(chosen, "be brief.", "what was the last glucose?", "params.notes"), str)


def test_what_a_model_says_wrongly_is_refused_and_the_original_stays(served, made):
    chosen = paraphrase.settings(served | {"by": "endpoint", "share": 1.0, "parallel": 2})
    said, counts = paraphrase.apply(made[0], chosen)
    assert sum(counts.values()) == made[0].height and "kept" not in counts
    assert said.equals(made[0])


def test_an_answer_that_no_note_tells_is_dropped(served, made):
    built = record.Records(made[1].records.head(4), made[1].visible)
    told = written(built.records, "patient with pneumonia", -1)
    questions, dropped = notes.ask(told, built, notes.settings(served))
    assert questions.is_empty() and dropped >= 1
