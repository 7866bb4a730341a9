-- One row an ICU stay that has a clock, with what the definitions of tasks ask about.
with stays as (
    select
        *,
        least(168, {{ step_ending_at_or_after('until_at', 'start_at') }} + 1) as window_h
    from {{ ref('clocks') }}
    where kind = 'stay'
),

-- of the first week, the hours in which anything was measured, and the longest time without
charted as (
    select
        clock_no,
        hour,
        hour - lag(hour, 1, 0) over (partition by clock_no order by hour) as gap_h
    from (
        select distinct
            clock_no,
            hour
        from {{ ref('hours') }}
        where hour between 0 and 167
    )
),

gaps as (
    select
        charted.clock_no,
        cast(count(*) as integer) as charted_hours,
        cast(greatest(
            max(charted.gap_h), any_value(stays.window_h) - 1 - max(charted.hour)
        ) as integer) as longest_gap_h
    from charted
    inner join stays on charted.clock_no = stays.clock_no
    group by charted.clock_no
),

-- a stay in another unit of the same visit that began when this one was over
later as (
    select distinct stays.clock_no
    from stays
    inner join {{ source('input', 'stays') }} as others
        on stays.hospital = others.hospital and stays.visit_id = others.visit_id and stays.until_at <= others.event_at
),

injured as (
    select
        hospital,
        patient_id,
        stay_id,
        min(event_at) as kidney_injury_at
    from {{ ref('kdigo') }}
    where stage >= 1
    group by hospital, patient_id, stay_id
),

creatinine as (
    select
        clock_no,
        arg_min(value, { 'at': event_at, 'row_id': row_id }) as first_creatinine
    from {{ ref('readings') }}
    where concept = 'creatinine'
    group by clock_no
)

select
    stays.hospital,
    stays.patient_id,
    stays.visit_id,
    stays.stay_id,
    stays.start_at as icu_at,
    stays.until_at as left_icu_at,
    visits.event_at as admission_at,
    visits.end_at as discharge_at,
    cast(date_part('year', stays.start_at) - patients.birth_year as integer) as age,
    patients.sex,
    patients.death_at,
    coalesce(visits.died_in_visit, patients.death_at <= visits.end_at, false) as died,
    coalesce(visits.died_in_visit, patients.death_at <= visits.end_at, false)
    and later.clock_no is null as died_in_icu,
    coalesce(gaps.charted_hours, 0) as charted_hours,
    gaps.longest_gap_h,
    creatinine.first_creatinine,
    injured.kidney_injury_at
from stays
left join gaps on stays.clock_no = gaps.clock_no
left join later on stays.clock_no = later.clock_no
left join creatinine on stays.clock_no = creatinine.clock_no
left join injured
    on
        stays.hospital = injured.hospital
        and stays.patient_id = injured.patient_id
        and stays.stay_id is not distinct from injured.stay_id
left join {{ source('input', 'visits') }} as visits
    on stays.hospital = visits.hospital and stays.visit_id = visits.visit_id
left join {{ source('input', 'patients') }} as patients
    on stays.hospital = patients.hospital and stays.patient_id = patients.patient_id
