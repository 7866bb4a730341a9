{{ config(tags=['whole_set']) }}

-- The accounts of `fates` by the day of measurement, so that a day on which a feed broke stands out.
select
    hospital,
    source_table,
    cast(event_at as date) as day,
    fate,
    fate_reason,
    count(*) as rows
from {{ ref('measurements') }}
group by all
