"""What is to be foreseen, one YAML a task in `dbt_project/tasks/`: read, checked strictly, compiled to dbt models.

`dbt_project/tasks/<task>.yaml` gives `labels/<task>`, and with an `as_published:` block also `labels/<task>_as_published`;
all together give `labels/attrition`. Expressions are DuckDB SQL over the columns of the cohort (a model `cohort_<name>` in
models/labels/steps) and over what the definition itself has computed so far, in this order: trigger_at; prediction_at;
horizon_at, outcome_at, first_outcome_at, has_group. Labels come from timestamps, never from tokens.
"""
