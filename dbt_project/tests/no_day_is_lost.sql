{{ config(tags=['whole_set'], meta={'dagster': {'ref': {'name': 'fates_daily'}}}) }}

select
    coming_in.hospital,
    coming_in.source_table,
    coming_in.rows as rows_in,
    fates.rows as rows_with_a_fate
from (
    select
        hospital,
        source_table,
        cast(event_at as date) as day,
        count(*) as rows
    from {{ source('input', 'measurements') }}
    group by all
) as coming_in
full outer join (
    select
        hospital,
        source_table,
        day,
        sum(rows) as rows
    from {{ ref('fates_daily') }}
    group by all
) as fates
    on
        coming_in.hospital = fates.hospital
        and coming_in.source_table is not distinct from fates.source_table
        and coming_in.day is not distinct from fates.day
where coming_in.rows is distinct from fates.rows
