-- One row a visit, with what the definitions of tasks ask about.
with visits as (
    select * replace (coalesce(is_inpatient, true) as is_inpatient)
    from {{ source('input', 'visits') }}
),

-- only another stay is an admission: an outpatient visit after a discharge is none
later as (
    select
        visits.hospital,
        visits.row_id,
        min(later.event_at) as next_admission_at
    from visits
    inner join visits as later
        on
            visits.hospital = later.hospital
            and visits.patient_id = later.patient_id
            and visits.end_at < later.event_at
            and later.is_inpatient
    group by visits.hospital, visits.row_id
),

icu as (
    select
        hospital,
        visit_id,
        min(event_at) as first_icu_at
    from {{ source('input', 'stays') }}
    where is_icu
    group by hospital, visit_id
),

coded as (
    select distinct
        hospital,
        visit_id
    from {{ ref('diagnoses') }}
    where code is not null
)

select
    visits.hospital,
    visits.patient_id,
    visits.visit_id,
    visits.event_at as admission_at,
    visits.end_at as discharge_at,
    cast(date_part('year', visits.event_at) - patients.birth_year as integer) as age,
    patients.sex,
    patients.death_at,
    coalesce(visits.died_in_visit, patients.death_at <= visits.end_at, false) as died,
    visits.visit_type,
    visits.is_inpatient,
    visits.discharge_to,
    later.next_admission_at,
    icu.first_icu_at,
    coded.visit_id is not null as is_coded,
    horizon.last_event_at
from visits
left join {{ source('input', 'patients') }} as patients
    on visits.hospital = patients.hospital and visits.patient_id = patients.patient_id
left join later on visits.hospital = later.hospital and visits.row_id = later.row_id
left join icu on visits.hospital = icu.hospital and visits.visit_id = icu.visit_id
left join coded on visits.hospital = coded.hospital and visits.visit_id = coded.visit_id
left join {{ source('dictionary', 'horizon') }} as horizon on visits.hospital = horizon.hospital
where visits.visit_id is not null
