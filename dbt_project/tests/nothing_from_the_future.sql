{{ config(meta={'dagster': {'ref': {'name': 'icu_hourly'}}}) }}

-- No event is known before it happened or tells an end that came later, and the hourly table counts in each hour just
-- the readings that were known by its end.
with counted as (
    select
        stay.hospital,
        stay.stay_id,
        sum(stay.heart_rate_n_obs) as heart_rate,
        sum(stay.creatinine_n_obs) as creatinine
    from {{ ref('icu_hourly') }} as stay
    group by stay.hospital, stay.stay_id
),

known as (
    select
        clocks.hospital,
        clocks.stay_id,
        count(*) filter (where readings.concept = 'heart_rate') as heart_rate,
        count(*) filter (where readings.concept = 'creatinine') as creatinine
    from {{ ref('readings') }} as readings
    inner join {{ ref('clocks') }} as clocks on readings.clock_no = clocks.clock_no
    where
        clocks.kind = 'stay'
        and readings.hour < {{ var('longest_stay_h') }}
        and readings.available_at <= clocks.start_at + to_hours(readings.hour + 1)
    group by clocks.hospital, clocks.stay_id
)

select
    'events' as part,
    count(*) as rows
from {{ ref('events') }}
where available_at < event_at or end_at > available_at
having count(*) > 0
union all
select
    'icu_hourly' as part,
    count(*) as rows
from counted
left join known on counted.hospital = known.hospital and counted.stay_id = known.stay_id
where
    counted.heart_rate is distinct from coalesce(known.heart_rate, 0)
    or counted.creatinine is distinct from coalesce(known.creatinine, 0)
having count(*) > 0
