"""Sampling rates, one YAML a grid in `dbt_project/grids/`: read, checked strictly, compiled to dbt models.

`dbt_project/grids/<grid>.yaml` gives `features/<grid>`, one row a step with three columns a concept, and with `long: true`
also `features/<grid>_long`, one row a step and known concept. The SQL stands in dbt_project/macros/grid.sql.
"""
