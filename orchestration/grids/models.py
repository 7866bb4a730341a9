"""Grids as models of dbt, added to a copy of the project: `features/<grid>`, `features/<grid>_long` and the steps on the way."""

from __future__ import annotations

from pathlib import Path

import yaml

from orchestration.dictionary import read_csv
from orchestration.feature_contracts import column_name
from orchestration.grids import definition
from orchestration.grids.definition import Grid
from orchestration.wording import LayoutError, relative

Columns = dict[str, tuple[str, str]]  # name to data type and description
DOCS = ("hospital", "patient_id", "visit_id", "stay_id")
WHOSE = {"stay": "an ICU stay", "visit": "a visit, wards and ICU alike"}
WHAT = """A row holds what could be known at the end of its step: a late result enters when it arrives. A value is carried up to
its concept's limit and nothing is imputed."""
STEPS = {
    "readings": "Usable measurements on the clocks of the grid.",
    "steps": "What each step of measurement amounts to.",
    "clocks": "Whose steps: clocks with the length of their grid.",
    "news": "What each step learned of a concept.",
    "carried": "The grid with every concept carried up to its limit (orchestration/grids/carried.py).",
    "known": "What is known of which concept in which step (orchestration/grids/carried.py).",
}
COLUMNS: dict[str, Columns] = {
    "clock_no": ("integer", "Clock."),
    "concept": ("varchar", "{{ doc('concept') }}"),
    "aggregate": ("varchar", "How the values of a step become one."),
    "step": ("integer", "Step of measurement."),
    "known_step": ("integer", "Step at whose end it was known."),
    "value": ("double", "Value in the concept's unit."),
    "n_obs": ("integer", "Measurements of this step known at its end."),
    "event_at": ("timestamp", "{{ doc('event_at') }}"),
    "available_at": ("timestamp", "{{ doc('available_at') }}"),
    "row_id": ("varchar", "{{ doc('row_id') }}"),
    "first_known_step": ("integer", "Step at whose end the first measurement was known."),
    "last_known_step": ("integer", "Step at whose end all were known."),
    "steps": ("integer", "Steps of the clock."),
    "first_row": ("bigint", "Row of the grid at which the clock begins."),
    "concept_no": (
        "smallint",
        "Place of the concept among those of the grid, in alphabetical order, from 0.",
    ),
    "place": ("bigint", "Row of the grid at whose end it was known."),
    "measured_step": ("integer", "Step of measurement."),
}
OF_STEP = {
    "readings": "clock_no concept aggregate step known_step value event_at available_at row_id",
    "steps": "clock_no concept step value n_obs first_known_step last_known_step",
    "clocks": "clock_no steps first_row",
    "news": "concept_no place value n_obs measured_step",
    "carried": "clock_no step",
    "known": "clock_no step concept value n_obs",
}
KERNEL = """from orchestration.grids.carried import {kernel}


def model(dbt, session):
    dbt.config(materialized="table")
    news = dbt.ref("{name}_news").to_arrow_table()
    clocks = dbt.ref("{name}_clocks").order("clock_no").to_arrow_table()
    concepts = dbt.ref("concepts").filter("concept in {concepts}").project("concept, carry_h").order("concept")
    return {kernel}(news, clocks, concepts.fetchall(), {minutes})
"""


def write(project: Path, target: Path) -> None:
    """Add the models of `project`'s grids to `target`, a copy of it. Raises LayoutError before anything is written."""
    grids = definition.read(project)
    taken = {path.stem for path in (project / "models").rglob("*.sql")}
    concepts = {row["concept"]: row for row in read_csv(project / "seeds" / "concepts.csv")}
    for name in grids:
        if name in taken:
            file = relative(project / definition.FOLDER / f"{name}.yaml")
            raise LayoutError(f"{file}: there is a model {name} already; give the file another name")
    for name, grid in grids.items():
        _write(name, grid, [concepts[concept] for concept in grid.concepts], target / "models" / "features")


def _write(name: str, grid: Grid, concepts: list[dict[str, str]], folder: Path) -> None:
    (folder / "steps").mkdir(parents=True, exist_ok=True)
    place = f"'{grid.clock}', {grid.minutes}"
    sql = {
        "readings": f"{{{{ grid_readings({place}) }}}}",
        "steps": f"{{{{ grid_steps('{name}', {place}) }}}}",
        "clocks": f"{{{{ grid_clocks('{name}', {place}) }}}}",
        "news": f"{{{{ grid_news('{name}', {grid.concepts}) }}}}",
    }
    for step, text in sql.items():
        (folder / "steps" / f"{name}_{step}.sql").write_text(text + "\n")
    kernels = ["carried", "known"] if grid.long else ["carried"]
    for kernel in kernels:
        listed = f"({', '.join(repr(concept) for concept in grid.concepts)})"
        text = KERNEL.format(kernel=kernel, name=name, concepts=listed, minutes=grid.minutes)
        (folder / "steps" / f"{name}_{kernel}.py").write_text(text)
    (folder / f"{name}.sql").write_text(f"{{{{ grid_wide('{name}', {place}) }}}}\n")
    models = [_step(name, step, grid) for step in (*sql, *kernels)] + [_wide(name, grid, concepts)]
    if grid.long:
        (folder / f"{name}_long.sql").write_text(f"{{{{ grid_long('{name}', {place}) }}}}\n")
        models.append(_long(name, grid))
    text = yaml.safe_dump({"version": 2, "models": models}, sort_keys=False, width=1000)
    (folder / f"{name}_grid.yml").write_text(text)


def _step(name: str, step: str, grid: Grid) -> dict:
    columns = {column: COLUMNS[column] for column in OF_STEP[step].split()}
    config: dict = {}
    if step in ("carried", "known"):
        config = {"contract": {"enforced": False}}  # dbt enforces contracts of SQL models only
    elif step in ("readings", "steps") and (grid.clock, grid.minutes) == ("stay", 60):
        config = {"materialized": "view"}
    return _model(f"{name}_{step}", STEPS[step], columns, config)


def _wide(name: str, grid: Grid, concepts: list[dict[str, str]]) -> dict:
    columns, meta = _keys(grid), {}
    age = "integer" if grid.minutes % 60 == 0 else "double"
    for row in concepts:
        concept, column = row["concept"], column_name(row["concept"], row["unit"])
        what = f"{row['label']} in {row['unit']}: {row['aggregate']} of its {grid.moment}, carried up to {row['carry_h']} h."
        columns[column] = ("double", what[0].upper() + what[1:])
        columns[f"{concept}_n_obs"] = ("integer", f"Measurements of this {grid.moment} known at its end.")
        columns[f"{concept}_age_h"] = (
            age,
            f"Hours since the start of the {grid.moment} in which the value was measured.",
        )
        meta[column] = concept
    model = _model(name, f"{_said(grid)} One row a {grid.moment}. {WHAT}", columns, {"materialized": "view"})
    for column in model["columns"]:
        if column["name"] in meta:
            column["config"] = {"meta": {"concept": meta[column["name"]]}}
    counts = [f"{row['concept']}_n_obs" for row in concepts]
    return model | {"data_tests": _tests(name, name, grid, [], counts)}


def _long(name: str, grid: Grid) -> dict:
    columns = _keys(grid) | {
        "concept": COLUMNS["concept"],
        "value": ("double", f"Aggregate of the {grid.moment} in which it was measured."),
        "unit": ("varchar", "Unit of the concept, UCUM."),
        "n_obs": COLUMNS["n_obs"],
        "age_h": (
            "integer" if grid.minutes % 60 == 0 else "double",
            f"Hours since the start of the {grid.moment} in which the value was measured.",
        ),
    }
    what = f"{_said(grid)} One row a {grid.moment} and concept of which a value is known. {WHAT}"
    model = _model(f"{name}_long", what, columns, {"materialized": "view"})
    return model | {"data_tests": _tests(f"{name}_long", name, grid, ["concept"], ["n_obs"])}


def _said(grid: Grid) -> str:
    return f"{grid.description.strip()} Every {grid.every} of {WHOSE[grid.clock]}."


def _keys(grid: Grid) -> Columns:
    columns: Columns = {
        name: ("varchar", f"{{{{ doc('{name}') }}}}") for name in DOCS[: 4 if grid.clock == "stay" else 3]
    }
    start = "the stay" if grid.clock == "stay" else "admission"
    columns[grid.moment] = ("integer", f"Whole {grid.moment}s since the start of {start}; 0 is the first.")
    columns["known_at"] = (
        "timestamp",
        f"End of the {grid.moment}: the row holds what was available by then.",
    )
    if grid.clock == "visit":
        columns["in_icu"] = (
            "boolean",
            f"True where the patient lies in an ICU at the end of the {grid.moment}.",
        )
    return columns


def _tests(model: str, name: str, grid: Grid, more: list[str], counts: list[str]) -> list[dict]:
    keys = [*(k for k in _keys(grid) if k not in ("known_at", "in_icu")), *more]
    knows = {
        "name": name,
        "clock": grid.clock,
        "minutes": grid.minutes,
        "concepts": grid.concepts,
        "counts": counts,
    }
    return [
        {"keys_are_unique": {"name": f"keys_are_unique_{model}", "arguments": {"columns": keys}}},
        {"counts_what_was_known": {"name": f"counts_what_was_known_{model}", "arguments": {"grid": knows}}},
    ]


def _model(name: str, description: str, columns: Columns, config: dict) -> dict:
    listed = [{"name": n, "data_type": kind, "description": says} for n, (kind, says) in columns.items()]
    return {"name": name, "description": description, "config": config, "columns": listed}
