{{ config(tags=['whole_set'], meta={'dagster': {'ref': {'name': 'fates'}}}) }}

select
    coming_in.hospital,
    coming_in.source_table,
    coming_in.rows as rows_in,
    fates.rows as rows_with_a_fate
from (
    select
        hospital,
        source_table,
        count(*) as rows
    from {{ source('input', 'measurements') }}
    group by hospital, source_table
) as coming_in
full outer join (
    select
        hospital,
        source_table,
        sum(rows) as rows
    from {{ ref('fates') }}
    group by hospital, source_table
) as fates
    on
        coming_in.hospital = fates.hospital
        and coming_in.source_table is not distinct from fates.source_table
where coming_in.rows is distinct from fates.rows
