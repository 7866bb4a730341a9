-- All that follows from a mapped item and the unit written beside it, worked out once for each pair that occurs: a row
-- then costs one look-up.
with pairs as (
    select distinct
        hospital,
        source_table,
        code,
        unit
    from {{ source('input', 'measurements') }}
),

understood as (
    select
        pairs.hospital,
        pairs.source_table,
        pairs.code,
        items.concept,
        pairs.unit,
        -- the row's own unit beats the one that its item declares
        case when nullif(trim(pairs.unit), '') is not null then units.ucum else items.unit_declared end as ucum
    from pairs
    inner join {{ ref('items_mapped') }} as items
        on pairs.hospital = items.hospital and pairs.source_table = items.source_table and pairs.code = items.code
    left join {{ ref('units') }} as units on {{ spelled('pairs.unit') }} = units.spelling
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
