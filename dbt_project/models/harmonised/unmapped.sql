{{ config(tags=['whole_set']) }}

-- The work queue, with the header of items.csv. An item that nobody has decided: fill in, and append it to the
-- hospital's items.csv. A decided item with a unit that nobody knows: add the unit's spelling to seeds/units.csv.
with undecided as (
    select
        hospital,
        source_table,
        code,
        max(label) as label,
        mode(unit_raw order by unit_raw) as unit,
        cast(null as varchar) as note,
        count(*) as rows
    from {{ ref('measurements') }}
    where fate = 'unmapped'
    group by hospital, source_table, code
),

unknown_units as (
    select
        hospital,
        source_table,
        code,
        max(label) as label,
        mode(unit_raw order by unit_raw) as unit,
        'unit is not in seeds/units.csv: add its spelling there' as note,
        count(*) as rows
    from {{ ref('measurements') }}
    where fate = 'quarantined' and fate_reason = 'unknown_unit'
    group by hospital, source_table, code
)

select
    hospital,
    source_table,
    code,
    label,
    cast(null as varchar) as concept,
    cast(null as varchar) as decision,
    cast(null as varchar) as reason,
    unit,
    cast(null as varchar) as mapped_by,
    note,
    rows
from (
    select * from undecided
    union all
    select * from unknown_units
) as queue
