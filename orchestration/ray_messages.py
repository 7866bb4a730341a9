"""Dagster Pipes' messages of a job on a Ray cluster, out of its log, each taken when it is there as a whole.

A log is followed in chunks that may end within a line (ray.dashboard.modules.job.utils.file_tail_iterator): dagster-ray's own
reader takes the parts of such a message for output, and what it told is lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace

from dagster_ray.core.pipes import PipesRayJobMessageReader


class WholeRayMessages(PipesRayJobMessageReader):
    """PipesRayJobMessageReader whose chunks end with a line."""

    @property
    def client(self) -> SimpleNamespace:
        tail = super().client.tail_job_logs
        return SimpleNamespace(tail_job_logs=lambda job_id: whole_lines(tail(job_id)))


async def whole_lines(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    """The same text in chunks that end with a line; the last one may have no end."""
    rest = ""
    async for chunk in chunks:
        lines, end, rest = (rest + chunk).rpartition("\n")
        if end:
            yield lines + end
    if rest:
        yield rest
