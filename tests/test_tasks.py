"""Tasks as data: a new one costs one file, and a wrong one is one line that names file, key and mend."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from orchestration import dbt
from orchestration.tasks import definition, models
from orchestration.wording import LayoutError

TASK = """description: A stay of 3 days or more, predicted at the end of the day of admission.
source: this test
version: '2'
cohort: visits
trigger: admission_at
predict_at: end_of_day(trigger_at)
horizon: discharge_at
label: discharge_at >= admission_at + interval 3 days
exclude:
  still_here: discharge_at is null
"""


@pytest.fixture
def project(tmp_path) -> Path:
    return Path(shutil.copytree(dbt.PROJECT, tmp_path / "dbt_project"))


def test_a_new_task_costs_one_file(project, tmp_path):
    (project / "tasks" / "three_days.yaml").write_text(TASK)
    target = dbt.target(project, tmp_path / "state")
    assert (target / "project/models/labels/three_days.sql").is_file()
    nodes = dbt.json.loads((target / "manifest.json").read_text())["nodes"]
    assert nodes["model.wardline.three_days"]["fqn"] == ["wardline", "labels", "three_days"]
    assert "'three_days' as task" in (target / "project/models/labels/attrition.sql").read_text()


def test_a_horizon_that_is_a_time_may_come_before_the_prediction_and_leaves_the_row_out():
    for one in models.compiled(dbt.PROJECT).values():
        assert ("horizon_before_prediction" in one.steps) == (not one.task.horizon[0].isdigit()), one.name


def test_variants_of_one_file_are_two_tasks():
    tasks = definition.read(dbt.PROJECT)
    for name in tasks:
        if name.endswith(definition.PUBLISHED):
            corrected = tasks[name.removesuffix(definition.PUBLISHED)]
            assert (tasks[name].variant, corrected.variant) == ("as_published", "corrected")
            assert tasks[name].exclude != corrected.exclude or tasks[name].label != corrected.label


def test_every_shipped_task_compiles_and_names_its_source():
    compiled = models.compiled(dbt.PROJECT)
    assert {
        "in_hospital_mortality",
        "readmission_30d",
        "length_of_stay",
        "diagnosis_groups",
    } <= compiled.keys()
    assert all(
        len(one.task.source) > 5 and one.label_type in ("INTEGER", "DOUBLE") for one in compiled.values()
    )


@pytest.mark.parametrize(
    ("pattern", "replacement", "line"),
    [
        ("cohort: visits", "cohort: results\nconcept: platlets", "concept: 'platlets' is not in seeds/concepts.csv; did you mean platelets"),
        ("cohort: visits", "cohort: visit", "cohort: there is no 'visit'; did you mean visits"),
        ("cohort: visits", "cohort: visits\nconcept: glucose", "concept: belongs to cohort: results, and to it alone; add or remove it"),
        ("horizon: .*", "horizon: -3 days", "horizon: -3 days lies before its trigger; write a time above 0"),
        ("horizon: .*", "horizon: admission_at", "horizon: is the trigger itself; write a later time"),
        ("trigger: .*\npredict_at: .*\nhorizon: .*", "trigger: discharge_at\npredict_at: trigger_at\nhorizon: admission_at", "horizon: comes before the trigger itself; write a later time"),
        ("horizon: .*", "horizon: 3 dayz", "horizon: Parser Error.*; mend the expression"),
        ("label: discharge_at", "label: dischrge_at", "label: there is no column 'dischrge_at' in cohort visits; did you mean discharge_at"),
        ("label: .*", "label: visit_type", "label: gives varchar; write one that gives boolean or integer or double"),
        ("label: .*", "label: (select 1)", "label: holds a subselect; an expression may only read"),
        ("label: .*", "label: admission_at > 3", "label: .*; mend the expression"),
        ("trigger: .*\n", "", "trigger: is missing; add it"),
        ("trigger: .*", "triger: admission_at", "there is no such key; did you mean trigger"),
        ("version: '2'", "version: '2'\nas_published: {label: died}", "as_published: needs variant: corrected beside it"),
        ("version: '2'", "version: '2'\noutcome: {icd10: [hypertension]}", "outcome.icd10.0: .*; mend it"),
        ("version: '2'", "version: '2'\noutcome: {kind: lab, concept: potasium}", "outcome.concept: 'potasium' .* did you mean potassium"),
        ("version: '2'", "version: [", "is not a YAML mapping; mend its indentation or quotes"),
        ("version: '2'", "version: '2'\nwindow: 1 day", "window: there is no such key"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(project, tmp_path, pattern, replacement, line):
    file = project / "tasks" / "three_days.yaml"
    text, count = re.subn(pattern, replacement, TASK)
    assert count
    file.write_text(text)
    with pytest.raises(LayoutError) as caught:
        models.write(project, tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{file}: ") and "\n" not in said
    assert re.search(line, said), said
