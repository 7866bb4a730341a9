-- All that follows from a mapped item and the unit written beside it, worked out once: a row then costs one look-up.
with spellings as (
    select
        written.unit,
        nullif(trim(written.unit), '') is not null as is_written,
        units.ucum
    from (select distinct unit from {{ source('input', 'measurements') }}) as written
    left join {{ ref('units') }} as units on {{ spelled('written.unit') }} = units.spelling
),

understood as (
    select
        items.hospital,
        items.source_table,
        items.code,
        items.concept,
        spellings.unit,
        -- the row's own unit beats the one that its item declares
        case when spellings.is_written then spellings.ucum else items.unit_declared end as ucum
    from {{ ref('items_mapped') }} as items
    cross join spellings
    where items.decision = 'map'
)

select
    understood.*,
    concepts.unit as unit_canonical,
    conversions.factor,
    conversions.shift,
    rescues.rescue,
    rescues.low as rescue_low,
    rescues.high as rescue_high,
    mending.factor as rescue_factor,
    mending.shift as rescue_shift,
    concepts.plausible_low,
    concepts.plausible_high,
    concepts.aggregate,
    concepts.category = 'vital' as is_vital
from understood
left join {{ ref('concepts') }} as concepts on understood.concept = concepts.concept
left join {{ source('dictionary', 'conversions') }} as conversions
    on understood.concept = conversions.concept and understood.ucum = conversions.unit_from
left join {{ ref('rescues') }} as rescues
    on understood.concept = rescues.concept and understood.ucum = rescues.declared_unit
left join {{ source('dictionary', 'conversions') }} as mending
    on rescues.concept = mending.concept and rescues.unit_from = mending.unit_from
