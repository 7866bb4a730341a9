{{ config(meta={'dagster': {'ref': {'name': 'measurements'}}}) }}

select
    measurements.hospital,
    measurements.fate,
    count(*) as rows
from {{ ref('measurements') }} as measurements
left join {{ ref('concepts') }} as concepts on measurements.concept = concepts.concept
where
    case
        when measurements.fate in ('kept', 'rescued')
            then
                concepts.concept is null
                or measurements.unit is distinct from concepts.unit
                or measurements.value is null
                or measurements.value not between concepts.plausible_low and concepts.plausible_high
        when measurements.fate in ('quarantined', 'ignored', 'unmapped', 'duplicate')
            then measurements.value is not null
        else true
    end
group by measurements.hospital, measurements.fate
