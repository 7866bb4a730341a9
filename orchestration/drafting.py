"""A draft of tables.yaml from what profiling saw: patients, visits, what was measured, diagnoses, procedures, drugs.

Columns are guessed by name and content; nothing here decides: a person reads the draft and corrects it.
"""

from __future__ import annotations

import re

from orchestration.profiling import Table

CODED = {  # input table -> names of raw tables that hold its codes, one row a patient, visit, time and code
    "diagnoses": r"diagnos|condition|problem|(^|_)dx",
    "procedures": r"procedure|surger",
    "medications": r"drug|medication|prescri|pharma",
}
ENDS = r"(^|_)(end|stop|disch|out|until|left|went|finish)"
GIVEN = (
    r"administ|given|emar|infus"  # of all other tables of drugs nobody knows whether the patient took them
)
LATER = r"(^|_)(stor|fil|enter|report|verif|updat|creat|death|dod)"  # of the row or the patient, not of what happened


def draft(tables: list[Table]) -> dict:
    """tables.yaml as far as it can be guessed: all raw tables, and the input tables that some of them seem to hold."""
    raw = {
        t.name: {"path": t.path}
        | ({"delimiter": t.delimiter} if t.delimiter != "," else {})
        | ({"key": t.keys[:1]} if t.keys else {})
        for t in tables
    }
    visits = _visits_table(tables)
    sources = {"patients": _patients(tables), "visits": [_visits(visits)] if visits else []}
    sources["measurements"] = [_measurements(table) for table in tables if table.is_measured]
    for name, pattern in CODED.items():
        named = [t for t in tables if re.search(pattern, t.name) and not t.is_measured]
        whole = [t for t in named if all(t.one(role) for role in ("patient", "visit", "code"))]
        sources[name] = [_coded(name, t) for t in whole if t.one("time")]
        sources[name] += [
            _timeless(t, visits) for t in whole if not t.one("time") and _names_visits(t, visits)
        ]
    return {"timezone": "as_written", "raw": raw, "input": {k: v for k, v in sources.items() if v}}


def _patients(tables: list[Table]) -> list[dict]:
    """The table with one row a patient that tells most of them."""
    once_each = [t for t in tables if t.one("patient") in t.keys]
    person = max(
        once_each, key=lambda t: len({"sex", "birth"} & set(t.roles)) - ("visit" in t.roles), default=None
    )
    if not person:
        return []
    birth = person.one("birth") and f"left({person.one('birth')}, 4)"
    return [
        _source(person, {"patient_id": person.one("patient"), "sex": person.one("sex"), "birth_year": birth})
    ]


def _visits_table(tables: list[Table]) -> Table | None:
    """Of the tables with one row a visit the one that is named after it, has a start and an end, and most rows."""

    def likeliest(table: Table) -> tuple[bool, bool, int]:
        return table.one("visit") in table.own_ids(), _span(table)[1] is not None, table.rows

    once_each = [t for t in tables if t.one("patient") and t.one("time") and t.one("visit") in t.keys]
    return max(once_each, key=likeliest, default=None)


def _visits(table: Table) -> dict:
    start, end = _span(table)
    columns = {"patient_id": table.one("patient"), "visit_id": table.one("visit")}
    return _source(table, columns | {"event_at": start, "end_at": end, "visit_type": table.one("code")})


def _measurements(table: Table) -> dict:
    columns = {"patient_id": table.one("patient"), "visit_id": table.one("visit")}
    columns |= {"event_at": _span(table)[0], "source_table": f"'{table.name}'", "code": table.one("code")}
    return _source(table, columns | {"value_text": table.one("number"), "unit": table.one("unit")})


def _coded(name: str, table: Table) -> dict:
    start, end = _span(table)
    columns = {"patient_id": table.one("patient"), "visit_id": table.one("visit"), "event_at": start}
    if name != "diagnoses":
        columns["end_at"] = end if end != start else None
    if name == "procedures":
        columns["text"] = table.one("label")
    if name == "medications":
        columns |= {"kind": f"'{'administration' if re.search(GIVEN, table.name) else 'order'}'"}
        columns |= {"drug": table.one("label")}
    return _source(table, columns | {"code": table.one("code"), "code_system": table.one("system")})


def _names_visits(table: Table, visits: Table | None) -> bool:
    return visits is not None and table.one("visit") == visits.one("visit")


def _timeless(table: Table, visits: Table) -> dict:
    """Codes without a time of their own, as they are written for billing, are of the end of their visit."""
    visit, own = table.one("visit"), {"patient_id": table.one("patient")}
    own |= {"visit_id": visit, "code": table.one("code"), "code_system": table.one("system")}
    columns = {name: f"{table.name}.{column}" for name, column in own.items() if column}
    start, end = _span(visits, f"{visits.name}.")
    join = {visits.name: f"{visits.name}.{visit} = {table.name}.{visit}"}
    return {"from": table.name, "join": join, "columns": columns | {"event_at": end or start}}


def _source(table: Table, columns: dict[str, str | None]) -> dict:
    return {"from": table.name, "columns": {k: v for k, v in columns.items() if v}}


def _span(table: Table, of: str = "") -> tuple[str, str | None]:
    """Expressions for the start and the end of a row: by the names of its times, else the first two of them.

    `of` stands in front of every column, as in a join.
    """
    times = [c for c in table.roles["time"] if f"{c}time".lower() not in map(str.lower, table.roles["time"])]
    happened = [c for c in times if not re.search(LATER, c.lower())] or times
    ends = [c for c in happened if re.search(ENDS, c.lower())]
    starts = [c for c in happened if c not in ends] or ends
    end = next(iter(ends or starts[1:]), None)
    return _time(table, starts[0], of), end and _time(table, end, of)


def _time(table: Table, column: str, of: str) -> str:
    form = table.times[column]
    if form == "offset":
        return f"after('2000-01-01', {of}{column})"
    if form:
        return f"try_strptime({of}{column}, '{form}')"
    day = next((c for c in table.times if f"{c}time".lower() == column.lower()), None)
    return f"coalesce({of}{column}, {of}{day})" if day else f"{of}{column}"
