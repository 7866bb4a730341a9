with spellings as (
    select
        written.unit,
        units.ucum
    from (select distinct unit from {{ source('input', 'measurements') }}) as written
    inner join {{ ref('units') }} as units on {{ spelled('written.unit') }} = units.spelling
),

-- the same reading written twice counts once: the copy that was known first. Readings are compared by a hash first,
-- so that only those that may be copies are sorted.
written_again as (
    select {{ reading_hash() }} as reading
    from {{ source('input', 'measurements') }}
    group by reading
    having count(*) > 1
),

copies as (
    select
        hospital,
        row_id
    from {{ source('input', 'measurements') }}
    where {{ reading_hash() }} in (select written_again.reading from written_again)
    qualify row_number() over (
        partition by hospital, patient_id, source_table, code, event_at, value_text, value_number, unit
        order by {{ known_at('available_at', 'event_at') }}, row_id
    ) > 1
),

rescues as (
    select
        rescues.*,
        conversions.factor,
        conversions.shift
    from {{ ref('rescues') }} as rescues
    inner join {{ source('dictionary', 'conversions') }} as conversions
        on rescues.concept = conversions.concept and rescues.unit_from = conversions.unit_from
),

written as (
    select
        *,
        nullif(trim(unit), '') as unit_raw,
        case when value_text like '%<%' or value_text like '%>%' then {{ comparator('value_text') }} end as comparator,
        coalesce(
            case when isfinite(value_number) then value_number end,
            case when value_text like '%<%' or value_text like '%>%' then {{ censored_number('value_text') }} end
        ) as number
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
        -- the row's own unit beats the one that its item declares
        case when written.unit_raw is null then items.unit_declared else spellings.ucum end as ucum,
        items.unit_declared
    from written
    left join {{ ref('items_mapped') }} as items
        on
            written.hospital = items.hospital
            and written.source_table = items.source_table
            and written.code = items.code
    left join spellings on written.unit = spellings.unit
),

converted as (
    select
        understood.*,
        concepts.unit as unit_canonical,
        rescues.rescue,
        -- the noise of floating point lies beyond the tenth decimal
        round(case
            when rescues.rescue is not null then understood.number * rescues.factor + rescues.shift
            else understood.number * conversions.factor + conversions.shift
        end, 10) as converted_value,
        concepts.plausible_low,
        concepts.plausible_high
    from understood
    left join {{ ref('concepts') }} as concepts
        on understood.concept = concepts.concept and understood.decision = 'map'
    left join {{ source('dictionary', 'conversions') }} as conversions
        on understood.concept = conversions.concept and understood.ucum = conversions.unit_from
    left join rescues
        on
            understood.concept = rescues.concept
            and understood.ucum = rescues.declared_unit
            and understood.number between rescues.low and rescues.high
),

judged as (
    select
        *,
        case
            when decision is null then 'unmapped'
            when decision = 'ignore' then 'ignored'
            when converted_value is null or converted_value not between plausible_low and plausible_high
                then 'quarantined'
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
            else rescue
        end as fate_reason
    from converted
)

select
    judged.hospital,
    judged.patient_id,
    judged.visit_id,
    judged.stay_id,
    case when judged.decision = 'map' then judged.concept end as concept,
    case when judged.fate in ('kept', 'rescued') and copies.row_id is null then judged.converted_value end as value,
    judged.unit_canonical as unit,
    coalesce(judged.value_text, cast(judged.value_number as varchar)) as value_raw,
    judged.unit_raw,
    judged.comparator,
    judged.event_at,
    {{ known_at('judged.available_at', 'judged.event_at') }} as available_at,
    case when judged.fate in ('kept', 'rescued') and copies.row_id is not null then 'duplicate' else judged.fate end
        as fate,
    case
        when judged.fate in ('kept', 'rescued') and copies.row_id is not null then 'same_reading'
        else judged.fate_reason
    end as fate_reason,
    judged.source_table,
    judged.code,
    judged.label,
    judged.row_id
from judged
left join copies on judged.hospital = copies.hospital and judged.row_id = copies.row_id
