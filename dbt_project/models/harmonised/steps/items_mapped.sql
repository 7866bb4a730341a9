select
    items.hospital,
    items.source_table,
    items.code,
    items.label,
    items.decision,
    items.reason,
    items.concept,
    units.ucum as unit_declared
from {{ source('input', 'items') }} as items
left join {{ ref('units') }} as units on {{ spelled('items.unit') }} = units.spelling
qualify row_number() over (
    partition by items.hospital, items.source_table, items.code
    order by items.decision nulls last, items.row_id
) = 1
