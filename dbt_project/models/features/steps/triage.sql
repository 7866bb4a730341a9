-- One row an emergency stay with what was measured at its arrival: of several readings of that time the first written.
-- What the emergency department does not know of the person (year of birth) a hospital of its person_group may tell.
with people as (
    select
        hospital,
        patient_id,
        person_group,
        person_id,
        coalesce(birth_year, max(birth_year) over (partition by person_group, person_id)) as birth_year
    from {{ source('input', 'patients') }}
),

stays as (
    select
        visits.hospital,
        visits.patient_id,
        visits.visit_id,
        stays.stay_id,
        case when stays.visit_id <> stays.stay_id then stays.visit_id end as admitted_as,
        visits.event_at as arrived_at,
        visits.end_at as left_at,
        coalesce(visits.died_in_visit, false) as died_here,
        people.person_group,
        people.person_id,
        cast(date_part('year', visits.event_at) - people.birth_year as integer) as age
    from {{ source('input', 'visits') }} as visits
    inner join {{ source('input', 'stays') }} as stays
        on
            visits.hospital = stays.hospital
            and visits.patient_id = stays.patient_id
            and visits.event_at = stays.event_at
            and visits.end_at is not distinct from stays.end_at
            and visits.visit_id in (stays.visit_id, stays.stay_id)
    inner join people on visits.hospital = people.hospital and visits.patient_id = people.patient_id
    where lower(visits.visit_type) = 'emergency department'
),

measured as (
    select
        stays.hospital,
        stays.visit_id,
        readings.concept,
        arg_min(readings.value, readings.row_id) as value
    from stays
    inner join {{ ref('clocks') }} as clocks
        on stays.hospital = clocks.hospital and stays.patient_id = clocks.patient_id
    inner join {{ ref('readings') }} as readings
        on
            clocks.clock_no = readings.clock_no
            and stays.arrived_at = readings.event_at
            and stays.arrived_at >= readings.available_at
    group by stays.hospital, stays.visit_id, readings.concept
)

select
    stays.*,
    {% for concept in triage_concepts() %}
        wide.{{ concept }}{{ ',' if not loop.last }}
    {% endfor %}
from stays
left join (
    select
        hospital,
        visit_id,
        {% for concept in triage_concepts() %}
            max(value) filter (where concept = '{{ concept }}') as {{ concept }}{{ ',' if not loop.last }}
        {% endfor %}
    from measured
    group by hospital, visit_id
) as wide on stays.hospital = wide.hospital and stays.visit_id = wide.visit_id
