"""The compiled tasks as models of dbt, added to a copy of the project: `labels/<task>` each, and one `labels/attrition`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import yaml

from orchestration.tasks import definition, sql
from orchestration.wording import relative

COHORTS = Path("models", "labels", "steps", "steps.yml")
KEYS = {"visits": ["visit_id"]}
COLUMNS = {
    "hospital": ("varchar", "{{ doc('hospital') }}"),
    "patient_id": ("varchar", "{{ doc('patient_id') }}"),
    "visit_id": ("varchar", "{{ doc('visit_id') }}"),
    "prediction_at": ("timestamp", "When the prediction is made; nothing known later may be read for it."),
}
ATTRITION = {
    "hospital": ("varchar", "{{ doc('hospital') }}"),
    "task": ("varchar", "Name of the task."),
    "step": ("integer", "0 for the cohort, then the exclusions in their order."),
    "reason": ("varchar", "Name of the exclusion."),
    "excluded": (
        "bigint",
        "Rows that it takes away; sum over the rows of one step, as there is one a bucket of patients.",
    ),
    "remaining": ("bigint", "Rows that are left."),
    "positives": ("bigint", "Rows that are left with label 1; 0 for a task whose label is no class."),
}

WINDOWS = "label_windows"
WINDOW_COLUMNS = {
    "hospital": ("varchar", "{{ doc('hospital') }}"),
    "holds_from": (
        "timestamp",
        "Latest horizon that the hospital's export reaches; null if it reaches none.",
    ),
    "holds_until": ("timestamp", "Earliest horizon that it does not reach yet; null if there is none."),
}


def compiled(project: Path) -> dict[str, sql.Compiled]:
    """Name to compiled task. Raises LayoutError."""
    cohorts = _cohorts(project)
    with duckdb.connect() as connection:
        return {
            name: sql.compile_task(name, task, file_of(project, name), cohorts, connection)
            for name, task in definition.read(project).items()
        }


def write(project: Path, target: Path) -> None:
    """Add the models of `project`'s tasks to `target`, a copy of it. Raises LayoutError before anything is written."""
    tasks = compiled(project)
    if not tasks:
        return
    folder = target / "models" / "labels"
    for name, one in tasks.items():
        (folder / "steps" / f"{name}_flow.sql").write_text(
            f"-- compiled from {file_of(project, name)}\n{one.flow}"
        )
        columns = ["hospital", "patient_id", "visit_id", "prediction_at", "label"]
        columns += [f"'{name}' as task", f"'{one.task.version}' as task_version", *_group(one)]
        select = ",\n    ".join(columns)
        where = f"from {{{{ ref('{name}_flow') }}}}\nwhere excluded_step is null\n"
        (folder / f"{name}.sql").write_text(f"select\n    {select}\n{where}")
    (folder / "attrition.sql").write_text("\nunion all\n".join(map(_attrition, tasks.values())) + "\n")
    models = [model for one in tasks.values() for model in (_label_model(one), _flow_model(one))]
    models.append(
        _model("attrition", "How each task's cohort became its labels: who was left out, and why.", ATTRITION)
    )
    if asking := [one for one in tasks.values() if one.reach]:
        (folder / "steps" / f"{WINDOWS}.sql").write_text(_windows(asking))
        says = "Between which ends of a hospital's export every label of these patients stays as it is."
        models.append(_model(WINDOWS, says, WINDOW_COLUMNS))
    (folder / "tasks.yml").write_text(yaml.safe_dump({"version": 2, "models": models}, sort_keys=False))


def file_of(project: Path, name: str) -> str:
    return f"{relative(project / definition.FOLDER)}/{name.removesuffix(definition.PUBLISHED)}.yaml"


def _cohorts(project: Path) -> dict[str, dict[str, str]]:
    content = yaml.safe_load((project / COHORTS).read_text(encoding="utf-8"))
    return {
        model["name"].removeprefix("cohort_"): {c["name"]: c["data_type"] for c in model["columns"]}
        for model in content["models"]
        if model["name"].startswith("cohort_")
    }


def _group(one: sql.Compiled) -> list[str]:
    return ["code_group"] if one.task.groups else []


def _model(name: str, description: str, columns: dict[str, tuple[str, str]], **more: object) -> dict:
    listed = [{"name": n, "data_type": kind, "description": says} for n, (kind, says) in columns.items()]
    return {"name": name, "description": description, **more, "columns": listed}


def _label_model(one: sql.Compiled) -> dict:
    says = "1 or 0." if one.label_type == "INTEGER" else "The number to be foreseen."
    columns = {
        **COLUMNS,
        "label": (one.label_type.lower(), says),
        "task": ("varchar", "Name of the task."),
        "task_version": ("varchar", "Version of the definition."),
        **{name: ("varchar", "CCSR category.") for name in _group(one)},
    }
    keys = ["hospital", *KEYS.get(one.task.cohort, ["patient_id", "prediction_at"]), *_group(one)]
    test = {"keys_are_unique": {"name": f"keys_are_unique_{one.name}", "arguments": {"columns": keys}}}
    what = f"{one.task.description} Source: {one.task.source}. Variant: {one.task.variant}."
    return _model(one.name, what, columns, data_tests=[test])


def _flow_model(one: sql.Compiled) -> dict:
    columns = {
        **COLUMNS,
        "horizon_at": ("timestamp", "Until when the label looks."),
        "label": (one.label_type.lower(), "The label, also of rows that are left out."),
        "excluded_step": ("integer", "Number of the first exclusion that holds; null for a row that stays."),
        **{name: ("varchar", "CCSR category.") for name in _group(one)},
    }
    return _model(f"{one.name}_flow", f"The cohort of {one.name} with labels and exclusions.", columns)


def _attrition(one: sql.Compiled) -> str:
    steps = ", ".join(f"({i}, '{name}')" for i, name in enumerate(("cohort", *one.steps)))
    positives = "flow.label = 1" if one.label_type == "INTEGER" else "false"
    stays = "(flow.excluded_step is null or flow.excluded_step > steps.step)"
    return f"""select
    flow.hospital,
    '{one.name}' as task,
    steps.step,
    steps.reason,
    count(*) filter (where flow.excluded_step = steps.step) as excluded,
    count(*) filter (where {stays}) as remaining,
    count(*) filter (where {stays} and {positives}) as positives
from {{{{ ref('{one.name}_flow') }}}} as flow
cross join (values {steps}) as steps (step, reason)
group by all"""


def _windows(asking: Sequence[sql.Compiled]) -> str:
    """Labels that ask how far the export reaches change when it comes to reach past a horizon, or, where they do more than
    compare the two, whenever it moves at all."""
    ends = {
        "compared": "select flow.hospital, flow.horizon_at as at from {{{{ ref('{name}_flow') }}}} as flow",
        "read": "select flow.hospital, unnest([horizon.last_event_at, horizon.last_event_at + interval 1 microsecond]) as at\n"
        "    from {{{{ ref('{name}_flow') }}}} as flow\n"
        "    inner join {{{{ source('dictionary', 'horizon') }}}} as horizon on flow.hospital = horizon.hospital",
    }
    listed = "\n    union all\n    ".join(ends[one.reach].format(name=one.name) for one in asking)
    return f"""with ends as (
    {listed}
)

select
    ends.hospital,
    max(ends.at) filter (where ends.at <= horizon.last_event_at) as holds_from,
    min(ends.at) filter (where ends.at > horizon.last_event_at) as holds_until
from ends
inner join {{{{ source('dictionary', 'horizon') }}}} as horizon on ends.hospital = horizon.hospital
group by ends.hospital
"""
