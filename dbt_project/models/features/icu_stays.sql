-- Each ICU stay some hours after its start, if it still runs then: who is in the bed, as known at that time.
select
    clocks.hospital,
    clocks.patient_id,
    clocks.visit_id,
    clocks.stay_id,
    clocks.start_at,
    cast(moments.after_h as integer) as after_h,
    clocks.start_at + to_hours(moments.after_h) as known_at,
    cast(date_part('year', clocks.start_at) - patients.birth_year as integer) as age,
    patients.sex,
    nullif(lower(trim(stays.care_unit)), '') as care_unit,
    visits.event_at as admission_at
from {{ ref('clocks') }} as clocks
cross join (select unnest({{ var('icu_summary_h') }}) as after_h) as moments
left join {{ source('input', 'stays') }} as stays
    on
        clocks.hospital = stays.hospital
        and clocks.patient_id = stays.patient_id
        and clocks.stay_id = stays.stay_id
        and clocks.start_at = stays.event_at
left join {{ source('input', 'visits') }} as visits
    on clocks.hospital = visits.hospital and clocks.visit_id = visits.visit_id
left join {{ source('input', 'patients') }} as patients
    on clocks.hospital = patients.hospital and clocks.patient_id = patients.patient_id
where
    clocks.kind = 'stay'
    and (clocks.until_at is null or clocks.until_at >= clocks.start_at + to_hours(moments.after_h))
