"""A definition to SQL: every expression is checked where it stands, and bound to typed, empty columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import duckdb
import sqlglot
from sqlglot import exp

from orchestration import dictionary, expressions
from orchestration.tasks.definition import Task
from orchestration.wording import LayoutError, near

INTERVAL = re.compile(r"^(-?\d+) (minute|hour|day)s?$")
ROW = "row"
# Times of a cohort and those before them, where that is so in every row.
EARLIER = {
    "discharge_at": ["admission_at"],
    "left_icu_at": ["icu_at"],
    "hour_at": ["icu_at"],
    "left_at": ["arrived_at"],
}
# A diagnosis with several ICD-10-CM targets counts where these hold at least half of its weight.
HALF = "sum(weight) >= 0.5 - 1e-9"
ICD_HOSPITALS = "select hospital from {{ source('dictionary', 'icd_hospitals') }}"


@dataclass(frozen=True)
class Compiled:
    """A task as SQL: every row of the cohort with its label and the number of the step that excludes it, if any.

    label_type: INTEGER (0 or 1) or DOUBLE; steps: the names of the exclusions, from number 1; reach: how it asks how far the
    hospital's export reaches, see `reach_of`.
    """

    name: str
    task: Task
    flow: str
    label_type: str
    steps: tuple[str, ...]
    reach: str | None


def compile_task(
    name: str,
    task: Task,
    file: str,
    cohorts: Mapping[str, Mapping[str, str]],
    connection: duckdb.DuckDBPyConnection,
) -> Compiled:
    """`cohorts`: name to columns and their types. Raises LayoutError: one line naming `file`, key and mend."""
    return _Compiler(name, task, file, cohorts, connection).compile()


class _Compiler:
    def __init__(self, name: str, task: Task, file: str, cohorts: Mapping, connection):
        self.name, self.task, self.file, self.connection = name, task, file, connection
        if task.cohort not in cohorts:
            raise self.wrong("cohort", f"there is no {task.cohort!r}; {near(task.cohort, cohorts)}")
        self.columns = dict(cohorts[task.cohort])
        self.expressions: list[exp.Expression] = []
        self._concepts()

    def wrong(self, key: str, says: str) -> LayoutError:
        return LayoutError(f"{self.file}: {key}: {says}")

    def compile(self) -> Compiled:
        task = self.task
        trigger = self._expression("trigger", task.trigger, ("TIMESTAMP",))
        self.columns["trigger_at"] = "TIMESTAMP"
        predict = self._expression("predict_at", task.predict_at, ("TIMESTAMP",))
        self.columns["prediction_at"] = "TIMESTAMP"
        horizon = self._horizon()
        self.columns |= {"horizon_at": "TIMESTAMP"}
        if task.outcome:
            self.columns |= {"outcome_at": "TIMESTAMP", "first_outcome_at": "TIMESTAMP"}
        if task.groups:
            self.columns |= {"code_group": "VARCHAR", "has_group": "BOOLEAN"}
        label = self._expression("label", task.label, ("BOOLEAN", "INTEGER", "DOUBLE"))
        label_type = "DOUBLE" if self._type == "DOUBLE" else "INTEGER"
        steps = [("no_time_of_prediction", f'"{ROW}".prediction_at is null')]
        if task.groups or (task.outcome and task.outcome.icd10):
            steps.append(("hospital_without_icd_codes", f'"{ROW}".hospital not in ({ICD_HOSPITALS})'))
        steps += [(k, self._expression(f"exclude.{k}", v, ("BOOLEAN",))) for k, v in task.exclude.items()]
        if not INTERVAL.match(task.horizon.strip()):
            steps.append(("horizon_before_prediction", f'"{ROW}".horizon_at < "{ROW}".prediction_at'))
        steps.append(("no_label", "label is null"))
        when = "\n".join(
            f"        when coalesce({sql}, false) then {i}" for i, (_, sql) in enumerate(steps, 1)
        )
        only = f"\n    where concept = '{task.concept}'" if task.concept else ""
        flow = f"""with triggered as (
    select
        *,
        {trigger} as trigger_at
    from {{{{ ref('cohort_{task.cohort}') }}}} as "{ROW}"{only}
),

timed as (
    select
        *,
        {predict} as prediction_at
    from triggered as "{ROW}"
),

bounded as (
    select
        *,
        {horizon} as horizon_at
    from timed as "{ROW}"
){self._outcomes()}{self._groups()}

select
    hospital,
    patient_id,
    visit_id,
    prediction_at,
    horizon_at,
    cast({label} as {label_type}) as label,
    case
{when}
    end as excluded_step{", code_group" if task.groups else ""}
from {"grouped" if task.groups else "followed" if task.outcome else "bounded"} as "{ROW}"
"""
        names = tuple(name for name, _ in steps)
        return Compiled(self.name, task, flow, label_type, names, reach_of(self.expressions))

    def _outcomes(self) -> str:
        """The first matching event after the prediction and up to the horizon, and the first in the whole record."""
        if not (outcome := self.task.outcome):
            return ""
        if outcome.icd10:
            source, matches = "diagnoses", " or ".join(f"starts_with(code, '{c}')" for c in outcome.icd10)
            once = f"group by hospital, patient_id, event_at, row_id\n    having {HALF}"
        else:
            source, once = "events", "group by hospital, patient_id, event_at"
            matches = f"kind = '{outcome.kind}'" + (
                f" and concept = '{outcome.concept}'" if outcome.concept else ""
            )
        return f""",

outcomes as (
    select
        hospital,
        patient_id,
        event_at
    from {{{{ ref('{source}') }}}}
    where {matches}
    {once}
),

followed as (
    select
        bounded.*,
        (
            select min(outcomes.event_at) from outcomes
            where
                outcomes.hospital = bounded.hospital
                and outcomes.patient_id = bounded.patient_id
                and outcomes.event_at > bounded.prediction_at
                and outcomes.event_at <= bounded.horizon_at
        ) as outcome_at,
        (
            select min(outcomes.event_at) from outcomes
            where outcomes.hospital = bounded.hospital and outcomes.patient_id = bounded.patient_id
        ) as first_outcome_at
    from bounded
)"""

    def _groups(self) -> str:
        if not self.task.groups:
            return ""
        return f""",

in_group as (
    select distinct
        hospital,
        visit_id,
        ccsr
    from (
        select
            hospital,
            visit_id,
            ccsr
        from {{{{ ref('diagnoses') }}}}
        where ccsr is not null and visit_id is not null
        group by hospital, visit_id, row_id, ccsr
        having {HALF}
    )
),

grouped as (
    select
        rows.*,
        asked.code_group,
        in_group.ccsr is not null as has_group
    from {"followed" if self.task.outcome else "bounded"} as rows
    cross join (select unnest({list(self.task.groups)}) as code_group) as asked
    left join in_group
        on
            rows.hospital = in_group.hospital
            and rows.visit_id = in_group.visit_id
            and asked.code_group = in_group.ccsr
)"""

    def _concepts(self) -> None:
        known = _concepts()
        if (self.task.cohort == "results") != bool(self.task.concept):
            raise self.wrong("concept", "belongs to cohort: results, and to it alone; add or remove it")
        given = {"concept": self.task.concept}
        if self.task.outcome and self.task.outcome.kind in ("lab", "vital", "output", "score"):
            given["outcome.concept"] = self.task.outcome.concept
        for key, concept in given.items():
            if concept is not None and concept not in known:
                raise self.wrong(key, f"{concept!r} is not in seeds/concepts.csv; {near(concept, known)}")

    def _interval(self, key: str, text: str) -> str | None:
        """An interval as SQL, None if it is none. Raises LayoutError if it points to the past."""
        if not (found := INTERVAL.match(text.strip())):
            return None
        if int(found[1]) <= 0:
            raise self.wrong(key, f"{text} lies before its trigger; write a time above 0")
        return f"interval {found[1]} {found[2]}"

    def _horizon(self) -> str:
        if interval := self._interval("horizon", self.task.horizon):
            return f'"{ROW}".prediction_at + {interval}'
        horizon, trigger = self.task.horizon.strip().lower(), self.task.trigger.strip().lower()
        wrong = (
            "is" if horizon == trigger else "comes before" if horizon in EARLIER.get(trigger, ()) else None
        )
        if wrong:
            says = f"{wrong} the trigger itself; write a later time, or an interval such as 30 days"
            raise self.wrong("horizon", says)
        return self._expression("horizon", self.task.horizon, ("TIMESTAMP",))

    def _expression(self, key: str, text: str, types: tuple[str, ...]) -> str:
        """An expression as SQL, bound to the columns that are known where it stands. Raises LayoutError."""
        try:
            parsed = expressions.parse(str(text), ROW)
        except expressions.ExpressionError as error:
            raise self.wrong(key, str(error)) from None
        for _, column in sorted(parsed.reads):
            if column.lower() not in self.columns:
                where = f"cohort {self.task.cohort}"
                raise self.wrong(
                    key, f"there is no column {column!r} in {where}; {near(column, self.columns)}"
                )
        tree = sqlglot.parse_one(parsed.sql, dialect="duckdb").transform(_end_of_day)
        self.expressions.append(tree)
        sql = tree.sql(dialect="duckdb")
        typed = ", ".join(f"cast(null as {kind}) as {name}" for name, kind in self.columns.items())
        try:
            found = self.connection.execute(
                f'describe select {sql} as x from (select {typed}) as "{ROW}"'
            ).fetchall()
        except duckdb.Error as error:  # no data is there: the complaint quotes the task's own words only
            raise self.wrong(key, f"{str(error).splitlines()[0][:200]}; mend the expression") from None
        self._type = found[0][1]
        if self._type not in types:
            raise self.wrong(
                key, f"gives {self._type.lower()}; write one that gives {' or '.join(types).lower()}"
            )
        return sql


def reach_of(expressions: Iterable[exp.Expression]) -> str | None:
    """How these read last_event_at: None, not at all; `compared`, only against horizon_at, so that a label changes only when
    the export comes to reach past its horizon; `read` in any other way.
    """
    readers = [c for e in expressions for c in e.find_all(exp.Column) if c.name.lower() == "last_event_at"]
    if not readers:
        return None
    return "compared" if all(_is_compared(column.parent) for column in readers) else "read"


def _is_compared(node: exp.Expression | None) -> bool:
    sides = {
        (exp.GT, exp.LTE): ["horizon_at", "last_event_at"],
        (exp.LT, exp.GTE): ["last_event_at", "horizon_at"],
    }
    return any(
        isinstance(node, kinds)
        and all(isinstance(side, exp.Column) for side in (node.left, node.right))
        and [node.left.name.lower(), node.right.name.lower()] == names
        for kinds, names in sides.items()
    )


def _end_of_day(node: exp.Expression) -> exp.Expression:
    """The last second of the day of a time, 23:59:59."""
    if isinstance(node, exp.Anonymous) and node.name.lower() == "end_of_day":
        argument = node.expressions[0].sql(dialect="duckdb")
        sql = f"(date_trunc('day', {argument}) + interval 86399 second)"
        return sqlglot.parse_one(sql, dialect="duckdb")
    return node


@cache
def _concepts() -> frozenset[str]:
    return frozenset(row["concept"] for row in dictionary.read_csv(dictionary.SEEDS / "concepts.csv"))
