-- One row an emergency stay. What follows elsewhere (intensive care, death) is told by the other hospitals of its
-- person_group, whose visit has the number of the admission.
with elsewhere as (
    select
        hospital,
        patient_id,
        person_group,
        person_id,
        death_at
    from {{ source('input', 'patients') }}
),

known_elsewhere as (
    select
        triage.hospital,
        triage.visit_id,
        max(elsewhere.death_at) as death_at,
        max(visits.end_at) as discharge_at,
        min(stays.event_at) as first_icu_at
    from {{ ref('triage') }} as triage
    inner join elsewhere
        on
            triage.person_group = elsewhere.person_group
            and triage.person_id = elsewhere.person_id
            and triage.hospital <> elsewhere.hospital
    left join {{ source('input', 'visits') }} as visits
        on
            elsewhere.hospital = visits.hospital
            and elsewhere.patient_id = visits.patient_id
            and triage.admitted_as = visits.visit_id
    left join {{ source('input', 'stays') }} as stays
        on visits.hospital = stays.hospital and visits.visit_id = stays.visit_id and stays.is_icu
    group by triage.hospital, triage.visit_id
)

select
    triage.hospital,
    triage.patient_id,
    triage.visit_id,
    triage.stay_id,
    triage.arrived_at,
    triage.left_at,
    triage.age,
    cast(triage.triage_acuity as integer) as triage_acuity,
    triage.admitted_as is not null as is_admitted,
    triage.died_here,
    known_elsewhere.visit_id is not null as is_known_elsewhere,
    known_elsewhere.death_at,
    known_elsewhere.discharge_at,
    known_elsewhere.first_icu_at,
    lead(triage.arrived_at) over (
        partition by triage.hospital, triage.patient_id order by triage.arrived_at, triage.stay_id
    ) as next_arrival_at,
    horizon.last_event_at
from {{ ref('triage') }} as triage
left join known_elsewhere
    on triage.hospital = known_elsewhere.hospital and triage.visit_id = known_elsewhere.visit_id
left join {{ source('dictionary', 'horizon') }} as horizon on triage.hospital = horizon.hospital
