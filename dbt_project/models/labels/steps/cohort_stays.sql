-- One row an ICU stay that has a clock, with what the definitions of tasks ask about.
with later as (
    -- a stay in another unit of the same visit that began when this one was over
    select distinct
        clocks.clock_no
    from {{ ref('clocks') }} as clocks
    inner join {{ source('input', 'stays') }} as others
        on
            clocks.kind = 'stay'
            and clocks.hospital = others.hospital
            and clocks.visit_id = others.visit_id
            and others.event_at >= clocks.until_at
)

select
    clocks.hospital,
    clocks.patient_id,
    clocks.visit_id,
    clocks.stay_id,
    clocks.start_at as icu_at,
    clocks.until_at as left_icu_at,
    visits.event_at as admission_at,
    visits.end_at as discharge_at,
    cast(date_part('year', clocks.start_at) - patients.birth_year as integer) as age,
    patients.sex,
    patients.death_at,
    coalesce(visits.died_in_visit, patients.death_at <= visits.end_at, false) as died,
    coalesce(visits.died_in_visit, patients.death_at <= visits.end_at, false)
    and later.clock_no is null as died_in_icu
from {{ ref('clocks') }} as clocks
left join {{ source('input', 'visits') }} as visits
    on clocks.hospital = visits.hospital and clocks.visit_id = visits.visit_id
left join {{ source('input', 'patients') }} as patients
    on clocks.hospital = patients.hospital and clocks.patient_id = patients.patient_id
left join later on clocks.clock_no = later.clock_no
where clocks.kind = 'stay'
