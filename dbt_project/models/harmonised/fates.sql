{{ config(tags=['whole_set']) }}

select
    hospital,
    source_table,
    concept,
    fate,
    fate_reason,
    count(*) as rows
from {{ ref('measurements') }}
group by all
