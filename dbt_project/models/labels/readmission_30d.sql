-- A discharge counts if the patient left alive and the export reaches 30 days beyond it, or a readmission is seen.
with visits as (
    select
        visits.*,
        coalesce(visits.died_in_visit, patients.death_at <= visits.end_at, false) as died
    from {{ source('input', 'visits') }} as visits
    left join {{ source('input', 'patients') }} as patients
        on visits.hospital = patients.hospital and visits.patient_id = patients.patient_id
    where visits.visit_id is not null and visits.end_at is not null
),

discharges as (
    select
        visits.hospital,
        visits.patient_id,
        visits.visit_id,
        visits.end_at as prediction_at,
        visits.end_at + interval 30 days <= horizon.last_event_at as is_followed,
        exists(
            select 1 from {{ source('input', 'visits') }} as later
            where
                later.hospital = visits.hospital
                and later.patient_id = visits.patient_id
                and later.event_at > visits.end_at
                and later.event_at <= visits.end_at + interval 30 days
        ) as is_readmitted
    from visits
    inner join {{ source('dictionary', 'horizon') }} as horizon on visits.hospital = horizon.hospital
    where not visits.died
)

select
    hospital,
    patient_id,
    visit_id,
    prediction_at,
    cast(is_readmitted as integer) as label,
    'readmission_30d' as task,
    '1' as task_version
from discharges
where is_followed or is_readmitted
