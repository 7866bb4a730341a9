{{ config(tags=['whole_set']) }}

-- What nobody has decided yet, with the header of items.csv: fill in, and append it to the hospital's items.csv.
select
    hospital,
    source_table,
    code,
    max(label) as label,
    cast(null as varchar) as concept,
    cast(null as varchar) as decision,
    cast(null as varchar) as reason,
    mode(unit_raw order by unit_raw) as unit,
    cast(null as varchar) as mapped_by,
    cast(null as varchar) as note,
    count(*) as rows
from {{ ref('measurements') }}
where fate = 'unmapped'
group by hospital, source_table, code
