with written as (
    select
        *,
        nullif(trim(unit), '') as unit_raw,
        case when value_text like '%<%' or value_text like '%>%' then {{ comparator('value_text') }} end as comparator,
        {{ number_written() }} as number
    from {{ source('input', 'measurements') }}
),

understood as (
    select
        written.*,
        items.label,
        items.decision,
        items.reason,
        items.concept,
        items.code is not null as in_items,
        meanings.ucum,
        meanings.unit_canonical,
        case when written.number between meanings.rescue_low and meanings.rescue_high then meanings.rescue end
            as rescue,
        {{ converted('written.number') }} as converted_value,
        meanings.plausible_low,
        meanings.plausible_high,
        copies.row_id is not null as is_copy
    from written
    left join {{ ref('items_mapped') }} as items
        on
            written.hospital = items.hospital
            and written.source_table = items.source_table
            and written.code = items.code
    left join {{ ref('meanings') }} as meanings
        on
            written.hospital = meanings.hospital
            and written.source_table = meanings.source_table
            and written.code = meanings.code
            and written.unit is not distinct from meanings.unit
    left join {{ ref('copies') }} as copies on written.hospital = copies.hospital and written.row_id = copies.row_id
),

judged as (
    select
        *,
        case
            when decision is null then 'unmapped'
            when decision = 'ignore' then 'ignored'
            when converted_value is null or converted_value not between plausible_low and plausible_high
                then 'quarantined'
            when is_copy then 'duplicate'
            when rescue is not null then 'rescued'
            else 'kept'
        end as fate,
        case
            when not in_items then 'not_in_items'
            when decision is null then 'not_decided'
            when decision = 'ignore' then reason
            when number is null and nullif(trim(value_text), '') is null then 'no_value'
            when number is null then 'not_a_number'
            when ucum is null and unit_raw is null then 'no_unit'
            when ucum is null then 'unknown_unit'
            when converted_value is null then 'inconvertible'
            when converted_value not between plausible_low and plausible_high then 'implausible'
            when is_copy then 'same_reading'
            else rescue
        end as fate_reason
    from understood
)

select
    hospital,
    patient_id,
    visit_id,
    stay_id,
    case when decision = 'map' then concept end as concept,
    case when fate in ('kept', 'rescued') then converted_value end as value,
    unit_canonical as unit,
    coalesce(value_text, cast(value_number as varchar)) as value_raw,
    unit_raw,
    comparator,
    event_at,
    {{ known_at('available_at', 'event_at') }} as available_at,
    fate,
    fate_reason,
    source_table,
    code,
    label,
    row_id
from judged
