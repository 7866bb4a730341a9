-- The same reading of a mapped item written twice counts once: the copy that was known first. Readings are compared by
-- a hash first, so that only those that may be copies are sorted.
with mapped as (
    select
        measurements.*,
        {{ reading_hash() }} as reading
    from {{ source('input', 'measurements') }} as measurements
    where
        exists (
            select 1 from {{ ref('items_mapped') }} as items
            where
                items.decision = 'map'
                and items.hospital = measurements.hospital
                and items.source_table = measurements.source_table
                and items.code = measurements.code
        )
),

repeated as (
    select reading
    from mapped
    group by reading
    having count(*) > 1
)

select
    hospital,
    row_id
from mapped
where reading in (select repeated.reading from repeated)
qualify row_number() over (
    partition by hospital, patient_id, source_table, code, event_at, value_text, value_number, unit
    order by {{ known_at('available_at', 'event_at') }}, row_id
) > 1
