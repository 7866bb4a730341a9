-- Hours are counted from the start of the ICU stay that a reading lies in, else from the admission of its visit (if it
-- names none, of the one visit in which it was taken), else (a reading outside of any visit) from 1970. ICU stays of a
-- patient never overlap here: the later one takes over.
with stays as (
    select
        *,
        least(end_at, lead(event_at) over (partition by hospital, patient_id order by event_at, stay_id)) as until_at
    from {{ source('input', 'stays') }}
    where is_icu and event_at is not null and (end_at is null or end_at > event_at)
),

patients as (
    select
        hospital,
        patient_id
    from {{ source('input', 'patients') }}
    union
    select
        hospital,
        patient_id
    from {{ source('input', 'measurements') }}
),

clocks as (
    select
        'stay' as kind,
        hospital,
        patient_id,
        visit_id,
        stay_id,
        event_at as start_at,
        until_at
    from stays
    union all
    select
        'visit',
        hospital,
        patient_id,
        visit_id,
        null,
        event_at,
        end_at
    from {{ source('input', 'visits') }}
    where visit_id is not null and event_at is not null
    union all
    select
        'patient',
        hospital,
        patient_id,
        null,
        null,
        timestamp '1970-01-01 00:00:00',
        null
    from patients
)

select
    cast(row_number() over (order by hospital, patient_id, kind, start_at, visit_id, stay_id) as integer) as clock_no,
    *
from clocks
