"""The executor of every run: all steps in one process, once the runs whose process died are cleared away.

A process that was killed (kill -9, out of memory, power) says no more. Dagster then keeps its run as running, and its slot of a
pool as taken: the next run would wait for that slot for ever.
"""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
from dagster._core.executor.in_process import InProcessExecutor

from orchestration import locks

HOST, PID = ".dagster/wardline_host", ".dagster/wardline_pid"  # of this prefix the UI shows nothing
UNFINISHED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
SAYS = "The process of this run is no more: it was killed, or the machine went down. What it published stands; start it again."


class AfterTheDead(InProcessExecutor):
    """InProcessExecutor that notes which process runs it, and clears away first."""

    def execute(self, plan_context, execution_plan) -> Iterator[dg.DagsterEvent]:
        instance = plan_context.instance
        mine = locks.me()
        instance.add_run_tags(plan_context.run_id, {HOST: mine["host"], PID: str(mine["pid"])})
        clear(instance, plan_context.run_id)
        yield from super().execute(plan_context, execution_plan)


def clear(instance: dg.DagsterInstance, alive: str) -> list[str]:
    """Report each other run than `alive` as failed whose process on this host is no more, and free its slots; returns them."""
    cleared = []
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        holder = {"host": run.tags.get(HOST), "pid": int(run.tags.get(PID, 0))}
        if run.run_id != alive and (holder == locks.me() or not locks.is_alive(holder)):
            instance.report_run_failed(run, SAYS)
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            cleared.append(run.run_id)
    return cleared


@dg.executor(name="in_process", config_schema=dg.in_process_executor.config_schema)
def after_the_dead(context: dg.InitExecutorContext) -> AfterTheDead:
    """All steps in one process, after clearing away the runs whose process died."""
    plain = dg.in_process_executor.executor_creation_fn(context)
    return AfterTheDead(plain.retries, plain.step_dependency_config, plain.marker_to_close)
