"""Dagster Pipes' messages of a process on this machine, each taken when it is there as a whole.

Dagster's own reader takes what has been written of a line so far for a message: a step with a long report then fails.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from threading import Event

from dagster._core.pipes.context import PipesMessageHandler
from dagster._core.pipes.utils import PipesFileMessageReader

LOOKS_EVERY_S = 0.01


class WholeMessages(PipesFileMessageReader):
    """PipesFileMessageReader for writers that are seen while they write."""

    def _reader_thread(self, handler: PipesMessageHandler, is_resource_complete: Event) -> None:
        try:
            for line in whole_lines(self._path, is_resource_complete.is_set):
                handler.handle_message(json.loads(line))
        except:
            handler.report_pipes_framework_exception(f"{type(self).__name__} reader thread", sys.exc_info())
            raise


def whole_lines(path: str, ended: Callable[[], bool]) -> Iterator[str]:
    """The lines of a file that grows, until `ended` and all is read; a last line without an end comes as it is."""
    line = b""
    with open(path, "rb") as file:
        while True:
            last = ended()  # asked before reading, so that what was written until then is read
            part = file.readline()
            line += part
            if line.endswith(b"\n"):
                yield line.decode()
                line = b""
            elif not part and last:
                break
            elif not part:
                time.sleep(LOOKS_EVERY_S)
    if line:
        yield line.decode()
