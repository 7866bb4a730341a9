{{ config(tags=['whole_set']) }}

-- The work queue, with the header of items.csv. An item that nobody has decided: fill in, and append it to the
-- hospital's items.csv. A decided item with a unit that nobody knows: add the unit's spelling to seeds/units.csv.
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
    case when fate = 'quarantined' then 'unit is not in seeds/units.csv: add its spelling there' end as note,
    count(*) as rows
from {{ ref('measurements') }}
where fate = 'unmapped' or (fate = 'quarantined' and fate_reason = 'unknown_unit')
group by hospital, source_table, code, fate
