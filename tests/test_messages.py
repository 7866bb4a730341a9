"""What a process tells Dagster while it runs: a message that is half written is not half read."""

from __future__ import annotations

import asyncio
import json
import threading
import time

from orchestration import ray_messages
from orchestration.messages import whole_lines


def test_a_line_that_is_written_in_parts_is_one_message(tmp_path):
    path, ended = tmp_path / "messages", threading.Event()
    messages = [{"text": letter * length} for letter, length in (("a", 5), ("ä", 70_000), ("c", 300_000))]
    path.touch()

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for message in messages:
                content = json.dumps(message, ensure_ascii=False).encode() + b"\n"
                for start in range(0, len(content), 8191):  # ends within a letter, too
                    file.write(content[start : start + 8191])
                    time.sleep(0.002)
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    found = [json.loads(line) for line in whole_lines(str(path), ended.is_set)]
    writer.join()
    assert found == messages


def test_what_is_left_without_an_end_is_not_lost(tmp_path):
    path = tmp_path / "messages"
    path.write_text('{"method": "opened"}\n{"meth')
    assert list(whole_lines(str(path), lambda: True)) == ['{"method": "opened"}\n', '{"meth']


def test_a_line_of_a_cluster_that_comes_in_parts_is_one_line():
    text = "a line\n" + json.dumps({"text": "ä" * 70_000}) + '\n\n{"meth'

    async def sent():
        for start in range(0, len(text), 8191):
            yield text[start : start + 8191]

    async def told():
        return [chunk async for chunk in ray_messages.whole_lines(sent())]

    found = asyncio.run(told())
    assert "".join(found) == text and all(chunk.endswith("\n") for chunk in found[:-1])
    assert found[-1] == '{"meth' and len(found) == 3
