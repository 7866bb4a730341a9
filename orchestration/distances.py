"""How far two profiles of a hospital's extracts lie apart: one row a comparison, in counts, shares and plain words.

| column | what it holds |
|---|---|
| scope | whole: all days of both; new: the days since the last extract, beside the last full days before them |
| measure | rows_per_day, thinned_days, unit, fate or values |
| subject, part | what is compared: an input table or a concept; an item and its unit; a feed and its fate |
| rows_before, rows_tonight | the rows (thinned_days: days) that the comparison rests on |
| before, tonight | rows a day, a share, or the share in the part of the distribution that moved most |
| distance | rows_per_day: how many times more or less; unit, fate, thinned_days: difference of shares; values: stability index |
| what | all that as a sentence |
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

FEW_ROWS = 10  # a day with fewer may well be empty in the next extract
# Population stability index: the sum over parts of (tonight - before) * ln(tonight / before), half a row added to each part.
# Below 0.1 no shift to speak of, above 0.25 a large one: Siddiqi, Credit Risk Scorecards, 2006. By chance alone it is about
# (1/n + 1/m) * (parts - 1): Yurdakul and Naranjo, J Risk Model Validation 14(3), 2020.
DISTANCES = f"""
with earlier as (select * replace (if(scope = 'recent', 'new', scope) as scope) from before),
spans as (
    select scope, if(scope = 'whole', 'whole extract', 'new days') as called, days_before, days_tonight
    from (select scope, count(distinct part) as days_before from earlier where measure = 'day' group by scope)
    inner join (select scope, count(distinct part) as days_tonight from tonight where measure = 'day' group by scope)
        using (scope)
),
volumes as (
    select
        scope, called, subject, coalesce(b.rows, 0) as rows_before, coalesce(t.rows, 0) as rows_tonight,
        rows_before / days_before as before, rows_tonight / days_tonight as tonight
    from (select scope, subject, sum(rows) as rows from earlier where measure in ('day', 'concept') group by all) as b
    full join (select scope, subject, sum(rows) as rows from tonight where measure in ('day', 'concept') group by all) as t
        using (scope, subject)
    inner join spans using (scope)
),
thinned as (
    select
        called, subject, count(*) as rows_before, count(*) filter (coalesce(t.rows, 0) < b.rows / 2) as rows_tonight,
        rows_tonight / rows_before as share
    from earlier as b left join tonight as t using (scope, measure, subject, part) inner join spans using (scope)
    where measure = 'day' and scope = 'whole' and b.rows >= {FEW_ROWS}
    group by all
),
sizes as (
    select scope, called, measure, subject, b.rows as rows_before, t.rows as rows_tonight, t.parts
    from (select scope, measure, subject, sum(rows) as rows from earlier group by all) as b
    inner join (select scope, measure, subject, sum(rows) as rows, count(*) as parts from tonight group by all) as t
        using (scope, measure, subject)
    inner join spans using (scope)
    where measure in ('unit', 'fate', 'values') and b.rows > 0 and t.rows > 0
),
places as (
    select scope, measure, subject, part, coalesce(b.rows, 0) as before, coalesce(t.rows, 0) as tonight
    from earlier as b full join tonight as t using (scope, measure, subject, part)
),
shares as (
    select
        sizes.*, part, places.before / rows_before as before, places.tonight / rows_tonight as tonight,
        (places.before + 0.5) / (rows_before + parts / 2) as smooth_before,
        (places.tonight + 0.5) / (rows_tonight + parts / 2) as smooth_tonight
    from sizes inner join places using (scope, measure, subject)
),
shifts as (
    select
        scope, called, subject, rows_before, rows_tonight, parts,
        sum((smooth_tonight - smooth_before) * ln(smooth_tonight / smooth_before)) as index,
        arg_max({{'part': part, 'before': before, 'tonight': tonight}}, abs(tonight - before)) as most
    from shares where measure = 'values' group by all
)
select
    scope, 'rows_per_day' as measure, subject, null as part, rows_before, rows_tonight, before, tonight,
    if(least(before, tonight) > 0, greatest(tonight / before, before / tonight), 'infinity'::double) as distance,
    format('{{}}, {{}}: {{:.1f}} rows a day, before {{:.1f}} ({{}} rows, before {{}})',
        subject, called, tonight, before, rows_tonight, rows_before) as what
from volumes
union all
select 'whole', 'thinned_days', subject, null, rows_before, rows_tonight, 0, share, share,
    format('{{}}, {{}}: {{}} of {{}} days have lost more than half of their rows', subject, called, rows_tonight, rows_before)
from thinned
union all
select scope, measure, subject, part, rows_before, rows_tonight, before, tonight, abs(tonight - before),
    format('{{}}, {{}}: {{}} in {{:.1f}} % of {{}} rows, before in {{:.1f}} % of {{}}',
        subject, called, part, 100 * tonight, rows_tonight, 100 * before, rows_before)
from shares where measure in ('unit', 'fate')
union all
select scope, 'values', subject, most.part, rows_before, rows_tonight, most.before, most.tonight, index,
    format('{{}}, {{}}: stability index {{:.2f}}; part {{}} of {{}} holds {{:.1f}} % of {{}} values, before {{:.1f}} % of {{}}',
        subject, called, index, most.part, parts, 100 * most.tonight, rows_tonight, 100 * most.before, rows_before)
from shifts
"""
SCHEMA = pa.schema(
    [
        ("scope", pa.string()),
        ("measure", pa.string()),
        ("subject", pa.string()),
        ("part", pa.string()),
        ("rows_before", pa.int64()),
        ("rows_tonight", pa.int64()),
        ("before", pa.float64()),
        ("tonight", pa.float64()),
        ("distance", pa.float64()),
        ("what", pa.string()),
    ]
)


def distances(before: pa.Table, tonight: pa.Table) -> pa.Table:
    """Every comparison of two profiles (extract_profile.SCHEMA, `tonight` with its parts cut at the edges of `before`)."""
    with duckdb.connect() as connection:
        connection.register("before", before)
        connection.register("tonight", tonight)
        ordered = f"select * from ({DISTANCES}) order by scope desc, measure, distance desc, subject, part"
        return connection.sql(ordered).to_arrow_table().cast(SCHEMA)
