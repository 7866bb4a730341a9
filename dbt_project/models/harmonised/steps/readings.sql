-- Every usable measurement on its clock, with the hour it belongs to and the hour at whose end it was known. They are
-- the kept and rescued rows of `measurements`, read straight from the input: the grid does not wait for the accounts.
with numbers as (
    select
        *,
        {{ number_written() }} as number,
        {{ known_at('available_at', 'event_at') }} as known_at
    from {{ source('input', 'measurements') }} as measurements
    where
        not exists (
            select 1 from {{ ref('copies') }} as copies
            where copies.hospital = measurements.hospital and copies.row_id = measurements.row_id
        )
),

-- the time in which a patient was in one visit and no other; greatest and least pass over a null
alone as (
    select
        clock_no,
        hospital,
        patient_id,
        start_at,
        greatest(start_at, max(coalesce(until_at, timestamp 'infinity')) over (
            partition by hospital, patient_id
            order by start_at, clock_no
            rows between unbounded preceding and 1 preceding
        )) as alone_from,
        least(until_at, lead(start_at) over (
            partition by hospital, patient_id order by start_at, clock_no
        )) as alone_until
    from {{ ref('clocks') }}
    where kind = 'visit'
),

placed as (
    select
        coalesce(stay.clock_no, visit.clock_no, alone.clock_no, patient.clock_no) as clock_no,
        coalesce(stay.start_at, visit.start_at, alone.start_at, patient.start_at) as start_at,
        meanings.concept,
        meanings.aggregate,
        meanings.is_vital,
        {{ converted('numbers.number') }} as value,
        numbers.event_at,
        numbers.known_at as available_at,
        numbers.row_id
    from numbers
    inner join {{ ref('meanings') }} as meanings
        on
            numbers.hospital = meanings.hospital
            and numbers.source_table = meanings.source_table
            and numbers.code = meanings.code
            and numbers.unit is not distinct from meanings.unit
            and {{ converted('numbers.number') }} between meanings.plausible_low and meanings.plausible_high
    left join {{ ref('clocks') }} as stay
        on
            stay.kind = 'stay'
            and numbers.hospital = stay.hospital
            and numbers.patient_id = stay.patient_id
            and numbers.event_at >= stay.start_at
            and (stay.until_at is null or numbers.event_at < stay.until_at)
            and (numbers.stay_id is null or numbers.stay_id = stay.stay_id)
    left join {{ ref('clocks') }} as visit
        on
            visit.kind = 'visit'
            and numbers.hospital = visit.hospital
            and numbers.patient_id = visit.patient_id
            and numbers.visit_id = visit.visit_id
    -- a reading that names no visit belongs to the one in which it was taken
    left join alone
        on
            numbers.hospital = alone.hospital
            and case when numbers.visit_id is null then numbers.patient_id end = alone.patient_id
            and numbers.event_at >= alone.alone_from
            and (alone.alone_until is null or numbers.event_at < alone.alone_until)
    left join {{ ref('clocks') }} as patient
        on
            patient.kind = 'patient'
            and numbers.hospital = patient.hospital
            and numbers.patient_id = patient.patient_id
)

select
    clock_no,
    concept,
    aggregate,
    is_vital,
    {{ step_of('event_at', 'start_at') }} as hour,
    greatest(
        {{ step_ending_at_or_after('available_at', 'start_at') }},
        {{ step_of('event_at', 'start_at') }}
    ) as known_hour,
    value,
    event_at,
    available_at,
    row_id
from placed
