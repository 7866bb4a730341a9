-- Every usable measurement on its clock, with the hour it belongs to and the hour at whose end it was known.
with placed as (
    select
        coalesce(stay.clock_no, visit.clock_no, patient.clock_no) as clock_no,
        coalesce(stay.start_at, visit.start_at, patient.start_at) as start_at,
        measurements.concept,
        measurements.value,
        measurements.event_at,
        measurements.available_at,
        measurements.row_id
    from {{ ref('measurements') }} as measurements
    left join {{ ref('clocks') }} as stay
        on
            stay.kind = 'stay'
            and measurements.hospital = stay.hospital
            and measurements.patient_id = stay.patient_id
            and measurements.event_at >= stay.start_at
            and (stay.until_at is null or measurements.event_at < stay.until_at)
            and (measurements.stay_id is null or measurements.stay_id = stay.stay_id)
    left join {{ ref('clocks') }} as visit
        on
            visit.kind = 'visit'
            and measurements.hospital = visit.hospital
            and measurements.patient_id = visit.patient_id
            and measurements.visit_id = visit.visit_id
    left join {{ ref('clocks') }} as patient
        on
            patient.kind = 'patient'
            and measurements.hospital = patient.hospital
            and measurements.patient_id = patient.patient_id
    where measurements.fate in ('kept', 'rescued')
)

select
    placed.clock_no,
    placed.concept,
    concepts.aggregate,
    concepts.category = 'vital' as is_vital,
    {{ hour_of('placed.event_at', 'placed.start_at') }} as hour,
    greatest(
        {{ hour_ending_at_or_after('placed.available_at', 'placed.start_at') }},
        {{ hour_of('placed.event_at', 'placed.start_at') }}
    ) as known_hour,
    placed.value,
    placed.event_at,
    placed.available_at,
    placed.row_id
from placed
inner join {{ ref('concepts') }} as concepts on placed.concept = concepts.concept
