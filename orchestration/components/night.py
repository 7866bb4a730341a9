"""Night: the jobs, the schedule, and the last step that says whether the night is whole."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from orchestration import catalog, hospitals

REPORT = dg.AssetKey(["night", "report"])


class JobModel(dg.Model):
    """A job is a selection of assets with their checks."""

    description: str
    selection: str


class ScheduleModel(dg.Model):
    """When a job runs; the timezone is explicit, because a hospital's night is local."""

    name: str
    job: str
    cron: str
    timezone: str
    running: bool = Field(default=True, description="False registers the schedule without starting it.")


class Night(dg.Component, dg.Model, dg.Resolvable):
    """Jobs, the nightly schedule and `night/report`, whose check `the_night_is_whole` ends a night red when a
    hospital was held back, after everything else was published."""

    jobs: dict[str, JobModel]
    schedule: ScheduleModel

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        if self.schedule.job not in self.jobs:
            known = ", ".join(sorted(self.jobs))
            raise ValueError(
                f"{context.path}: schedule.job names {self.schedule.job!r}; write one of: {known}"
            )
        jobs = {
            name: dg.define_asset_job(name, selection=model.selection, description=model.description)
            for name, model in self.jobs.items()
        }
        status = (
            dg.DefaultScheduleStatus.RUNNING if self.schedule.running else dg.DefaultScheduleStatus.STOPPED
        )
        schedule = dg.ScheduleDefinition(
            name=self.schedule.name,
            job=jobs[self.schedule.job],
            cron_schedule=self.schedule.cron,
            execution_timezone=self.schedule.timezone,
            default_status=status,
        )
        return dg.Definitions(assets=[report_asset()], jobs=list(jobs.values()), schedules=[schedule])


def report_asset() -> dg.AssetsDefinition:
    @dg.asset(
        key=REPORT,
        group_name="night",
        kinds={"markdown"},
        deps=[dg.AssetKey(["weights", "champion"]), dg.AssetKey(["harmonised", "events"])],
        check_specs=[
            dg.AssetCheckSpec(
                "the_night_is_whole",
                asset=REPORT,
                blocking=True,
                description="No hospital was held back; if one was, the rest of the night is published all the same.",
            )
        ],
        description="What stands after this night: accepted versions, hospitals held back, the champion.",
    )
    def night_report() -> Iterator[dg.MaterializeResult]:
        accepted = catalog.load()
        held_back = {
            name: record
            for name, record in accepted.held_back.items()
            if name in hospitals.configured_names()
        }
        yield dg.MaterializeResult(
            metadata={
                "accepted": dg.MetadataValue.md(accepted_table(accepted)),
                "hospitals_held_back": dg.MetadataValue.md(held_back_table(held_back)),
                "catalog": dg.MetadataValue.path(catalog.join(accepted.root, "catalog.json")),
                "old_runs_forgotten": catalog.forget_runs(accepted.root),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="the_night_is_whole",
                    passed=not held_back,
                    severity=dg.AssetCheckSeverity.ERROR,
                    metadata={"held_back": dg.MetadataValue.md(held_back_table(held_back))},
                )
            ],
        )

    return night_report


def accepted_table(accepted: catalog.Catalog) -> str:
    lines = ["| asset | version | rows | published (UTC) |", "|---|---|---|---|"]
    for key, entry in sorted(accepted.accepted.items()):
        rows = accepted.rows(key)
        lines.append(f"| {key} | {entry['version']} | {rows or ''} | {entry['published_at'][:16]} |")
    return "\n".join(lines)


def held_back_table(held_back: dict[str, dict]) -> str:
    if not held_back:
        return "none"
    lines = ["| hospital | since (UTC) | why |", "|---|---|---|"]
    lines += [
        f"| {name} | {r.get('at', '')[:16]} | {r.get('reason', '')} |"
        for name, r in sorted(held_back.items())
    ]
    return "\n".join(lines)
